"""Busy processors."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag, Percent
from faultline.changes.model import Change, Record, mark
from faultline.errors import InvalidParameter, Unsupported
from faultline.injection.group_target import joined, usable_cores
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import BUSY, Effect, Reading, mean_is
from faultline.kernel import cgroup, cgroup_limits, cpustat, procfs
from faultline.places.model import Place
from faultline.workers.join import group_from, group_to

POINTS = 3.0  # hundredths that the measured level may be off
_SLICE = 0.25  # seconds between two looks
_SLICES = 8
_PER_CORE = 4  # waiting tasks for each core when no number is given


def _core_list(value: str) -> str:
    try:
        cores = cpustat.parse_cores(value)
    except InvalidParameter as error:
        raise ValueError(f"expected {error.expected}") from error
    if not cores:
        raise ValueError("expected core numbers and ranges, such as 0-3,5")
    return cpustat.format_cores(cores)


class BurnParams(Params):
    """Parameters of `cpu burn`."""

    percent: Annotated[Percent, Between("1%", "100%"), Flag("p")]
    """How busy it shall be in total, with what others use; `of` says what this is a share of."""
    of: Literal["auto", "core", "all", "group"] = "auto"
    """core: of each chosen core; all: of all cores together, however the work is spread; group: of
    the processor time that the target's control group may use (its quota); auto: group on a target
    that is not the host and has a quota, else core."""
    cores: Annotated[
        str | None, AfterValidator(lambda v: v and _core_list(v)), Flag("l", ("list",))
    ] = None
    """Which cores, as numbers and ranges: `0-2,6`. Without it, and without `count`, all of them."""
    count: Annotated[int | None, Between(1, 65536), Flag("c")] = None
    """How many cores, the lowest numbers first, instead of `cores`."""
    rivals: Annotated[int | None, Between(1, 64)] = None
    """How many processes of ours want all of each core. Without it others keep what they use, and
    only the rest is burnt; with it, and with 100% alone, they get one part in `rivals` + 1 of it,
    as far as control groups and priorities weigh alike."""

    @model_validator(mode="after")
    def _either(self) -> BurnParams:
        if self.rivals is not None and (float(self.percent) < 100 or self.of == "all"):
            raise ValueError("expected rivals only together with percent: 100%, and not of: all")
        if self.cores is not None and self.count is not None:
            raise ValueError("expected either cores or count")
        if self.of not in ("auto", "core") and (self.cores is not None or self.count is not None):
            raise ValueError("expected cores or count only together with of: core")
        return self


@dataclass(frozen=True, slots=True)
class _Look:
    """Processor time counted by the kernel up to one instant, in seconds."""

    when: float
    total: dict[int, cpustat.CoreTimes]
    group: float
    ours: dict[int, float]  # core to seconds of our processes pinned there; -1: not pinned
    waited: float  # seconds that our processes stood in line for a core, all together


class CpuBurn(Fault[BurnParams]):
    """Keep processors busy at a level, which includes what others use.

    On a place the work is done in its control groups: it is charged for it and shares its quota and
    its weight with it. Others keep what they use; only the rest up to the level is burnt, so the
    level stands while they come and go. What others use beyond it cannot be taken from them: then
    the reading says `already above`. To take it from them, `rivals` compete for the cores.
    """

    id = "cpu.burn"
    ending = Ending.SELF
    does = (
        "One process of ours for each core, pinned to it, works in slices of 50 ms; twice a second "
        "what the kernel counted is compared with what was asked. With `rivals` so many for each "
        "core work without a pause, each in a session of its own, so that it weighs as much as any "
        "process where the scheduler groups by session."
    )
    cannot = (
        "Lower what others use, without `rivals`; with them, below the share that the weight of "
        "their control group gives them. Time that a hypervisor takes away (steal) counts as busy. "
        "Within a control group with a quota the cores themselves may not be reached: use "
        "`of: group` there."
    )
    measures = (
        "/proc/stat of the cores, or the control group's own counter, over 2 s, and what the "
        "kernel charged our processes in that time; the workers are not asked."
    )
    restores = "Ends the processes."
    example: ClassVar[dict[str, str]] = {"percent": "60%"}

    def plan(self, place: Place, params: BurnParams) -> list[Change]:
        usable = usable_cores(place)
        order: dict[str, Any] = {
            "percent": float(params.percent),
            "join": joined(place, "cpuset"),
        }
        scope = _scope(place, params)
        if scope == "group":
            order |= _group_order(place, usable)
            what = f"hold {params.percent} of {order['group']['quota']:g} cores, the quota there"
        else:
            order |= {"scope": scope, "cores": _chosen(params, usable)}
            what = f"hold {_denominator(order)} busy at {params.percent}"
        if params.rivals is not None:
            order["rivals"] = params.rivals
            what += f", with {params.rivals} that compete for it"
        return [Change("worker", {"module": "burn", "spec": order, "what": f"{what}, in total"})]

    def observe(self, place: Place, params: BurnParams, record: Record) -> Reading:
        order: dict[str, Any] = record.steps[0].change.spec["spec"]
        asked = f"{params.percent} of {_denominator(order)}"
        pids = [each.pid for each in procfs.find_marked(mark(record.uid, 0))]
        if not pids:
            why = "our processes have ended"
            return Reading(Effect.INEFFECTIVE, asked, "nothing burns", self.measures, why)
        looks = [_look(order, pids)]
        for _ in range(_SLICES):
            time.sleep(_SLICE)
            looks.append(_look(order, pids))
        return self._judge(asked, float(params.percent), order, looks)

    def _judge(
        self, asked: str, percent: float, order: dict[str, Any], looks: list[_Look]
    ) -> Reading:
        """Each unit for itself: a core, all cores together, or the quota; the worst one tells."""
        units = [[core] for core in order["cores"]] if order["scope"] == "cores" else [[-1]]
        pairs = list(pairwise(looks))
        levels = [[_level(order, unit[0], *pair) for pair in pairs] for unit in units]
        means = [sum(level) / len(level) for level in levels]
        others = [
            max(0.0, mean - _own(order, unit[0], looks[0], looks[-1]))
            for unit, mean in zip(units, means, strict=True)
        ]
        worst = max(range(len(units)), key=lambda unit: abs(means[unit] - percent))
        right = all(mean_is(percent, level, POINTS) for level in levels)
        mean, rest = sum(means) / len(means), sum(others) / len(others)
        measured = f"{mean:.1f}% over {_SLICE * _SLICES:g} s, of that {rest:.1f}% by others"
        if len(units) > 1:
            measured += f"; core {units[worst][0]} furthest off at {means[worst]:.1f}%"
        values = {"asked": percent, "measured": mean, "others": rest, "n": float(_SLICES)}
        if "rivals" in order:
            values["rivals"] = float(order["rivals"])
            return self._outdone(asked, measured, values, others, right=right)
        above = [u for u, other in enumerate(others) if other > percent + POINTS]
        if above:
            where = ", ".join(f"core {units[u][0]}" for u in above if units[u][0] >= 0)
            reason = f"already above what was asked{', ' + where if where else ''}: others use that"
            return Reading(Effect.ABOVE, asked, measured, self.measures, reason, values)
        waited = looks[-1].waited - looks[0].waited
        if (
            not right
            and order["scope"] == "group"
            and mean + _share(order, waited, looks) > percent
        ):
            # Within the quota, and yet they stood in line: others had the cores.
            reason = f"{BUSY}: ours waited {waited:.1f} s for cores that others had"
            return Reading(Effect.UNMEASURED, asked, measured, self.measures, reason, values)
        effect = Effect.EFFECTIVE if right else Effect.INEFFECTIVE
        reason = "" if right else f"off by {abs(means[worst] - percent):.1f} points"
        return Reading(effect, asked, measured, self.measures, reason, values)

    def _outdone(
        self,
        asked: str,
        measured: str,
        values: dict[str, float],
        others: list[float],
        *,
        right: bool,
    ) -> Reading:
        """With rivals: all of it is used, and others get no more of it than each of ours."""
        share = 100 / (values["rivals"] + 1)
        asked += f", of that at most {share:.0f}% by others"
        if right and max(others) <= share + POINTS:
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)
        why = "it is not full"
        if right:
            why = (
                "others weigh more: they are several, of higher priority, or in groups of their own"
            )
            why += "; with them as the target the rivals work in their group"
        return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, why, values)


def _scope(place: Place, params: BurnParams) -> str:
    """What is meant by `of`, as the worker takes it."""
    if params.of in ("group", "all"):
        return params.of
    chosen = params.cores is not None or params.count is not None
    if params.of == "core" or place.is_host or chosen:
        return "cores"
    if "cpu" not in cgroup.layout().controllers():
        return "cores"
    return "group" if cgroup_limits.cpu_limit(place.group_of("cpu")) else "cores"


def _denominator(order: dict[str, Any]) -> str:
    if order["scope"] == "group":
        return "the quota of the target's control group"
    cores: list[int] = order["cores"]
    if len(cores) == 1:
        return f"core {cores[0]}"
    named = f"cores {cpustat.format_cores(cores)}"
    return f"each of {named}" if order["scope"] == "cores" else f"{named} together"


def _chosen(params: BurnParams, usable: list[int]) -> list[int]:
    if params.cores is not None:
        cores = cpustat.parse_cores(params.cores)
        if set(cores) - set(usable):
            here = cpustat.format_cores(usable)
            raise InvalidParameter("cores", params.cores, f"cores that are usable: {here}")
        return cores
    if params.count is not None and params.count > len(usable):
        raise InvalidParameter("count", params.count, f"at most the {len(usable)} cores there are")
    return usable[: params.count]


def _group_order(place: Place, usable: list[int]) -> dict[str, Any]:
    """The target's control group as the worker is told of it; Unsupported without a quota."""
    group = place.group_of("cpu")
    found = cgroup_limits.cpu_limit(group)
    if found is None:
        raise Unsupported(
            f"the control group {group.path} has no quota of processor time",
            hint="use of: core or of: all",
        )
    quota, holder = found
    if group.version == 1:  # processor time is counted by a controller of its own
        holder = cgroup.Group(cgroup.layout().hierarchy("cpuacct"), holder.path)
        if not holder.exists():
            raise Unsupported(f"no control group {holder.path} counts processor time (cpuacct)")
    return {
        "scope": "group",
        "cores": usable,
        "group": {"usage": group_to(holder), "quota": min(float(len(usable)), quota.cores)},
    }


def _look(order: dict[str, Any], pids: list[int]) -> _Look:
    group = 0.0
    if order["scope"] == "group":
        group = cgroup_limits.cpu_usage(group_from(order["group"]["usage"])) / 1e9
    ours: dict[int, float] = {}
    waited = 0.0
    for pid in pids:
        try:
            waited += _waited(pid)
            pinned = os.sched_getaffinity(pid)
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text.rpartition(")")[2].split()
        core = next(iter(pinned)) if len(pinned) == 1 else -1
        used = (int(fields[11]) + int(fields[12])) / cpustat.TICKS_PER_SECOND
        ours[core] = ours.get(core, 0.0) + used
    return _Look(time.monotonic(), cpustat.core_times(), group, ours, waited)


def _waited(pid: int) -> float:
    """Seconds that a process has stood in line for a core; 0 where the kernel counts none.

    The second number of /proc/PID/schedstat (Documentation/scheduler/sched-stats.rst), nanoseconds.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


def _level(order: dict[str, Any], core: int, first: _Look, last: _Look) -> float:
    """How busy one unit was between two looks, in hundredths of what `percent` is a share of."""
    if order["scope"] == "group":
        passed = last.when - first.when
        return 100 * (last.group - first.group) / passed / order["group"]["quota"]
    cores = [core] if core >= 0 else order["cores"]
    return cpustat.used_between(first.total, last.total, cores)


def _share(order: dict[str, Any], seconds: float, looks: list[_Look]) -> float:
    """Processor time as a share of the quota over all looks, in hundredths."""
    return 100 * seconds / (looks[-1].when - looks[0].when) / order["group"]["quota"]


def _own(order: dict[str, Any], core: int, first: _Look, last: _Look) -> float:
    """The same of our own processes alone."""
    chosen = [core] if core >= 0 else list(last.ours)
    used = sum(last.ours.get(each, 0.0) - first.ours.get(each, 0.0) for each in chosen)
    capacity = order["group"]["quota"] if order["scope"] == "group" else 1.0
    if order["scope"] == "all":
        capacity = float(len(order["cores"]))
    return 100 * used / (last.when - first.when) / capacity
