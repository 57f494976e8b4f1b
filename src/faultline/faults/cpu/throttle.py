"""A quota of processor time that is cut."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import faultline
from faultline.api.params import Params
from faultline.api.quantities import Between, Flag, Percent
from faultline.changes import worker
from faultline.changes.model import Change, Record, mark
from faultline.errors import FaultlineError, InvalidParameter, Refused, Unsupported
from faultline.injection.group_target import joined, limited, usable_cores, value
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import BUSY, Effect, Reading
from faultline.kernel import cgroup, cgroup_limits, clock
from faultline.kernel.cgroup import Group
from faultline.places.model import HOST, KINDS, Place
from faultline.workers.join import group_from, group_to

_SMALLEST = 1000  # microseconds: the shortest quota that the kernel takes
_PERIOD = 100_000  # microseconds: the kernel's own
_WATCH = 1.0  # seconds that the group's counters are watched
_LOAD = 20.0  # seconds after which processes of ours end, whatever happens
_OVER = 1.1  # what a quota may be exceeded by: each core takes it in slices


class ThrottleParams(Params):
    """Parameters of `cpu throttle`."""

    percent: Annotated[Percent, Between("0.1%", "1000000%"), Flag("p")]
    """How much processor time it may use from now on; `of` says what this is a share of."""
    of: Literal["group", "core"] = "group"
    """group: of what the target may use now, its quota or all the cores that it may run on; core:
    of one core, so that 150% is one and a half."""


@dataclass(frozen=True, slots=True)
class _Use:
    """What a group's counters say at one instant; times in nanoseconds."""

    when: int
    used: int
    throttled: cgroup_limits.Throttled


class CpuThrottle(Fault[ThrottleParams]):
    """Cut the processor time that a target may use: its tasks wait for the rest of each period.

    The quota is set on the target's own control group and holds for everybody in it and below it.
    It is only ever lowered. The root group is never touched.
    """

    id = "cpu.throttle"
    ending = Ending.KEEPER
    does = (
        "Writes the quota of the target's control group: `cpu.max` of version 2, "
        "`cpu.cfs_quota_us` of version 1, where groups below it with more are lowered before it."
    )
    cannot = (
        "Act on a target in the root control group. Go below 1 ms of each period (1% of a core "
        "with the usual period of 100 ms)."
    )
    measures = (
        "The group's own counters of processor time and of waiting over 1 s; where the target "
        "does not use its quota, with processes of ours that want more of it in its group."
    )
    restores = "The quota from before, if it is still ours."
    example: ClassVar[dict[str, str]] = {"percent": "20%"}
    places = frozenset(KINDS) - {HOST}
    needs = frozenset({"root"})

    def plan(self, place: Place, params: ThrottleParams) -> list[Change]:
        group = limited(place, "cpu")
        found = cgroup_limits.cpu_limit(group)
        now = float(len(usable_cores(place)))
        now = min(now, found[0].cores) if found else now
        wanted = float(params.percent) / 100 * (now if params.of == "group" else 1.0)
        if wanted >= now:
            raise Refused(
                f"the target may use {now:g} cores now: {wanted:g} would be no less",
                hint="ask for less",
            )
        below = group.walk() if group.version == 1 else [group]
        changes: list[Change] = []
        for each in reversed(list(below)):
            own = cgroup_limits.own_cpu_quota(each)
            if each == group or (own and own.cores > wanted):
                changes += _quota(each, wanted)
        return changes

    def observe(self, place: Place, params: ThrottleParams, record: Record) -> Reading:
        wanted = _wanted(record)
        asked = f"at most {wanted:g} cores"
        group = group_from({"version": _version(record), "folder": _folder(record)})
        if not group.exists():
            return Reading(Effect.INEFFECTIVE, asked, "no group", self.measures, "it is gone")
        own = cgroup_limits.own_cpu_quota(group)
        if own is None or abs(own.cores - wanted) > wanted / 100:
            measured = "no quota" if own is None else f"a quota of {own.cores:g} cores"
            why = "somebody has set another quota"
            return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why)
        usage = _counted(group)
        reading = self._judge(asked, wanted, *_watched(group, usage), "by the target")
        if reading is None:
            try:
                with _load(place, record):
                    looks = _watched(group, usage)
            except FaultlineError as error:
                return Reading.unmeasured(asked, self.measures, error.message)
            reading = self._judge(asked, wanted, *looks, "with processes of ours")
        return reading or Reading.unmeasured(
            asked, self.measures, f"{BUSY}: nobody could use up the quota"
        )

    def _judge(
        self, asked: str, wanted: float, first: _Use, last: _Use, whose: str
    ) -> Reading | None:
        """None where nothing in the group came near its quota."""
        passed = last.when - first.when
        cores = (last.used - first.used) / passed
        times = last.throttled.times - first.throttled.times
        if not times and cores < 0.5 * wanted:
            return None
        waited = (last.throttled.waited - first.throttled.waited) / passed
        values = {"asked": wanted, "measured": cores, "throttled": float(times), "waited": waited}
        measured = f"{cores:.3f} cores used {whose}, throttled {times} times in {_WATCH:g} s"
        # What a period still had when the watch began may be used in it as well.
        over = cores > _OVER * wanted + wanted * _PERIOD / 1e6 / _WATCH
        effect = Effect.INEFFECTIVE if over else Effect.EFFECTIVE
        reason = "more is used than was asked" if over else ""
        return Reading(effect, asked, measured, self.measures, reason, values)


def _quota(group: Group, cores: float) -> list[Change]:
    """The changes that give a group so many cores; its period stays."""
    own = cgroup_limits.own_cpu_quota(group)
    period = own.period // 1000 if own else _period(group)
    quota = round(cores * period)
    if quota < _SMALLEST:
        least = f"at least {100 * _SMALLEST / period:g}% of a core"
        raise InvalidParameter("percent", f"{100 * cores:g}% of a core", least)
    spec: dict[str, Any] = {"cores": cores, "version": group.version}
    if group.version == 2:
        text, usual = f"{quota} {period}", f"max {_PERIOD}"
        return value(group, "cpu.max", text, usual, **spec)
    if not group.has("cpu.cfs_quota_us"):
        raise Unsupported("this kernel has no quotas of processor time (CONFIG_CFS_BANDWIDTH)")
    return value(group, "cpu.cfs_quota_us", str(quota), **spec)


def _period(group: Group) -> int:
    file = "cpu.max" if group.version == 2 else "cpu.cfs_period_us"
    return int(group.read(file).split()[-1]) if group.has(file) else _PERIOD


def _wanted(record: Record) -> float:
    return float(record.steps[-1].change.spec["cores"])


def _version(record: Record) -> int:
    return int(record.steps[-1].change.spec["version"])


def _folder(record: Record) -> str:
    return str(Path(record.steps[-1].change.spec["path"]).parent)


def _counted(group: Group) -> Group:
    """The group that counts the processor time of a group with a quota."""
    if group.version == 2:
        return group
    layout = cgroup.layout()
    path = "/" + str(group.folder.relative_to(layout.hierarchy("cpu").point))
    found = Group(layout.hierarchy("cpuacct"), path)
    if not found.exists():
        raise Unsupported(f"no control group {path} counts processor time (cpuacct)")
    return group_from(group_to(found))


def _watched(group: Group, usage: Group) -> tuple[_Use, _Use]:
    first = _use(group, usage)
    time.sleep(_WATCH)
    return first, _use(group, usage)


def _use(group: Group, usage: Group) -> _Use:
    used, throttled = cgroup_limits.cpu_usage(usage), cgroup_limits.cpu_throttled(group)
    return _Use(time.monotonic_ns(), used, throttled)


@contextmanager
def _load(place: Place, record: Record) -> Generator[None]:
    """Let processes of ours want more than the quota while the block runs.

    They would end by themselves, and carry the mark of the fault.
    """
    end = clock.now() + round(_LOAD * 1e9)
    order: dict[str, Any] = {
        "percent": 100.0,
        "scope": "all",
        "cores": usable_cores(place),  # all, since others may fill any one of them
        "join": joined(place, "cpuset"),
        "deadline": end,
    }
    source = str(Path(faultline.__file__).parents[1])
    ours = mark(record.uid, len(record.steps))
    try:
        worker.start(source, ours, {"module": "burn", "deadline": end, "spec": order}, _LOAD)
        yield
    finally:
        worker.end_marked(ours, 0.0)
