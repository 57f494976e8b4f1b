"""Faults and experiments as documents: what is asked for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from faultline.api.budget import ErrorBudget
from faultline.api.graph import Step
from faultline.api.model import Model, NodeName, Resource
from faultline.api.notify import NotifySpec
from faultline.api.probe import ProbeSpec
from faultline.api.quantities import Between, Duration, text
from faultline.api.targets import AimedFaultSpec, FaultSpec, TargetSpec
from faultline.api.timepoints import Judgement, Moment, Score
from faultline.api.traffic import TrafficSpec
from faultline.api.watching import LogSpec


class FaultNode(AimedFaultSpec):
    """A fault of an experiment."""

    name: NodeName
    """How the experiment refers to it."""
    start: Annotated[Duration, Between("0s", "7d")] = text("0s")
    """When it is injected, counted from the beginning of the injection phase."""
    impact: NodeName | None = None
    """The probe that holds when the service itself is hurt (p95 above 3 s): the moment from which
    discovery and recovery are counted. If it never holds, the fault was not effective."""


class Hypothesis(Model):
    """What is believed to stay true, in words and in probes."""

    text: str
    """In words."""
    probes: Annotated[list[NodeName], Field(min_length=1)]
    """Names of the probes that must hold."""


class Discovery(Model):
    """How we know that the fault was noticed: the first moment, after its effect, at which a probe
    holds.
    """

    probe: NodeName
    """The probe that holds once the fault is noticed (an alert that fires)."""
    within: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How soon after the effect; later is a broken hypothesis. Without it the time is only
    recorded."""
    resolved_within: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How soon after recovery the probe must not hold any more (the alert is resolved); later is a
    broken hypothesis. Without it the time is recorded if it is seen while the run lasts."""


class Timeouts(Model):
    """How long each phase may take."""

    admission: Annotated[Duration, Between("1s", "1h")] = text("1m")
    """Looking whether everything is possible here."""
    steady_state: Annotated[Duration, Between("1s", "1h")] = text("30s")
    """Until the steady state holds before the faults."""
    injection: Annotated[Duration, Between("1s", "1h")] = text("1m")
    """Injecting one fault."""
    effect: Annotated[Duration, Between("1s", "1h")] = text("15s")
    """Until the effect of a fault is measured, once it is injected."""
    recovery: Annotated[Duration, Between("1s", "1h")] = text("1m")
    """Until everything is undone, and then until the steady state and the probes of the end
    hold."""


class Parameter(Model):
    """A value that whoever starts the run may choose."""

    type: Literal[
        "string", "integer", "number", "boolean", "duration", "size", "rate", "percent"
    ] = "string"
    """What it is."""
    default: str | int | float | bool | None = None
    """Its value if none is given; without a default it is required."""
    description: str = ""
    """What it is for."""
    choices: list[str | int | float] = Field(default_factory=list[str | int | float])
    """The only values that are accepted, if any are listed."""


__all__ = ["Experiment", "ExperimentSpec", "FaultNode", "FaultSpec", "Parameter", "TargetSpec"]


class ExperimentSpec(Model):
    """A hypothesis, what is broken to test it, and what is measured meanwhile."""

    title: Annotated[str, Field(min_length=1)]
    """One line."""
    description: str = ""
    """Why, and what to know."""
    parameters: dict[str, Parameter] = Field(default_factory=dict[str, Parameter])
    """Values to choose at the start; `${name}` anywhere else stands for one, `$${` for a plain
    `${`."""
    hypothesis: Hypothesis
    """What must hold."""
    probes: list[ProbeSpec] = Field(default_factory=list[ProbeSpec])
    """Everything that is measured."""
    traffic: list[TrafficSpec] = Field(default_factory=list[TrafficSpec])
    """Load while the experiment runs."""
    faults: list[FaultNode] = Field(default_factory=list[FaultNode])
    """What is broken, each at its time; for anything more than that there are nodes."""
    nodes: list[Step] = Field(default_factory=list[Step])
    """What is done, as a graph: faults, probes that decide, waits, approvals, tasks, other
    experiments; one after the other, at once, by condition, over values."""
    finally_: list[Step] = Field(default_factory=list[Step], alias="finally")
    """Nodes that are carried out at the end, whatever happened, when every fault is undone."""
    steady_state: list[NodeName] = Field(default_factory=list[NodeName])
    """Probes that must hold before the faults, and again after recovery."""
    guards: list[NodeName] = Field(default_factory=list[NodeName])
    """Probes that, when they fail or cannot be measured, abort the run and undo everything at
    once."""
    error_budgets: Annotated[list[ErrorBudget], Field(max_length=16)] = Field(
        default_factory=list[ErrorBudget]
    )
    """Guards that do so once more of an error budget is spent than may be."""
    discovery: Discovery | None = None
    """How we know that the fault was noticed."""
    location: Moment | None = None
    """How we know that the cause was found; counted only after discovery."""
    recovery: Moment | None = None
    """How we know that the service is well again; counted only after discovery, if there is one."""
    judgements: list[Judgement] = Field(default_factory=list[Judgement])
    """Expressions over the time points; one that is false is a broken hypothesis."""
    score: Score | None = None
    """Points for finding, locating and recovering in time."""
    notify: list[NotifySpec] = Field(default_factory=list[NotifySpec])
    """Who is told when a node asks for approval, or how the run came out."""
    baseline: Annotated[Duration, Between("0s", "24h")] = text("3s")
    """How long to measure undisturbed before the faults."""
    cooldown: Annotated[Duration, Between("0s", "24h")] = text("3s")
    """How long to go on measuring after recovery."""
    timeouts: Timeouts = Field(default_factory=Timeouts)
    """When a phase is given up."""
    watch: Annotated[list[TargetSpec], Field(max_length=16)] = Field(
        default_factory=list[TargetSpec]
    )
    """What else is looked at, second by second, beside the host and the targets of the faults."""
    logs: Annotated[list[LogSpec], Field(max_length=16)] = Field(default_factory=list[LogSpec])
    """Logs that are kept with the run; those of containers that faults act on are kept anyhow."""


class Experiment(Resource):
    """An experiment: run it with `faultline run FILE`."""

    plural: ClassVar[str] = "experiments"

    kind: Literal["Experiment"] = "Experiment"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: ExperimentSpec
    """What to do."""
    status: None = None
    """An experiment has none; its runs have."""
