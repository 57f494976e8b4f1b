"""The experiments of a store, with what became of them."""

from __future__ import annotations

from dataclasses import dataclass

from faultline.api.experiment import Experiment
from faultline.api.graph import FaultStep, SearchStep, walk
from faultline.api.schedule import Schedule
from faultline.errors import Refused
from faultline.stores.model import Filter, Store, Summary


@dataclass(frozen=True, slots=True)
class Kept:
    """One of them."""

    name: str
    title: str
    faults: list[str]
    parameters: list[str]
    schedules: list[str]
    """Those that run it."""
    runs: int
    last: Summary | None


def all_of(store: Store) -> list[Kept]:
    """All of them, by name."""
    users = _users(store)
    return [
        _kept(store, each, users.get(each.metadata.name, []))
        for each in sorted(store.list(Experiment), key=lambda each: each.metadata.name)
    ]


def remove(store: Store, name: str) -> None:
    """Remove one; its runs stay. Raises UnknownName, Refused while a schedule runs it."""
    store.get(Experiment, name)
    if users := _users(store).get(name):
        raise Refused(
            f"the experiment {name} is run by {', '.join(users)}",
            hint=f"remove that first: faultline schedule delete {users[0]}",
        )
    store.delete(Experiment, name)


def _users(store: Store) -> dict[str, list[str]]:
    """The schedules of each experiment that they name."""
    found: dict[str, list[str]] = {}
    for each in store.list(Schedule):
        use = each.spec.experiment
        if use.spec is None:
            found.setdefault(use.name, []).append(each.metadata.name)
    return {name: sorted(users) for name, users in found.items()}


def _kept(store: Store, each: Experiment, schedules: list[str]) -> Kept:
    spec, name = each.spec, each.metadata.name
    of_it = Filter(experiments=(name,))
    last = store.summaries("Run", of_it, 1)
    return Kept(
        name, spec.title, _faults(each), sorted(spec.parameters), schedules,
        store.count("Run", of_it), last[0] if last else None,
    )  # fmt: skip


def _faults(each: Experiment) -> list[str]:
    found = [fault.fault for fault in each.spec.faults]
    for _, step in (*walk(each.spec.nodes), *walk(each.spec.finally_)):
        if isinstance(step, FaultStep):
            found.append(step.fault)
        elif isinstance(step, SearchStep):
            found.append(step.fault.fault)
    return list(dict.fromkeys(found))
