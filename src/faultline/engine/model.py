"""What the reconciler is given and what it answers: plain data.

An action has a stable id. It is written into the run's status before it is carried out and closed
with its result, so an engine that died finds what was under way and asks for it again under the
same id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from faultline.api.clusters import ClusterStatus
from faultline.api.probe import Measurement
from faultline.api.repeat import FoundTarget
from faultline.api.run import ChangeStatus, Environment, Failure, RunStatus
from faultline.api.selector import Choice
from faultline.api.traffic import TrafficFigures, TrafficSecond
from faultline.api.watching import LogStatus, TargetSecond, TargetStatus
from faultline.injection.reading import Reading
from faultline.units import Duration

SECOND = 10**9
MARGIN = Duration.parse("5s")
"""How much later than the engine a fault's own deadline undoes it: the engine's undo is the
measured one."""


class Do(StrEnum):
    """What the engine can ask for."""

    ADMIT = "admit"
    START_TRAFFIC = "start traffic"
    STOP_TRAFFIC = "stop traffic"
    WATCH = "watch"
    COLLECT = "collect"
    PROBE = "probe"
    INJECT = "inject"
    OBSERVE = "observe"
    RECOVER = "recover"
    RESIDUE = "residue"
    TASK = "task"
    RUN = "run"
    CANCEL = "cancel"
    NOTIFY = "notify"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to be done; carrying it out twice is safe."""

    id: str
    do: Do
    node: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """An instant on three clocks."""

    at: float  # seconds since 1970; may jump
    boot_ns: int  # CLOCK_BOOTTIME
    boot_id: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """Everything is possible here; what each fault would change."""

    environment: Environment
    engines: dict[str, str]
    changes: dict[str, list[ChangeStatus]]
    choices: tuple[Choice, ...] = ()  # what the selectors of its faults mean


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault is in the journal."""

    deadline_ns: int
    changes: list[ChangeStatus]
    ended: bool = False  # it has ended already: a kill, or its deadline passed while nobody looked
    adopted: bool = False  # it had been injected by an engine that died
    target: FoundTarget | None = None  # on what it acts
    at: float | None = None  # when, where whoever did it knows better than who waited for it


@dataclass(frozen=True, slots=True)
class Recovered:
    """A fault is undone as far as that is possible."""

    end: str
    changes: list[ChangeStatus] = field(default_factory=list[ChangeStatus])
    note: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A task or another experiment has come to its end."""

    verdict: Literal["held", "broke", "not effective", "not measured", "error"] | None
    text: str
    output: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of the targets, without their curves, and of their logs."""

    targets: tuple[TargetStatus, ...] = ()
    logs: tuple[LogStatus, ...] = ()


Answer = (
    Admitted
    | Watched
    | Done
    | Injected
    | Recovered
    | Reading
    | Measurement
    | TrafficFigures
    | ClusterStatus
    | tuple[str, ...]
    | None
)


@dataclass(frozen=True, slots=True)
class Result:
    """How an action ended: an answer, or an error of ours. Never both."""

    id: str
    now: Now
    answer: Answer = None
    error: Failure | None = None
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What was learned since the last look."""

    results: tuple[Result, ...] = ()
    traffic: dict[str, tuple[TrafficSecond, ...]] = field(
        default_factory=dict[str, tuple[TrafficSecond, ...]]
    )
    interrupt: str = ""  # why whoever drives the engine wants to stop
    resumed: bool = False  # the engine before this one died
    targets: dict[str, tuple[TargetSecond, ...]] = field(
        default_factory=dict[str, tuple[TargetSecond, ...]]
    )
    halted: str = ""  # why everything is to stop


@dataclass(frozen=True, slots=True)
class Decision:
    """The new status, everything that should be under way now, and when to look again."""

    status: RunStatus
    actions: tuple[Action, ...]
    wake_ns: int | None  # CLOCK_BOOTTIME; None: only a result can change anything


def fault_uid(run_uid: str, node: str) -> str:
    """The uid of a run's fault in the journal: the same however often it is asked for."""
    return f"{run_uid[:12]}-{node}"
