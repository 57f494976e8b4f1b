"""Faults of memory: little of it left, none left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import model_validator

from faultline import units
from faultline.api.params import Params
from faultline.api.quantities import Between, ByteRate, Flag, Percent, Size, text
from faultline.changes.model import Change, Record, mark
from faultline.errors import Refused, Unsupported
from faultline.injection import guards
from faultline.injection.group_target import joined
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading, mean_is
from faultline.kernel import cgroup, cgroup_limits, clock, memory, procfs
from faultline.kernel.memory import MemoryUse
from faultline.places.model import Place
from faultline.workers.fill_memory import STEP, oom_kills
from faultline.workers.join import group_from, group_to

POINT = 1.0  # hundredths that the measured level may be off
_LOOKS = 5
_PAUSE = 0.2  # seconds between two looks
_READY = 120.0  # seconds until the level must stand: the kernel clears some GiB per second
_NOISE = 1 << 20  # bytes that two copies of an interpreter may differ by
_HOST_NEEDS = 64 << 20  # bytes that a group may not be allowed to take from the host
_STRUCK = 10.0  # seconds that the killer is waited for

P = TypeVar("P", bound="_MemoryParams")


class _MemoryParams(Params):
    mode: Annotated[Literal["ram", "cache"], Flag("m")] = "ram"
    """ram: memory of a process; cache: pages of a memory file, which count as page cache and
    cannot be dropped."""
    of: Literal["auto", "host", "group"] = "auto"
    """host: the memory of the whole host; group: what the target's control group may use (its
    limit, or the tightest above it); auto: group on a target that is not the host and has a limit,
    else host."""
    protect: bool = False
    """Ask the out-of-memory killer to spare us, so that it picks others."""


class FillParams(_MemoryParams):
    """Parameters of `memory fill`: either `percent` or `bytes`."""

    percent: Annotated[Percent | None, Between("1%", "100%"), Flag("p")] = None
    """How much shall be in use, with what others use, as a share of the total (of the host, or of
    the control group's limit). In use is what is not available to programs: page cache that can be
    dropped at once does not count."""
    bytes: Annotated[Size | None, Between("4KiB", "1024TiB"), Flag("b")] = None
    """How much to take, whatever others use, instead."""
    growth: Annotated[ByteRate | None, Between("4KiB/s", "1TiB/s"), Flag("g")] = None
    """Grow by this much per second, as a leak does; without it as fast as possible."""
    leave: Annotated[Size, Between("0B", "1TiB")] = text("64MiB")
    """What must stay available on the host; a fill that would take it is refused unless
    `host-memory` is allowed by name."""

    @model_validator(mode="after")
    def _one(self) -> FillParams:
        if (self.percent is None) == (self.bytes is None):
            raise ValueError("expected either percent or bytes")
        return self


class OomParams(_MemoryParams):
    """Parameters of `memory oom`."""


class _Filled(Fault[P]):
    """What the faults share that hold memory."""

    ending = Ending.SELF
    does = (
        "A process of ours takes memory and touches it, locked where that is allowed; another one "
        "watches it and holds the level while others come and go."
    )
    restores = "Ends the processes; the kernel frees what they held."


class MemoryFill(_Filled[FillParams]):
    """Use memory up to a level, or take a fixed amount.

    With `growth` it goes slowly, as a leak does. On a place the memory is taken within its control
    groups: it counts against its limit, and the kernel may kill the target for it.
    """

    id = "memory.fill"
    cannot = (
        "Lower what others use: then the reading says `already above`. Where memory may not be "
        "locked, ours can be swapped out. The kernel may end us before the level stands; "
        "`protect` is not granted everywhere, not even to root."
    )
    measures = (
        "A share: /proc/meminfo, or what the control group is charged. An amount: what the kernel "
        "says that our processes hold."
    )
    example: ClassVar[dict[str, str]] = {"bytes": "32MiB"}

    def plan(self, place: Place, params: FillParams) -> list[Change]:
        use, group = _target(place, params)
        wanted = int(params.bytes or 0) or _missing(use, params)
        _keep_alive(wanted, int(params.leave))
        level = (
            f"{params.bytes}"
            if params.bytes is not None
            else f"memory until {params.percent} of {_whole(group, use)} is in use"
        )
        order = {
            **_order(place, params, group),
            "percent": None if params.percent is None else float(params.percent),
            "bytes": None if params.bytes is None else int(params.bytes),
            "rate": int(params.growth or 0),
        }
        pace = f", growing by {params.growth}" if params.growth else ""
        what = f"hold {level}{pace} ({params.mode})"
        spec = {"module": "fill_memory", "spec": order, "what": what, "ready": _READY}
        return [Change("worker", spec)]

    def observe(self, place: Place, params: FillParams, record: Record) -> Reading:
        looks: list[tuple[float, int, MemoryUse]] = []
        while len(looks) < _LOOKS:
            time.sleep(_PAUSE if looks else 0)
            looks.append((clock.now() / 1e9, _held(record), _use(record)))
        _, held, use = looks[-1]
        begun = (record.deadline - record.duration) / 1e9
        asked, right, values, measured = self._against(params, looks, _group(record))
        if not held and not procfs.find_marked(mark(record.uid, 0)):
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why, values)
        above = params.percent is not None and use.percent > float(params.percent) + POINT
        if above and held < _NOISE:
            why = "already above what was asked: others use that"
            return Reading(Effect.ABOVE, asked, measured, self.measures, why, values)
        if not right and params.growth and held and self._grows(params, looks, begun):
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)
        effect = Effect.EFFECTIVE if right else Effect.INEFFECTIVE
        reason = "" if right else "the level does not stand"
        return Reading(effect, asked, measured, self.measures, reason, values)

    def _against(
        self,
        params: FillParams,
        looks: list[tuple[float, int, MemoryUse]],
        group: cgroup.Group | None,
    ) -> tuple[str, bool, dict[str, float], str]:
        """What was asked, whether it stands, the figures, and what was seen in words."""
        _, held, use = looks[-1]
        values = {"held": float(held), "available": float(use.available), "total": float(use.total)}
        left = f"{_short(held)} held by us, {_short(use.available)} available"
        if params.percent is not None:
            levels = [look.percent for _, _, look in looks]
            level = sum(levels) / len(levels)
            values |= {"asked": float(params.percent), "measured": level}
            asked = f"{params.percent} of {_whole(group, use)} in use"
            right = mean_is(float(params.percent), levels, POINT)
            return asked, right, values, f"{level:.2f}% in use, {left}"
        wanted = int(params.bytes or 0)
        values |= {"asked": float(wanted), "measured": float(held)}
        right = abs(held - wanted) <= max(0.01 * wanted, _NOISE)
        return f"{params.bytes} taken", right, values, left

    def _grows(
        self, params: FillParams, looks: list[tuple[float, int, MemoryUse]], begun: float
    ) -> bool:
        """Whether no less is held than growth at the asked rate makes, but for one step of it."""
        when, held, _ = looks[-1]
        rate = int(params.growth or 0)
        due = rate * max(0.0, when - begun - 2.0)  # until the process was there
        return 0.9 * due - min(rate, STEP) <= held and held > looks[0][1]


class MemoryOom(_Filled[OomParams]):
    """Use memory beyond what there is, until the kernel kills somebody; and again.

    In a control group with a limit the killer strikes within it: us, or the target, or all of a
    group that is set to be killed as a whole. On the host it may strike anybody, so that is refused
    unless `host-oom` is allowed by name.
    """

    id = "memory.oom"
    does = _Filled.does + " When it is killed, another one begins a second later."
    cannot = (
        "Choose whom the kernel kills: the largest is likely, which is us unless `protect` is "
        "asked for and granted. Bring back what was killed."
    )
    measures = "The kernel's count of out-of-memory kills, of the host or the control group."
    example: ClassVar[dict[str, str]] = {"of": "group"}
    scratch = "memory"

    def plan(self, place: Place, params: OomParams) -> list[Change]:
        use, group = _target(place, params)
        if group is None or use.available >= memory.host_memory().available - _HOST_NEEDS:
            guards.current().refuse(
                "host-oom", "the kernel would kill processes of this host until memory is free"
            )
        order = {**_order(place, params, group), "oom": True}
        what = f"take more memory than {_whole(group, use)} ({params.mode}), again and again"
        spec = {"module": "fill_memory", "spec": order, "what": what, "ready": _READY}
        return [Change("worker", spec)]

    def observe(self, place: Place, params: OomParams, record: Record) -> Reading:
        group = _group(record)
        asked = "the out-of-memory killer strikes"
        before = record.steps[0].made.get("ready", {}).get("oom_before")
        until = time.monotonic() + _STRUCK
        while True:
            now = oom_kills(group)
            if now < 0 or before is None:
                why = "this kernel does not count out-of-memory kills"
                return Reading.unmeasured(asked, self.measures, why)
            if now > before or time.monotonic() > until:
                break
            time.sleep(_PAUSE)
        running = bool(procfs.find_marked(mark(record.uid, 0)))
        measured = f"{now - before} kills since it began"
        values = {"measured": float(now - before)}
        effect = Effect.EFFECTIVE if now > before and running else Effect.INEFFECTIVE
        reason = "" if running else "our processes have ended"
        return Reading(effect, asked, measured, self.measures, reason, values)


# ------------------------------------------------------------------------------------- the target


def _target(place: Place, params: _MemoryParams) -> tuple[MemoryUse, cgroup.Group | None]:
    """How much there is and is used, and the control group if that is meant."""
    found = _limit(place)
    host = memory.host_memory()
    if params.of == "group" or (params.of == "auto" and found and not place.is_host):
        if found is None:
            raise Unsupported(
                "the target's control group has no memory limit",
                hint="use of: host, or a target that has a limit",
            )
        return found
    if found is not None and found[0].total < host.total:
        raise Refused(
            f"the target's control group {found[1].path} may use {_short(found[0].total)} only: "
            "the host cannot be filled from within it",
            hint="use of: group, or start it from outside",
        )
    return host, None


def _limit(place: Place) -> tuple[MemoryUse, cgroup.Group] | None:
    """Use against the tightest limit of the target's control group, and who has that limit."""
    if "memory" not in cgroup.layout().controllers():
        return None
    group = place.group_of("memory")
    limit, use = cgroup_limits.memory_limit(group), cgroup_limits.memory_use(group)
    return None if limit is None or use is None else (use, limit[1])


def _order(place: Place, params: _MemoryParams, holder: cgroup.Group | None) -> dict[str, Any]:
    kind = "anonymous" if params.mode == "ram" else "cache"
    order: dict[str, Any] = {"kind": kind, "protect": params.protect, "join": joined(place)}
    return order if holder is None else {**order, "group": group_to(holder)}


def _missing(use: MemoryUse, params: FillParams) -> int:
    return max(0, int(use.total * float(params.percent or 0) / 100) - use.used)


def _keep_alive(wanted: int, leave: int) -> None:
    """What the host needs to go on, and with it our keepers, is left unless allowed by name: a
    group may be allowed more than there is.
    """
    if memory.host_memory().available - wanted < leave:
        guards.current().refuse(
            "host-memory",
            f"{_short(wanted)} would leave less than {_short(leave)} of this host's memory",
        )


def _whole(group: cgroup.Group | None, use: MemoryUse) -> str:
    where = "this host" if group is None else "the target's control group"
    return f"the {_short(use.total)} of {where}"


def _short(size: int) -> str:
    return units.Size(size).short


def _group(record: Record) -> cgroup.Group | None:
    group = record.steps[0].change.spec["spec"].get("group")
    return group_from(group) if group else None


def _use(record: Record) -> MemoryUse:
    group = _group(record)
    if group is None:
        return memory.host_memory()
    return cgroup_limits.memory_use(group) or memory.host_memory()


def _held(record: Record) -> int:
    """Bytes that our processes hold, as the kernel counts them.

    The watcher and the holder are copies of one process but for the memory that was taken, so
    their difference is that; memory files come on top.
    """
    sizes: list[int] = []
    files = 0
    for process in procfs.find_marked(mark(record.uid, 0)):
        try:
            held = memory.process_memory(process.pid)
        except (ProcessLookupError, PermissionError):
            continue
        sizes.append(held.proportional + held.swapped)
        files += _memory_files(process.pid)
    return files + (max(sizes) - min(sizes) if len(sizes) > 1 else 0)


def _memory_files(pid: int) -> int:
    """Blocks of the memory files that a process of ours has open; only the one that holds them."""
    found: dict[int, int] = {}
    for fd, target in procfs.descriptors(pid).items():
        if target.startswith("/memfd:faultline"):
            info = Path(f"/proc/{pid}/fd/{fd}").stat()
            found[info.st_ino] = 512 * info.st_blocks
    return sum(found.values())
