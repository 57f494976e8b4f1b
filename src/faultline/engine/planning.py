"""What a run would do to whom: selectors resolved, and the changes of each fault; nothing is
touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from faultline.api.experiment import FaultNode
from faultline.api.run import Run
from faultline.api.run_parts import ChangeStatus
from faultline.api.selector import Choice
from faultline.changes.model import StepState
from faultline.engine import seeds
from faultline.engine.asked import first_faults, parts
from faultline.engine.ports import Choose, FaultOrder, Injecting
from faultline.errors import Unsupported

OrderFor = Callable[[Run, FaultNode], FaultOrder]


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault on one target."""

    node: FaultNode
    words: str  # the target that a selector found; empty without one
    changes: list[ChangeStatus] = field(default_factory=list[ChangeStatus])
    choice: Choice | None = None


def plan(
    run: Run, injector: Injecting, choose: Choose | None, order_for: OrderFor
) -> list[Planned]:
    """Every fault of the run on each of its targets; raises what injecting would refuse."""
    found: list[Planned] = []
    for node in first_faults(run):
        choice = chosen(run, node, choose)
        for name, aim in parts(node.name, choice):
            part = node
            if aim is not None:
                update = {"name": name, "target": aim.target, "selector": None}
                part = node.model_copy(update=update)
            changes = [
                ChangeStatus(describe=does, undo=undo, state=str(StepState.PLANNED))
                for does, undo in injector.changes(order_for(run, part))
            ]
            found.append(Planned(part, aim.words if aim else "", changes, choice))
    return found


def chosen(run: Run, node: FaultNode, choose: Choose | None) -> Choice | None:
    """What the selector of a fault means; of a run that repeats another one, what it meant then."""
    if node.selector is None:
        return None
    then = run.spec.repeat.choices.get(node.name) if run.spec.repeat is not None else None
    if then:
        text = f"as in the run that is repeated: {', '.join(each.words for each in then[:10])}"
        return Choice(node=node.name, targets=then, text=text)
    if choose is None:
        raise Unsupported(f"{node.name}: nobody here resolves selectors")
    drawn = seeds.derived(run.spec.seed, "selector", node.name)
    seed = run.metadata.uid if drawn is None else str(drawn)
    return choose(node.name, node.selector, seed, frozenset(node.allow))
