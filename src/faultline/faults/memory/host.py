"""Swap that is turned off, and caches that are dropped."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from faultline import units
from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, Size, text
from faultline.changes.model import Change, Record, mark
from faultline.errors import Unsupported
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import memory, procfs, swap
from faultline.places.model import HOST, Place
from faultline.workers.drop_cache import host_drops
from faultline.workers.join import group_to

_MODES = {"pages": 1, "names": 2, "all": 3}
_LITTLE = 1 << 20  # bytes of cache that may stay, or come back at once


class SwapoffParams(Params):
    """Parameters of `memory swapoff`."""

    leave: Annotated[Size, Between("0B", "1TiB")] = text("64MiB")
    """What must stay available on the host when what is swapped out is back in memory; less is
    refused unless `host-memory` is allowed by name."""


class MemorySwapoff(Fault[SwapoffParams]):
    """Turn off all swap of the host.

    What is swapped out is read back into memory first, which takes as long as the reading does.
    """

    id = "memory.swapoff"
    lethal = "it takes away what the whole host swaps to"
    ending = Ending.KEEPER
    does = "Turns off each device and file that the kernel swaps to (swapoff(2))."
    cannot = (
        "Turn swap off for one target; limit its group instead. Tell whether an area was turned on "
        "with discarding: it comes back without."
    )
    measures = "/proc/swaps: nothing is swapped to."
    restores = (
        "Turns on what was on before, in the same order and with the same priorities. It is empty "
        "then: what was in it stays in memory."
    )
    example: ClassVar[dict[str, str]] = {}
    places = frozenset({HOST})
    needs = frozenset({"root"})

    def plan(self, place: Place, params: SwapoffParams) -> list[Change]:
        found = swap.areas()
        if not found:
            raise Unsupported("this host has no swap")
        used, free = sum(each.used for each in found), memory.host_memory().available
        names = ", ".join(f"{each.path} ({_short(each.used)} in use)" for each in found)
        guards.current().note(f"swapped to now: {names}")
        if used + int(params.leave) > free:
            guards.current().refuse(
                "host-memory",
                f"{_short(used)} is swapped out, and {_short(free)} of memory is available",
            )
        return [Change("swap_off", {})]

    def observe(self, place: Place, params: SwapoffParams, record: Record) -> Reading:
        found = swap.areas()
        size = sum(each.size for each in found)
        measured = f"{len(found)} areas with {_short(size)}"
        effect = Effect.INEFFECTIVE if found else Effect.EFFECTIVE
        reason = "somebody has turned swap on" if found else ""
        values = {"asked": 0.0, "measured": float(size)}
        return Reading(effect, "no swap", measured, self.measures, reason, values)


class CacheParams(Params):
    """Parameters of `memory cache`."""

    mode: Annotated[Literal["pages", "names", "all"], Flag("m")] = "all"
    """pages: the content of files; names: folders' entries and inodes; all: both. Of a target that
    is not the host it is always all that the kernel can take back from it."""
    interval: Annotated[Duration | None, Between("10ms", "1h"), Flag("i")] = None
    """Drop it again and again, with this time in between; without it once."""


class MemoryCache(Fault[CacheParams]):
    """Drop caches: what was read before has to be read from the disk again.

    Of the host, all of it; of another target what is charged to its control group.
    """

    id = "memory.cache"
    ending = Ending.SELF
    does = (
        "Writes into `vm.drop_caches` or, of a target, into `memory.reclaim` (version 2) or "
        "`memory.force_empty` (version 1) of its control group."
    )
    cannot = (
        "Drop what is not written to disk yet, locked, or in use by a mapping. Of a target whose "
        "kernel has swap, more than its cache may be taken (older kernels, and version 1)."
    )
    measures = (
        "The kernel's count of drops (/proc/vmstat); of a target, its page cache right before and "
        "right after. How much went is told beside it."
    )
    restores = "Nothing: caches fill again as files are read. Ends the process that drops."
    example: ClassVar[dict[str, str]] = {"interval": "1s"}
    needs = frozenset({"root"})

    def plan(self, place: Place, params: CacheParams) -> list[Change]:
        order: dict[str, Any] = {
            "mode": _MODES[params.mode],
            "interval": 0.0 if params.interval is None else params.interval.seconds,
        }
        whose = "of this host"
        if not place.is_host:
            group = place.own_group("memory")
            file = "memory.reclaim" if group.version == 2 else "memory.force_empty"
            if not group.has(file) or group.parent() is None:
                raise Unsupported(f"the control group {group.path} has no {file}")
            if params.mode == "names":
                raise Unsupported("only the cache of the whole host is dropped by kinds")
            order["group"] = group_to(group)
            whose = f"of {group.path}"
        pace = "once" if params.interval is None else f"every {params.interval}"
        what = f"drop the cache {whose} ({params.mode}) {pace}"
        return [Change("worker", {"module": "drop_cache", "spec": order, "what": what})]

    def observe(self, place: Place, params: CacheParams, record: Record) -> Reading:
        step = record.steps[0]
        first: dict[str, int] = step.made.get("ready", {})
        asked = f"the cache dropped ({params.mode})"
        if not first:
            return Reading.unmeasured(asked, self.measures, "what it did first is not known")
        before, after = first["last"], first["after"]
        measured = f"{_short(before)} before, {_short(after)} after"
        values = {"before": float(before), "after": float(after)}
        counted = first["counted_before"]
        if step.change.spec["spec"].get("group") is None and counted >= 0:
            times = host_drops() - counted
            measured += f", dropped {times} times since"
            values["times"] = float(times)
            right = times > 0
        else:
            right = after < before or after <= _LITTLE
        if not procfs.find_marked(mark(record.uid, 0)) and params.interval is not None:
            why = "our process has ended"
            return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why, values)
        effect = Effect.EFFECTIVE if right else Effect.INEFFECTIVE
        reason = "" if right else "nothing could be dropped"
        return Reading(effect, asked, measured, self.measures, reason, values)


def _short(size: int) -> str:
    return units.Size(size).short
