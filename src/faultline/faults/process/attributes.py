"""Processes that are given less: a lower priority, a lower limit."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from faultline import units
from faultline.api.quantities import Between, Flag
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.process_limits import limit_change, observed_limits
from faultline.injection.process_target import ProcessParams, identity, targets
from faultline.injection.reading import Effect, Reading
from faultline.kernel import attributes, procfs
from faultline.kernel.attributes import ATTRIBUTES, IO_CLASSES, POLICIES, UNLIMITED
from faultline.places.model import Place

_SIZES = frozenset({"as", "core", "data", "fsize", "memlock", "msgqueue", "stack"})  # in bytes


def _io(value: str) -> str:
    found = re.fullmatch(r"(best-effort|realtime):[0-7]|idle", value)
    if not found:
        raise ValueError("expected idle, best-effort:LEVEL or realtime:LEVEL, with LEVEL 0 to 7")
    return value


class PriorityParams(ProcessParams):
    """Parameters of `process priority`: at least one of `nice`, `policy` and `io`."""

    nice: Annotated[int | None, Between(-20, 19), Flag("N")] = None
    """Niceness: 19 yields most, -20 least."""
    policy: Literal["other", "batch", "idle", "fifo", "rr"] | None = None
    """Scheduling policy. `fifo` and `rr` run before everybody else."""
    level: Annotated[int, Between(1, 99)] = 1
    """Priority within `fifo` and `rr`; 99 is the highest."""
    io: Annotated[str | None, AfterValidator(lambda v: v and _io(v))] = None
    """I/O priority: `idle`, `best-effort:7`; 0 is the highest level."""

    @model_validator(mode="after")
    def _some(self) -> PriorityParams:
        if self.nice is None and self.policy is None and self.io is None:
            raise ValueError("expected at least one of nice, policy and io")
        return self


def _wanted(params: PriorityParams) -> dict[str, attributes.Value]:
    """What is asked, by attribute."""
    found: dict[str, attributes.Value] = {}
    if params.nice is not None:
        found["nice"] = [params.nice]
    if params.policy is not None:
        level = params.level if params.policy in ("fifo", "rr") else 0
        found["policy"] = [POLICIES[params.policy], level]
    if params.io is not None:
        name, _, level = params.io.partition(":")
        found["io"] = [IO_CLASSES[name], int(level or 0)]
    return found


class ProcessPriority(Fault[PriorityParams]):
    """Let processes run after others, or before them: another niceness, policy or I/O priority.

    Of every thread. What begins meanwhile inherits it, and is put back as well.
    """

    id = "process.priority"
    ending = Ending.KEEPER
    does = "Sets them from outside, thread by thread: setpriority(2), sched(7), ioprio_set(2)."
    cannot = (
        "Have an effect where nobody else wants the processor or the disk. Niceness counts among "
        "the processes of a control group, and with `sched_autogroup` of a session, only. I/O "
        "priorities need a scheduler of the disk that knows them (bfq, mq-deadline). A child "
        "whose parent has ended is not found again and keeps what it has inherited."
    )
    measures = "Asks the kernel for each thread."
    restores = "What each thread had before, where nobody else has set it meanwhile."
    example: ClassVar[dict[str, str]] = {"pid": "{pid}", "nice": "19"}

    def plan(self, place: Place, params: PriorityParams) -> list[Change]:
        found = targets(params, place)
        if params.policy in ("fifo", "rr") or (params.io or "").startswith("realtime"):
            why = "a busy task of this priority keeps all others from a processor or a disk"
            guards.current().refuse("realtime", why)
        return [
            Change("process_attribute", {**identity(each), "attribute": name, "value": value})
            for each in found
            for name, value in _wanted(params).items()
        ]

    def observe(self, place: Place, params: PriorityParams, record: Record) -> Reading:
        wanted = _wanted(params)
        asked = ", ".join(f"{name} {attributes.words(name, wanted[name])}" for name in wanted)
        threads = reached = 0
        for step in record.steps:
            spec = step.change.spec
            for each in procfs.threads(spec["pid"]):
                try:
                    now = ATTRIBUTES[spec["attribute"]].read(each.pid)
                except ProcessLookupError:
                    continue
                threads += 1
                reached += now == spec["value"]
        if not threads:
            return Reading.unmeasured(asked, self.measures, "all of them have ended")
        effect = Effect.EFFECTIVE if reached == threads else Effect.INEFFECTIVE
        reason = "" if reached == threads else "somebody has set the others to something else"
        values = {"asked": float(threads), "measured": float(reached)}
        measured = f"{reached} of {threads} have it"
        return Reading(effect, asked, measured, self.measures, reason, values)


class LimitParams(ProcessParams):
    """Parameters of `process limit`."""

    limit: Annotated[
        Literal[
            "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nofile", "nproc",
            "sigpending", "stack",
        ],
        Flag("l"),
    ]  # fmt: skip
    """Which limit, as prlimit(1) names it: `nofile` is open files, `as` memory, `cpu` time."""
    value: Annotated[str, Field(min_length=1, max_length=32), Flag("V")]
    """The soft limit: a number, a size (`64MiB`), a time for `cpu` (`90s`), or `unlimited`. For
    `nofile` also `used`: what is open now, so that nothing more can be opened."""


def limit_value(params: LimitParams) -> int | None:
    """The value as the kernel takes it; None for what each process uses now."""
    given = params.value
    if given == "unlimited":
        return UNLIMITED
    if given == "used" and params.limit == "nofile":
        return None
    try:
        if params.limit in _SIZES:
            return int(units.Size.parse(given))
        if params.limit == "cpu":
            return int(units.Duration.parse(given).seconds)
    except InvalidParameter as error:
        raise InvalidParameter("value", given, error.expected) from error
    if not re.fullmatch(r"\d{1,18}", given):
        raise InvalidParameter("value", given, f"a number for {params.limit}, or unlimited")
    return int(given)


class ProcessLimit(Fault[LimitParams]):
    """Lower a limit of running processes: open files, memory, processor time, ...

    It is the soft limit of each process; the hard limit stays. What a process has beyond the new
    limit it keeps; it gets nothing more.
    """

    id = "process.limit"
    ending = Ending.KEEPER
    does = "Sets the limit from outside by prlimit(2)."
    cannot = (
        "Take away what is in use. Hold a process that raises its own soft limit again, or one "
        "whose rights (CAP_SYS_RESOURCE) put it above `nproc`, `memlock` and `msgqueue`. A child "
        "whose parent has ended is not found again and keeps what it has inherited."
    )
    measures = (
        "Reads the limit back from the kernel, with what is in use where that can be seen; for "
        "`nofile` whether a descriptor more would be within it."
    )
    restores = "The soft limit from before, where nobody else has set it meanwhile."
    example: ClassVar[dict[str, str]] = {"pid": "{pid}", "limit": "nofile", "value": "used"}

    def plan(self, place: Place, params: LimitParams) -> list[Change]:
        value = limit_value(params)
        return [limit_change(each, params.limit, value) for each in targets(params, place)]

    def observe(self, place: Place, params: LimitParams, record: Record) -> Reading:
        return observed_limits(record, params.limit, self.measures)
