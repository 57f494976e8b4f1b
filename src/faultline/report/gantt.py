"""What was done when, as bars: the nodes of a graph, or the faults of a run that has none.

A bar knows nothing of documents or pictures. A run without a graph and one with a hundred nodes are
drawn by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from faultline.api.graph_status import NodeStatus
from faultline.api.run import FaultStatus, RunStatus
from faultline.engine.asked import whole
from faultline.report.moments import Clock
from faultline.report.nodes import GROUPS

DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Mark:
    """One time point on a bar."""

    at: float
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of a bar; `end` is None while it goes on."""

    start: float
    end: float | None
    style: str  # rising, active, falling, attempt
    state: str = ""  # of an attempt: how it ended


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: what it is, when it began and ended, what happened on the way."""

    label: str
    depth: int
    kind: str
    start: float | None
    end: float | None
    marks: tuple[Mark, ...] = ()
    state: str = ""  # held, broke, ... succeeded, failed, skipped, aborted, running, waiting
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    text: str = ""
    holds: bool = False  # whether it is a group of others
    stopped: bool = False  # whether it was given up


@dataclass(frozen=True, slots=True)
class _Tree:
    """Nodes by the one that holds them, and faults by the node that they belong to."""

    inside: dict[str, list[NodeStatus]]
    faults: dict[str, list[FaultStatus]]
    seen: set[str] = field(default_factory=set[str])


def bars(status: RunStatus, clock: Clock) -> tuple[Bar, ...]:
    """All rows in the order in which they are read: what a node holds stands below it."""
    if not status.nodes:
        return tuple(_fault(fault, clock, 0) for fault in status.faults)
    tree = _Tree({}, {})
    names = {node.name for node in status.nodes}
    for node in status.nodes:
        holder = node.parent if node.parent in names and node.parent != node.name else ""
        tree.inside.setdefault(holder, []).append(node)
    for fault in status.faults:
        tree.faults.setdefault(fault.node or fault.name, []).append(fault)
    out = _below(tree, "", clock, 0)
    loose = [f for owner, found in tree.faults.items() if owner not in tree.seen for f in found]
    return (*out, *(_fault(fault, clock, 0) for fault in loose))


def _below(tree: _Tree, holder: str, clock: Clock, depth: int) -> list[Bar]:
    out: list[Bar] = []
    for node in tree.inside.get(holder, ()):
        if node.name in tree.seen:  # a document that somebody made up
            continue
        tree.seen.add(node.name)
        faults = tree.faults.get(node.name, [])
        out.append(_node(node, faults, clock, depth))
        if len(faults) > 1:  # the attempts of a fault, the trials of a search
            rows = [_fault(fault, clock, depth + 1) for fault in faults]
            out += _trials(node, rows)
        out += _below(tree, node.name, clock, min(depth + 1, DEEPEST))
    return out


def _node(node: NodeStatus, faults: Sequence[FaultStatus], clock: Clock, depth: int) -> Bar:
    alone = faults[0] if len(faults) == 1 else None
    tries = [
        Part(clock.at(each.started), clock.maybe(each.ended), "attempt", each.verdict or "")
        for each in node.attempts
    ]
    if tries and not tries[-1].state:
        tries[-1] = replace(tries[-1], state=node.outcome or str(node.state))
    kind = node.type if alone is None else f"{node.type} {alone.fault}"
    told = [f"{len(node.attempts)} attempts"] if len(node.attempts) > 1 else []
    told += [f"taken over from {node.reused}"] if node.reused else []
    return Bar(
        label=node.name,
        depth=depth,
        kind=kind,
        start=clock.maybe(node.started),
        end=clock.maybe(node.ended),
        marks=_marks(alone, clock) if alone else (),
        state=node.verdict or node.outcome or str(node.state),
        parts=_edges(alone, clock) if alone else tuple(tries),
        notes=tuple(told),
        text=node.text,
        holds=node.type in GROUPS,
        stopped=node.outcome == "aborted",
    )


def _trials(node: NodeStatus, rows: list[Bar]) -> list[Bar]:
    """The faults of a search with what each was tried for; those of other nodes as they are."""
    tried = node.search.trials if node.search is not None else []
    names = list(dict.fromkeys(whole(row.label) for row in rows))
    if len(tried) > len(names):  # a trial without a fault: nobody knows which belongs to which
        return rows
    of = dict(zip(names, tried, strict=False))
    told = ((row, of.get(whole(row.label))) for row in rows)
    return [
        row
        if trial is None
        else replace(row, state=trial.outcome, kind=f"{row.kind} {trial.value}")
        for row, trial in told
    ]


def _fault(fault: FaultStatus, clock: Clock, depth: int) -> Bar:
    state = fault.effect or ("waiting" if fault.started is None else "unmeasured")
    if fault.error and fault.injected_at is None:
        state = "failed"
    return Bar(
        label=fault.name,
        depth=depth,
        kind=fault.fault,
        start=clock.maybe(fault.started),
        end=clock.maybe(fault.recovered_at),
        marks=_marks(fault, clock),
        state=state,
        parts=_edges(fault, clock),
        notes=("never found gone",) if fault.started and fault.recovered_at is None else (),
        text=fault.error,
    )


def _marks(fault: FaultStatus, clock: Clock) -> tuple[Mark, ...]:
    known = [
        (fault.started, "asked"),
        (fault.effective_at, "effective"),
        (fault.impact_at, "impact"),
        (fault.recovery_started, "undoing"),
        (fault.recovered_at, "gone"),
    ]
    return tuple(Mark(clock.at(at), name) for at, name in known if at is not None)


def _edges(fault: FaultStatus, clock: Clock) -> tuple[Part, ...]:
    """Until it took effect, while it was in effect, until it was gone."""
    if fault.started is None:
        return ()
    last = fault.recovered_at
    undo = fault.recovery_started if fault.recovery_started is not None else last
    effective = fault.effective_at if fault.effective_at is not None else undo
    parts = [Part(clock.at(fault.started), clock.maybe(effective), "rising")]
    if effective is not None:
        parts.append(Part(clock.at(effective), clock.maybe(undo), "active"))
    if undo is not None:
        parts.append(Part(clock.at(undo), clock.maybe(last), "falling"))
    return tuple(part for part in parts if part.end is None or part.end > part.start)
