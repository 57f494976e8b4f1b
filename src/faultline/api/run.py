"""A run: one execution of an experiment, with everything that happened and was measured."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from faultline.api.budget import BudgetStatus
from faultline.api.clusters import ClusterRef, ClusterStatus
from faultline.api.experiment import ExperimentSpec, Hypothesis
from faultline.api.graph_status import Approval, NodeStatus, Pause
from faultline.api.model import Model, Resource, StatusModel
from faultline.api.repeat import FoundTarget, Repeat
from faultline.api.run_parts import ActionStatus, ChangeStatus, Environment, Failure, Point
from faultline.api.selector import Choice, Chosen
from faultline.api.signals import Signal
from faultline.api.timepoints import TimePoints
from faultline.api.traffic import TrafficStatus
from faultline.api.watching import LogStatus, TargetStatus


class Phase(StrEnum):
    """Where a run stands, in order; it never moves backwards."""

    PENDING = "pending"
    ADMISSION = "admission"
    TRAFFIC = "traffic"
    STEADY = "steady state"
    INJECTION = "injection"
    EFFECT = "effect"
    WAIT = "wait"
    RECOVERY = "recovery"
    PROOF = "recovery check"
    COOLDOWN = "cooldown"
    VERDICT = "verdict"
    ENDED = "ended"

    @property
    def rank(self) -> int:
        return _PHASES.index(self)


_PHASES = list(Phase)


class Verdict(StrEnum):
    """How a run ended. The five are never rounded into each other."""

    HELD = "held"
    BROKE = "broke"
    NOT_EFFECTIVE = "not effective"
    NOT_MEASURED = "not measured"
    ERROR = "error"


class Stage(StrEnum):
    """Where one fault of a run stands, in order; it never moves backwards."""

    WAITING = "waiting"
    INJECTING = "injecting"
    ACTIVE = "active"  # injected, effect not yet measured
    MEASURED = "measured"  # the effect has an answer
    RECOVERING = "recovering"
    CHECKING = "checking"  # undone; looking for what is left
    ENDED = "ended"

    @property
    def rank(self) -> int:
        return _STAGES.index(self)


_STAGES = list(Stage)

LaxPhase = Annotated[Phase, Field(strict=False)]
LaxVerdict = Annotated[Verdict, Field(strict=False)]
LaxStage = Annotated[Stage, Field(strict=False)]


class PhaseStatus(StatusModel):
    """One phase that began."""

    phase: LaxPhase
    started: float
    ended: float | None = None


class FaultStatus(StatusModel):
    """One fault of a run: asked against measured, its time points, its end."""

    name: str
    fault: str
    uid: str
    """Its uid in the journal: `faultline query UID`."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    stage: LaxStage = Stage.WAITING
    started: float | None = None
    """When injecting began; this and the next are seconds since 1970."""
    injected_at: float | None = None
    effective_at: float | None = None
    """When its effect was first measured."""
    recovery_started: float | None = None
    recovered_at: float | None = None
    """When nothing of it was found any more."""
    deadline_ns: int | None = None
    """When it ends whatever happens, CLOCK_BOOTTIME."""
    ends_ns: int | None = None
    """When the engine undoes it, CLOCK_BOOTTIME."""
    effect: Literal["effective", "ineffective", "unmeasured"] | None = None
    reading: dict[str, Any] | None = None
    """The measurement in full: effect, asked, measured, method, reason, values."""
    changes: list[ChangeStatus] = Field(default_factory=list[ChangeStatus])
    residue: list[str] = Field(default_factory=list[str])
    """What of it was still found after recovery."""
    end: str | None = None
    """`recovered`, `nothing to undo`, `target gone` or `needs a person`; None if it was never
    injected."""
    error: str = ""
    """Why it could not be injected or undone."""
    again: bool = False
    """Whether it must be undone once more: it came into being while it was being undone."""
    node: str = ""
    """The node of the graph that it belongs to; its attempts and trials have names of their own."""
    finish: bool = False
    """Whether its node wants it to end now."""
    failure: Failure | None = None
    """Why it could not be injected; its node says what that means for the run."""
    impact_at: float | None = None
    """When its impact probe first held."""
    aim: Chosen | None = None
    """The one of the targets of its selector that it is for; None without a selector."""
    of: str = ""
    """The fault of the document that it is a part of, where a selector found its target."""
    target: FoundTarget | None = None
    """On what it acts; None if it was never injected."""


class Sample(StatusModel):
    """One measurement of a probe, judged."""

    entry: ClassVar[bool] = True

    at: float
    """When it ended, seconds since 1970."""
    value: float | None = None
    """In the unit of the probe."""
    ok: bool | None = None
    """As expected or not; None: could not be measured."""
    latency: float | None = None
    """Seconds that the measurement took."""
    text: str = ""
    counted: bool = True
    """Whether it counts for the verdict of its probe; the others are for the curve."""
    since: float | None = None
    """Since when it is so, seconds since 1970, where who was asked knows: an alert, a person."""


class ProbeStatus(StatusModel):
    """One probe of a run."""

    name: str
    mode: str = "continuous"
    unit: str = ""
    """Of its values: `s`, `ratio`, `B` or none."""
    roles: list[str] = Field(default_factory=list[str])
    """What it is used for: `hypothesis`, `guard`, `steady state`, `discovery`."""
    samples: list[Sample] = Field(default_factory=list[Sample])
    initial: float | None = None
    """Its value before the fault: the median of the undisturbed samples."""
    verdict: Literal["held", "broke", "not measured"] | None = None
    text: str = ""
    """Why."""
    held_ratio: float | None = None
    """Share of the counted samples that were as expected."""
    failed_at: float | None = None
    """When it first failed for good."""
    good: int = 0
    """Good samples in a row."""
    bad: int = 0
    """Bad samples in a row."""
    blind: int = 0
    """Samples in a row that could not be measured."""
    alarm: int = 0
    """Samples in a row that a guard did not find good, since it is armed."""
    blinded: bool = False
    """Whether it was blind for so long that it has no answer."""
    taken: int = 0
    """Samples taken in all; numbers the next."""
    taken_before: int = 0
    """Samples taken before the present edge (the start, the end)."""
    due_ns: int | None = None
    """When the next one is due, CLOCK_BOOTTIME."""
    kept: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What it must know again if another engine goes on: the first violation of an invariant, a
    place in a log."""
    asked_ns: int | None = None
    """When the one in flight was asked for, CLOCK_BOOTTIME."""


class RunStatus(StatusModel):
    """Everything that is known about a run. Written by the engine alone."""

    phase: LaxPhase = Phase.PENDING
    verdict: LaxVerdict | None = None
    reason: str = ""
    """The verdict in one sentence."""
    started: float | None = None
    """Seconds since 1970."""
    ended: float | None = None
    boot_id: str = ""
    """The boot in which it began; clock readings mean something only within it."""
    clock_ns: int = 0
    """The latest CLOCK_BOOTTIME that the engine has seen; it never runs backwards for a run."""
    timeline: list[Point] = Field(default_factory=list[Point])
    phases: list[PhaseStatus] = Field(default_factory=list[PhaseStatus])
    phase_ns: int = 0
    """When the present phase began, CLOCK_BOOTTIME."""
    injection_ns: int | None = None
    """When the injection phase began, CLOCK_BOOTTIME; the offsets of the faults count from it."""
    faults: list[FaultStatus] = Field(default_factory=list[FaultStatus])
    probes: list[ProbeStatus] = Field(default_factory=list[ProbeStatus])
    traffic: list[TrafficStatus] = Field(default_factory=list[TrafficStatus])
    choices: list[Choice] = Field(default_factory=list[Choice])
    """What the selectors of its faults found."""
    budgets: list[BudgetStatus] = Field(default_factory=list[BudgetStatus])
    """What was spent of its error budgets."""
    targets: list[TargetStatus] = Field(default_factory=list[TargetStatus])
    """The curves of the host and of everything that faults act on or `watch` names."""
    logs: list[LogStatus] = Field(default_factory=list[LogStatus])
    """What they logged meanwhile."""
    discovered_at: float | None = None
    """When the discovery probe first held after the effect."""
    resolved_at: float | None = None
    """When the discovery probe, having held, first did not hold any more after recovery."""
    environment: Environment | None = None
    aborted: str = ""
    """Why it was aborted; empty if it was not."""
    aborted_by: str = ""
    """`guard`, `user`, `halt`, `reboot`, `engine`."""
    stopped: str = ""
    """Why it ended early; empty if it went to its end. An abort is one reason of several."""
    failures: list[Failure] = Field(default_factory=list[Failure])
    """Errors of ours and refusals, in order."""
    actions: list[ActionStatus] = Field(default_factory=list[ActionStatus])
    engines: dict[str, str] = Field(default_factory=dict[str, str])
    """Versions of what carried it out, by name."""
    resumed_ns: int = 0
    """When it was last taken up again, CLOCK_BOOTTIME; no time-out counts while no engine runs."""
    resumed: int = 0
    """How often it was taken up again after its engine had died."""
    nodes: list[NodeStatus] = Field(default_factory=list[NodeStatus])
    """The nodes of its graph, outer ones first."""
    pauses: list[Pause] = Field(default_factory=list[Pause])
    """When it was paused, and for how long."""
    pause_ns: int | None = None
    """When the present pause began, CLOCK_BOOTTIME."""
    points: TimePoints = Field(default_factory=TimePoints)
    """How quickly it was noticed, understood and mended."""
    clusters: list[ClusterStatus] = Field(default_factory=list[ClusterStatus])
    """How far it has come in each of its clusters."""


class ChildSpec(Model):
    """An experiment that a node carries out as a run of its own, complete."""

    experiment: str
    """Its name."""
    resolved: ExperimentSpec
    """The experiment with its parameters filled in."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The values that the node gives it."""
    children: dict[str, ChildSpec] = Field(default_factory=dict[str, "ChildSpec"])
    """The experiments of its own nodes."""


ENGINE, OPERATOR = "engine", "operator"
"""The label that says who carries out a run, where that is not anybody's: the operator."""


@cache
def _not_yet() -> ExperimentSpec:
    """What stands in a run until it is known what is executed."""
    made = ExperimentSpec(title="-", hypothesis=Hypothesis(text="", probes=["none"]))
    nothing = {"title": "", "hypothesis": Hypothesis.model_construct(text="", probes=[])}
    return made.model_copy(update=nothing)


class RunSpec(Model):
    """What is to be executed: the experiment as it was, with its parameters filled in."""

    experiment: str
    """The name of the experiment."""
    resolved: ExperimentSpec = Field(default_factory=_not_yet)
    """The experiment, complete. Without it, in a cluster, the operator fills in that of the
    experiment of this name and namespace."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """The values that were chosen."""
    abort: str = ""
    """Set to a reason to abort: everything is undone at once."""
    creator: str = ""
    """Who started it."""
    pause: str = ""
    """Set to a reason to pause: nothing new begins until it is empty again."""
    signals: list[Signal] = Field(default_factory=list[Signal])
    """What people and tools have reported."""
    approvals: list[Approval] = Field(default_factory=list[Approval])
    """What people said to the nodes that asked."""
    children: dict[str, ChildSpec] = Field(default_factory=dict[str, "ChildSpec"])
    """The experiments that its nodes carry out, by the name of the node."""
    rerun_of: str = ""
    """The run from which this one takes over what was done before `from_node`."""
    from_node: str = ""
    """The node with which this run begins."""
    reused: list[NodeStatus] = Field(default_factory=list[NodeStatus])
    """The results that are taken over."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """The number that all its choices are drawn from; set when it is made. None in runs of versions
    that had none."""
    repeat: Repeat | None = None
    """What a replay takes over from an earlier run."""
    clusters: Annotated[list[ClusterRef], Field(max_length=50)] = Field(
        default_factory=list[ClusterRef]
    )
    """The clusters in which it is carried out, instead of this one; in each by a run of the same
    name."""

    @property
    def is_resolved(self) -> bool:
        """Whether it says what is executed."""
        return bool(self.resolved.title)

    @model_validator(mode="after")
    def _apart(self) -> RunSpec:
        if len({each.name for each in self.clusters}) < len(self.clusters):
            raise ValueError("expected clusters with different names")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = written(self)
        if not self.is_resolved:
            made.pop("resolved", None)
        return made


class Run(Resource):
    """One execution of an experiment."""

    plural: ClassVar[str] = "runs"

    kind: Literal["Run"] = "Run"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: RunSpec
    """What is executed."""
    status: RunStatus = Field(default_factory=RunStatus)
    """What happened."""
