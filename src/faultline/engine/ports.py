"""What the engine needs from the layers below it, as protocols: tests drive it with doubles of
these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from faultline.api.clusters import ClusterRef, ClusterStatus
from faultline.api.probe import Measurement, ProbeBase
from faultline.api.run import Environment, Run
from faultline.api.selector import Choice, Selector
from faultline.api.traffic import TrafficFigures, TrafficSecond, TrafficSpec
from faultline.api.watching import LogSpec, LogStatus, TargetSecond, TargetStatus
from faultline.changes.model import Record
from faultline.engine.model import Done, Now
from faultline.engine.signals import Heard
from faultline.injection.reading import Reading
from faultline.units import Duration
from faultline.watching.logs import Window


@dataclass(frozen=True, slots=True)
class FaultOrder:
    """One fault as the engine asks for it; the uid comes from the run, so asking twice is safe."""

    fault: str
    params: dict[str, Any]
    duration: Duration
    uid: str
    allow: frozenset[str] = frozenset()
    creator: str = ""
    target: dict[str, Any] = field(default_factory=dict[str, Any])  # as in the document
    found: dict[str, Any] = field(default_factory=dict[str, Any])  # what it was in the run before
    seed: int | None = None  # what its choices are drawn from
    run: str = ""  # the name of the run
    selector: dict[str, Any] | None = None  # as in the document, where nobody resolved it before
    peer: dict[str, Any] | None = None  # who is on the other side; in a cluster
    flap: dict[str, Any] | None = None  # whether it comes and goes; in a cluster


class Injecting(Protocol):
    """Injects, measures and undoes faults on this host. One instance is used by one thread."""

    def changes(self, order: FaultOrder) -> list[tuple[str, str]]:
        """What would be changed and how it is undone, for people; raises what injecting would
        refuse.
        """
        ...

    def inject(self, order: FaultOrder) -> Record: ...

    def observe(self, uid: str) -> Reading: ...

    def recover(self, uid: str) -> Record: ...

    def residue(self, uid: str) -> list[str]: ...

    def find(self, uid: str) -> Record | None: ...

    def describe(self, record: Record) -> list[tuple[str, str]]:
        """What each step of a record changed and how it is undone, for people."""
        ...


class Prober(Protocol):
    """Measures all probes of one run; keeps between measurements what rates and logs need.

    Probes may be measured from several threads at once, each one by one thread at a time.
    """

    def measure(
        self, spec: ProbeBase, timeout: Duration, kept: dict[str, Any] | None = None
    ) -> Measurement:
        """One measurement within `timeout`; what cannot be measured is an answer, not an error.

        `kept` is what an engine before this one has learned of this probe.
        """
        ...

    def close(self) -> None: ...


class Generator(Protocol):
    """The traffic of one run. Reading is from memory and returns at once."""

    def start(self, spec: TrafficSpec, seed: int | None = None) -> None:
        """Start it; what it chooses at random is drawn from `seed`."""
        ...

    def seconds(self, name: str, after: float) -> list[TrafficSecond]:
        """The complete seconds that began later than `after` (seconds since 1970), oldest first."""
        ...

    def figures(self, name: str, window: Duration | None) -> TrafficFigures | None:
        """The last `window` of it, or all of it after warm-up; None before there is any."""
        ...

    def stop(self, name: str) -> TrafficFigures | None:
        """Stop it and wait for the answers that are under way; harmless if it does not run."""
        ...

    def close(self) -> None: ...


class Watching(Protocol):
    """Looks at the targets of one run, second by second, and reads their logs at its end."""

    def start(self, name: str, target: Mapping[str, Any]) -> None:
        """Begin to look at a target as the document names it; harmless twice."""
        ...

    def seconds(self, name: str, after: float) -> list[TargetSecond]:
        """The seconds that began later than `after` (seconds since 1970), oldest first."""
        ...

    def status(self, name: str) -> TargetStatus | None:
        """What is known of it, without its seconds; None if it was never started."""
        ...

    def begin(
        self, specs: Sequence[LogSpec], targets: Mapping[str, Mapping[str, Any]]
    ) -> list[LogStatus]:
        """Note where these logs, and those that the targets have by themselves, stand now."""
        ...

    def follow(self, marked: Sequence[LogStatus]) -> None:
        """Go on with logs that an engine before this one has marked."""
        ...

    def end(
        self, specs: Sequence[LogSpec], marked: Sequence[LogStatus], window: Window
    ) -> list[LogStatus]:
        """Look no more, and read what was logged meanwhile."""
        ...

    def stop(self) -> None:
        """Look no more. Idempotent."""
        ...


class Doer(Protocol):
    """Carries out what nodes ask for besides faults: tasks, and other experiments."""

    def do(self, run: Run, node: str, number: int) -> Done:
        """Carry out attempt `number` of a node and wait for its end; an experiment that an engine
        before this one has begun is taken up again.
        """
        ...

    def cancel(self, node: str, why: str) -> None:
        """Give up what is under way for a node: `do` returns soon. Harmless if nothing is."""
        ...


class Members(Protocol):
    """The runs in other clusters that one run consists of."""

    def look(self, run: Run, cluster: ClusterRef, stop: str) -> ClusterStatus:
        """Make the run there if it is not there yet, tell it of our wishes (`stop`: why it is to
        end, if it is), and say how far it is.
        """
        ...

    def close(self) -> None: ...


Choose = Callable[[str, Selector, str, frozenset[str]], Choice | None]
"""What a selector means now: of which fault it is, the selector, what chance is drawn from, and the
guards that are overridden. Looks and touches nothing; raises what injecting would refuse. None: who
injects resolves it.
"""


@dataclass(frozen=True, slots=True)
class Tools:
    """Everything that acts, for one run."""

    injector: Callable[[], AbstractContextManager[Injecting]]
    prober: Prober
    traffic: Generator
    environment: Callable[[], Environment]
    engines: Callable[[], dict[str, str]]
    watching: Watching | None = None
    heard: Heard | None = None
    """Where the driver puts what was reported to the run, for its probes."""
    doer: Doer | None = None
    """Who carries out tasks and other experiments."""
    choose: Choose | None = None
    """What resolves the selectors of faults."""
    instant: Callable[[], Now] | None = None
    """Now, on the clocks that the run is kept by; None: those of this machine."""
    check: Callable[[Run], None] | None = None
    """Raises what is wrong with a run as a whole, before anything else is looked at."""
    members: Members | None = None
    """Who carries out a run in several clusters."""
    goes_on: bool = False
    """Whether injecting once more goes on with what was half injected when an engine died; else
    nobody knows which half, and it is undone."""
