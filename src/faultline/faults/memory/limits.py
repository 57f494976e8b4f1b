"""A memory limit that is cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from faultline import units
from faultline.api.params import Params
from faultline.api.quantities import Between, Flag, Percent, Size
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter, Refused, Unsupported
from faultline.injection.group_target import limited, value
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import cgroup_limits, memory
from faultline.kernel.cgroup import Group
from faultline.places.model import HOST, KINDS, Place
from faultline.workers.join import group_from

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SPARE = 4 << 20  # bytes that stay above what cannot be taken back
_BATCH = 64 * _PAGE  # bytes that each core may count late
_HIGH_OVER = 1.1  # what a soft limit is exceeded by while the kernel takes back


class SqueezeParams(Params):
    """Parameters of `memory squeeze`: either `percent` or `bytes`."""

    percent: Annotated[Percent | None, Between("1%", "100%"), Flag("p")] = None
    """What it may use from now on; `of` says what this is a share of."""
    bytes: Annotated[Size | None, Between("64KiB", "1024TiB"), Flag("b")] = None
    """What it may use from now on, as an amount."""
    of: Literal["use", "limit"] = "use"
    """use: of what is charged to it now, page cache included; limit: of what it may use now."""
    mode: Annotated[Literal["hard", "soft"], Flag("m")] = "hard"
    """hard: the limit beyond which the kernel kills; soft: the one beyond which the kernel takes
    memory back and slows the target down, and kills nobody (version 2)."""
    oom: bool = False
    """Whether the new limit may be so low that the kernel must kill to reach it. Without, a limit
    below what can be taken back is refused."""

    @model_validator(mode="after")
    def _one(self) -> SqueezeParams:
        if (self.percent is None) == (self.bytes is None):
            raise ValueError("expected either percent or bytes")
        return self


class MemorySqueeze(Fault[SqueezeParams]):
    """Lower the memory limit of a target: the kernel takes back its page cache, makes it swap, or
    kills in it.

    The limit is set on the target's own control group and holds for everybody in it and below it.
    It is only ever lowered. The root group is never touched.
    """

    id = "memory.squeeze"
    ending = Ending.KEEPER
    does = (
        "Writes a limit of the target's control group: `memory.max` or `memory.high` of version 2, "
        "`memory.limit_in_bytes` of version 1."
    )
    cannot = (
        "Act on a target in the root control group. With version 1, set a limit that the kernel "
        "cannot reach by taking memory back: it answers busy, and the fault is refused. Keep the "
        "target from dying when it asks for more than the new limit afterwards."
    )
    measures = (
        "The group's limit and what is charged to it; beside it how often it met the limit and how "
        "many were killed since, by its own counters."
    )
    restores = "The limit from before, if it is still ours; not what was killed or dropped."
    example: ClassVar[dict[str, str]] = {"percent": "70%", "of": "limit"}
    places = frozenset(KINDS) - {HOST}
    needs = frozenset({"root"})

    def plan(self, place: Place, params: SqueezeParams) -> list[Change]:
        group = limited(place, "memory")
        wanted = _wanted(params, group)
        present = cgroup_limits.memory_limit(group)
        if present is not None and wanted >= present[0]:
            raise Refused(
                f"the target may use {_short(present[0])} now: {_short(wanted)} would be no less"
            )
        if params.mode == "soft":
            if group.version == 1:
                raise Unsupported(
                    "control groups of version 1 have no such soft limit", hint="use mode: hard"
                )
            return value(group, "memory.high", str(wanted), "max", watch=_counters(group))
        self._spare(group, wanted, params)
        file = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
        return value(group, file, str(wanted), "max", watch=_counters(group))

    def _spare(self, group: Group, wanted: int, params: SqueezeParams) -> None:
        """Refuse what the kernel could not reach without killing, unless that is asked for."""
        if not group.has("memory.stat"):
            return
        floor = cgroup_limits.memory_floor(group, memory.meminfo().get("SwapFree", 0))
        if wanted >= floor + _SPARE:
            return
        why = f"{_short(floor)} of the target cannot be taken back: {_short(wanted)} would kill"
        if group.version == 1:
            raise Refused(why, hint=f"with version 1 ask for more than {_short(floor + _SPARE)}")
        if not params.oom:
            raise Refused(why, hint="if you mean it: --oom")

    def observe(self, place: Place, params: SqueezeParams, record: Record) -> Reading:
        change = record.steps[-1].change
        path, wanted = Path(change.spec["path"]), int(change.spec["value"])
        asked = f"at most {_short(wanted)}"
        if not path.exists():
            return Reading(Effect.INEFFECTIVE, asked, "no group", self.measures, "it is gone")
        version = 1 if path.name == "memory.limit_in_bytes" else 2
        group = group_from({"version": version, "folder": str(path.parent)})
        now, charge = group.read(path.name), cgroup_limits.memory_charge(group)
        met, killed = _since(record)
        values = {
            "asked": float(wanted),
            "charged": float(charge),
            "met": float(met),
            "killed": float(killed),
        }
        measured = f"{_short(charge)} charged, the limit met {met} times, {killed} killed"
        if now.isdigit():  # else it is `max`: none
            values["measured"] = float(now)
        if now != str(wanted):
            why = f"somebody has set {path.name} to {now}"
            return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why, values)
        slack = _BATCH * (os.cpu_count() or 1)
        over = charge > wanted + slack
        if params.mode == "soft":
            over = charge > _HIGH_OVER * wanted + slack and not met
        effect = Effect.INEFFECTIVE if over else Effect.EFFECTIVE
        reason = "more is charged than the limit" if over else ""
        return Reading(effect, asked, measured, self.measures, reason, values)


def _wanted(params: SqueezeParams, group: Group) -> int:
    """The new limit, in whole pages."""
    if params.bytes is not None:
        whole = int(params.bytes)
    elif params.of == "use":
        whole = cgroup_limits.memory_charge(group)
    else:
        present = cgroup_limits.memory_limit(group)
        if present is None:
            raise Unsupported("the target has no memory limit", hint="use of: use, or bytes")
        whole = present[0]
    share = 1.0 if params.percent is None else float(params.percent) / 100
    pages = int(whole * share) // _PAGE
    if pages < 1:
        raise InvalidParameter("percent", params.percent, f"more than a page of {_short(whole)}")
    return pages * _PAGE


def _counters(group: Group) -> list[str]:
    """The files that tell how often a limit was met and how many were killed."""
    if group.version == 2:
        return [f"{group.folder}/memory.events"]
    # Version 1 counts in the very group of who was killed.
    killed = [f"{each.folder}/memory.oom_control" for each in group.walk()]
    return [f"{group.folder}/memory.failcnt", *killed]


def _since(record: Record) -> tuple[int, int]:
    """How often the limit was met, and how many were killed, since before the fault."""
    seen: dict[str, str] = record.steps[-1].prior.get("seen", {})
    met, killed = 0, 0
    for path, then in seen.items():
        now = Path(path).read_text() if Path(path).exists() else then
        before, after = _numbers(then), _numbers(now)
        grown = {name: after[name] - before.get(name, 0) for name in after}
        met += grown.get("max", 0) + grown.get("high", 0) + grown.get("", 0)
        killed += grown.get("oom_kill", 0)
    return met, killed


def _numbers(text: str) -> dict[str, int]:
    """Lines of a name and a number; a number alone has the name ''."""
    pairs = [line.rpartition(" ") for line in text.splitlines() if line]
    return {name: int(number) for name, _, number in pairs}


def _short(size: int) -> str:
    return units.Size(size).short
