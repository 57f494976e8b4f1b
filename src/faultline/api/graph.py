"""The nodes of an experiment's graph: what is done between its beginning and its recovery.

A graph is a list of nodes, each of which may hold further ones. What stands in a list begins at
once, unless it `needs` another node; `serial` gives an order. `foreach` and `repeat` are written
out when the document is read (`expansion.py`), so that what a run carries out is there to be seen
before it begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from faultline.api.model import Model, NodeName
from faultline.api.quantities import Between, Duration, text
from faultline.api.search import SearchSpec
from faultline.api.secret import SecretRef
from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidParameter

Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


class Retry(Model):
    """How often a node is tried, and how long it waits before the next time."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    """How often in all."""
    backoff: Annotated[Duration, Between("0s", "1d")] = text("1s")
    """How long it waits before the second time."""
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    """By how much each wait is longer than the one before."""
    longest: Annotated[Duration, Between("0s", "1d")] = text("1m")
    """The longest wait."""

    def pause(self, attempts: int) -> int:
        """Nanoseconds to wait after so many attempts."""
        return min(int(self.backoff * self.factor ** min(attempts - 1, 64)), int(self.longest))


class NodeBase(Model):
    """What all nodes have in common."""

    name: NodeName
    """How the experiment refers to it; unique in the whole graph."""
    needs: list[NodeName] = Field(default_factory=list[NodeName])
    """Nodes that must have succeeded, or have been skipped, before this one begins."""
    when: str = ""
    """A CEL expression over `nodes`, `probes` and `params`; if it is false when the node would
    begin, the node is skipped."""
    timeout: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How long one attempt may take."""
    retry: Retry = Field(default_factory=Retry)
    """How often it is tried."""
    continue_on_failure: bool = False
    """Whether the run goes on when it fails. Its own verdict stays what it is."""


class FaultStep(NodeBase, AimedFaultSpec):
    """A fault; it ends when the fault is proven to be gone."""

    type: Literal["fault"]
    """fault"""
    background: bool = False
    """Whether what follows goes on as soon as the effect is measured. It is undone after its
    duration, or when the node that holds this one has nothing else left to do."""
    impact: NodeName | None = None
    """The probe that holds when the service itself is hurt (p95 above 3 s): the moment from which
    discovery and recovery are counted. If it never holds, the fault was not effective."""


class ProbeStep(NodeBase):
    """A measurement that decides: it goes on when the probe holds, and fails at the time-out."""

    type: Literal["probe"]
    """probe"""
    probe: NodeName
    """Which one, of the experiment's probes."""
    until: Literal["holds", "fails"] = "holds"
    """What is waited for, as often in a row as the probe's successCount or failureCount says."""
    lasting: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How long it must go on to be so, without interruption; if it does not, the node has
    failed."""


class TrafficStep(NodeBase):
    """A load; it ends after its duration. Load that no node names runs throughout."""

    type: Literal["traffic"]
    """traffic"""
    traffic: NodeName
    """Which one, of the experiment's traffic."""
    duration: Annotated[Duration, Between("1s", "7d")]
    """How long."""
    background: bool = False
    """Whether what follows goes on at once."""


class WaitStep(NodeBase):
    """Wait for a time, or until something is so."""

    type: Literal["wait"]
    """wait"""
    duration: Annotated[Duration, Between("0s", "7d")] | None = None
    """How long."""
    until: str = ""
    """A CEL expression over `nodes`, `probes` and `params` that ends the wait when it is true; then
    `timeout` says how long at most."""

    @model_validator(mode="after")
    def _one(self) -> WaitStep:
        if (self.duration is None) == (not self.until):
            raise ValueError("expected exactly one of duration and until")
        return self


class ApprovalStep(NodeBase):
    """A person continues or refuses: `faultline approve RUN NODE`, `faultline refuse RUN NODE`."""

    type: Literal["approval"]
    """approval"""
    message: str = ""
    """What is asked."""
    otherwise: Literal["refuse", "continue"] = "refuse"
    """What counts as the answer when the time-out passes (1 hour, if none is given)."""


class CommandTask(Model):
    """A program as an argument list; no shell."""

    command: Annotated[list[str], Field(min_length=1)]
    """The program and its arguments."""
    env: dict[str, str] = Field(default_factory=dict[str, str])
    """Variables added to a small clean environment."""
    secrets: dict[str, SecretRef] = Field(default_factory=dict[str, SecretRef])
    """Variables whose values are secrets, by reference."""
    cwd: str = "/"
    """Its working folder."""
    user: str = ""
    """Whom to run it as; without it, as the caller."""
    code: int | Literal["any"] = 0
    """The exit code that is good."""


class HttpTask(Model):
    """An HTTP call."""

    url: Url
    """Where to."""
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    """How."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Headers to send."""
    secrets: dict[str, SecretRef] = Field(default_factory=dict[str, SecretRef])
    """Headers whose values are secrets, by reference."""
    body: str = ""
    """What to send."""
    code: Annotated[str, Field(pattern=r"^[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*$")] = (
        "200-299"
    )
    """Codes that are good: `200`, `200-299`, `200,404`."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""


class JobTask(Model):
    """A Kubernetes Job; it is made, followed to its end, and removed."""

    manifest: dict[str, Any]
    """The Job as Kubernetes knows it (batch/v1)."""
    context: str = ""
    """The context of the kubeconfig; without it, the present one, or the cluster that we run in."""
    keep: bool = False
    """Whether it stays when it has ended."""


class TaskStep(NodeBase):
    """Something else that is to be done: a command, an HTTP call, a Kubernetes Job. Its output can
    be used in expressions: `nodes.NAME.output` has `code`, `text` and, if it is JSON, `json`.
    """

    type: Literal["task"]
    """task"""
    command: CommandTask | None = None
    """A program."""
    http: HttpTask | None = None
    """An HTTP call."""
    job: JobTask | None = None
    """A Kubernetes Job."""
    idempotent: bool = False
    """Whether it may be done again when the engine died while it was under way. If not, the node
    has failed then: nobody knows whether it was done."""

    @model_validator(mode="after")
    def _one(self) -> TaskStep:
        if [self.command, self.http, self.job].count(None) != 2:
            raise ValueError("expected exactly one of command, http and job")
        return self


class ExperimentStep(NodeBase):
    """Another experiment, as a run of its own."""

    type: Literal["experiment"]
    """experiment"""
    experiment: str
    """Its file, relative to this document; or its name in the store."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Values for its parameters."""


class SerialStep(NodeBase):
    """One node after the other."""

    type: Literal["serial"]
    """serial"""
    nodes: Annotated[list[Step], Field(min_length=1)]
    """What it holds."""
    loop: str = ""
    """Set where a `repeat` was written out: the expression that ends it."""
    pause: Annotated[Duration, Between("0s", "1d")] = text("0s")
    """How long to wait between two of them."""


class ParallelStep(NodeBase):
    """Nodes at once."""

    type: Literal["parallel"]
    """parallel"""
    nodes: Annotated[list[Step], Field(min_length=1)]
    """What it holds."""
    at_once: Annotated[int, Field(ge=1, le=10000)] | None = None
    """How many at most; without it, all."""


class Case(Model):
    """One way to go."""

    when: str
    """A CEL expression over `nodes`, `probes` and `params`."""
    nodes: Annotated[list[Step], Field(min_length=1)]
    """What is done, one after the other, if it is the first that is true."""


class BranchStep(NodeBase):
    """The first case whose condition is true."""

    type: Literal["branch"]
    """branch"""
    cases: Annotated[list[Case], Field(min_length=1)]
    """The ways, in the order in which they are tried."""
    otherwise: list[Step] = Field(default_factory=list["Step"])
    """What is done, one after the other, if none is."""


class Range(Model):
    """Values from one to another."""

    start: int | float | str
    """The first: a number or a quantity."""
    stop: int | float | str
    """The last that may occur."""
    step: int | float | str
    """The distance between two."""

    @model_validator(mode="after")
    def _one_unit(self) -> Range:
        range_values(self)
        return self


class ForeachStep(NodeBase):
    """The same for each of several values. In its nodes `${NAME}` stands for the value; the nodes
    of the second value are called `NODE.2` outside, and NODE inside of it.
    """

    type: Literal["foreach"]
    """foreach"""
    each: NodeName = "item"
    """What the value is called."""
    values: list[str | int | float | bool | dict[str, str | int | float | bool]] | None = None
    """The values; of a mapping, `${NAME.key}` stands for an entry."""
    range: Range | None = None
    """Instead of them: from, to, and how far apart."""
    at_once: Annotated[int, Field(ge=1, le=10000)] = 1
    """How many at once."""
    nodes: Annotated[list[Step], Field(min_length=1)]
    """What is done."""


class RepeatStep(NodeBase):
    """The same several times."""

    type: Literal["repeat"]
    """repeat"""
    times: Annotated[int, Field(ge=1, le=1000)]
    """How often, at most."""
    until: str = ""
    """A CEL expression that is looked at after each time; when it is true, it was the last."""
    pause: Annotated[Duration, Between("0s", "1d")] = text("0s")
    """How long to wait before the next time."""
    nodes: Annotated[list[Step], Field(min_length=1)]
    """What is done; `${round}` is 1, 2, 3 ..."""


class SearchStep(NodeBase):
    """The largest value of a fault's parameter that the named probes still bear."""

    type: Literal["search"]
    """search"""
    fault: AimedFaultSpec
    """The fault; the value that is searched need not be given. On several targets of a selector
    each trial acts on all of them."""
    search: SearchSpec
    """Where and how to search."""


Step = Annotated[
    FaultStep
    | ProbeStep
    | TrafficStep
    | WaitStep
    | ApprovalStep
    | TaskStep
    | ExperimentStep
    | SerialStep
    | ParallelStep
    | BranchStep
    | ForeachStep
    | RepeatStep
    | SearchStep,
    Field(discriminator="type"),
]
"""Any node, told apart by `type`."""


def children(node: NodeBase) -> list[NodeBase]:
    """The nodes that a node holds, in order."""
    if isinstance(node, BranchStep):
        return [*(inner for case in node.cases for inner in case.nodes), *node.otherwise]
    if isinstance(node, SerialStep | ParallelStep | ForeachStep | RepeatStep):
        return [*node.nodes]
    return []


def walk(nodes: list[Any], path: str = "spec.nodes") -> Iterator[tuple[str, NodeBase]]:
    """Every node with its path in the document, outer ones first."""
    for index, node in enumerate(nodes):
        here = f"{path}.{index}"
        yield here, node
        if isinstance(node, BranchStep):
            for number, case in enumerate(node.cases):
                yield from walk(case.nodes, f"{here}.cases.{number}.nodes")
            yield from walk(node.otherwise, f"{here}.otherwise")
        else:
            yield from walk(children(node), f"{here}.nodes")


def range_values(given: Range) -> list[str | int | float]:
    """The values of a range, in the unit in which it is written; raises ValueError."""
    from faultline.api.ranges import spread

    try:
        return spread(given.start, given.stop, given.step)
    except InvalidParameter as error:
        raise ValueError(f"expected {error.expected}") from error
