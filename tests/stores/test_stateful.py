"""Any order of operations, against a model of what a store is, through two connections."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.stores import histories

from faultline.api.run import Run
from faultline.errors import UnknownName
from faultline.stores.model import Exists, Fenced, Filter, Lease, Stale, Store
from faultline.stores.opening import open_store

NAMES = st.sampled_from(["a", "b", "c"])
WHO = st.integers(0, 1)
LABELS = st.dictionaries(st.sampled_from(["x", "y"]), st.text(max_size=2), max_size=2)


@dataclass
class Kept:
    """A resource as it should be, its lease, and every version that was ever read of it."""

    run: Run
    fence: int = 0
    holder: int | None = None
    read: list[Run] = field(default_factory=list[Run])


class Operations(RuleBasedStateMachine):
    stores: tuple[Store, Store]

    def __init__(self) -> None:
        super().__init__()
        for each in self.stores[0].summaries("Run"):
            self.stores[0].delete("Run", each.name)
        self.turn = False
        self.kept: dict[str, Kept] = {}
        self.since = self.stores[0].version()
        self.seen: dict[str, int | None] = {}
        self.leases: list[dict[str, Lease]] = [{}, {}]

    @rule(who=WHO, name=NAMES, labels=LABELS)
    def create(self, who: int, name: str, labels: dict[str, str]) -> None:
        new = histories.run(name, len(self.kept), 2, ended=False)
        new = new.model_copy(update={"metadata": histories.metadata(name, **labels)})
        if name in self.kept:
            with pytest.raises(Exists):
                self.stores[who].create(new)
            return
        made = self.stores[who].create(new)
        assert (made.spec, made.status, made.metadata.labels) == (new.spec, new.status, labels)
        self.kept[name] = Kept(made, read=[made])

    @rule(who=WHO, name=NAMES, data=st.data())
    def write_status(self, who: int, name: str, data: Any) -> None:
        if name not in self.kept:
            return
        kept = self.kept[name]
        base = data.draw(st.sampled_from(kept.read[-3:]))
        probes = [each.model_copy() for each in base.status.probes]
        for probe in probes:
            if data.draw(st.booleans()):
                more = histories.sample(data.draw(st.integers(0, 9)))
                probe.samples = [*probe.samples[: data.draw(st.integers(0, 99))], more]
        now = base.status.model_copy(update={"probes": probes})
        self._written(who, kept, base, lambda store: store.write_status(
            base.model_copy(update={"status": now})
        ), fenced=True)  # fmt: skip

    @rule(who=WHO, name=NAMES, labels=LABELS, data=st.data())
    def update(self, who: int, name: str, labels: dict[str, str], data: Any) -> None:
        if name not in self.kept:
            return
        kept = self.kept[name]
        base = data.draw(st.sampled_from(kept.read[-3:]))
        meta = base.metadata.model_copy(update={"labels": labels})
        spec = base.spec.model_copy(update={"abort": data.draw(st.text(max_size=3))})
        self._written(who, kept, base, lambda store: store.update(
            base.model_copy(update={"metadata": meta, "spec": spec})
        ))  # fmt: skip

    def _written(
        self, who: int, kept: Kept, base: Run, write: Callable[[Store], Run], fenced: bool = False
    ) -> None:
        name = base.metadata.name
        mine = self.leases[who].get(name)
        refused: tuple[type[Exception], ...] = ()
        if fenced and mine is not None and mine.fence != kept.fence:
            refused = (Fenced,)
        elif base.metadata.resource_version != kept.run.metadata.resource_version:
            refused = (Stale,)
        if refused:
            with pytest.raises(refused):
                write(self.stores[who])
            return
        kept.run = write(self.stores[who])
        kept.read.append(kept.run)

    @rule(who=WHO, name=NAMES, right=st.booleans())
    def delete(self, who: int, name: str, right: bool) -> None:
        if name not in self.kept:
            with pytest.raises(UnknownName):
                self.stores[who].delete(Run, name)
            return
        version = self.kept[name].run.metadata.resource_version
        if not right:
            with pytest.raises(Stale):
                self.stores[who].delete(Run, name, version - 1)
            return
        self.stores[who].delete(Run, name, version)
        del self.kept[name]
        for leases in self.leases:
            if name in leases:
                with contextlib.suppress(KeyError):
                    self.stores[0].release(leases[name])
                    self.stores[1].release(leases.pop(name))

    @rule(who=WHO, limit=st.integers(0, 2))
    def claim(self, who: int, limit: int) -> None:
        free = [name for name, kept in self.kept.items() if kept.holder is None]
        taken = self.stores[who].claim(Run, limit, f"holder-{who}", 600)
        assert {each.lease.name for each in taken} <= set(free)
        assert len(taken) == min(limit, len(free))
        for each in taken:
            kept = self.kept[each.lease.name]
            self._moved(who, kept, each.resource)
            kept.fence += 1
            kept.holder = who
            assert each.lease.fence == kept.fence
            self.leases[who][each.lease.name] = each.lease

    @rule(who=WHO, name=NAMES)
    def let_go(self, who: int, name: str) -> None:
        """Given up behind the back of whoever holds it, as when its time has passed."""
        lease = self.leases[who].get(name)
        if lease is not None and name in self.kept and self.kept[name].fence == lease.fence:
            self.stores[1 - who].release(lease)
            self.kept[name].holder = None
            self._moved(who, self.kept[name], self.stores[who].get(Run, name))

    def _moved(self, who: int, kept: Kept, now: Run) -> None:
        """It was taken or let go, which may be a version of its own, and changes nothing else."""
        version = kept.run.metadata.resource_version
        meta = now.metadata.model_copy(update={"resource_version": version})
        assert now.model_copy(update={"metadata": meta}) == kept.run
        kept.run = now
        kept.read.append(now)

    @rule(who=WHO)
    def renew(self, who: int) -> None:
        held = {
            name
            for name, lease in self.leases[who].items()
            if self.kept[name].holder == who and self.kept[name].fence == lease.fence
        }
        renewed = self.stores[who].renew(list(self.leases[who].values()), 600)
        assert {lease.name for lease in renewed} == held

    @rule(who=WHO)
    def watch(self, who: int) -> None:
        last = self.since
        for event in self.stores[who].watch(self.since, timeout=0):
            assert event.version > last
            last = event.version
            self.seen[event.name] = None if event.resource is None else event.version
        self.since = max(last, self.since)
        assert {name for name, version in self.seen.items() if version} == set(self.kept)
        for name, kept in self.kept.items():
            assert self.seen[name] == kept.run.metadata.resource_version

    @invariant()
    def everybody_reads_the_same(self) -> None:
        self.turn = not self.turn
        for store in (self.stores[self.turn],):
            for name, kept in self.kept.items():
                assert store.get(Run, name) == kept.run
                labels = kept.run.metadata.labels
                assert name in {s.name for s in store.summaries(Run, Filter(labels=labels))}
            listed = sorted(run.metadata.name for run in store.list(Run))
            assert listed == sorted(self.kept) == sorted(s.name for s in store.summaries("Run"))


@pytest.mark.parametrize(
    "examples", [8, pytest.param(100, marks=pytest.mark.full)], ids=["few", "many"]
)
def test_any_order_of_operations_is_as_the_model_says(where: str, examples: int) -> None:
    check(lambda: open_store(where), lambda: open_store(where), examples)


QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without making a failure smaller: for stores that are slow."""


def check(
    one: Callable[[], Store],
    other: Callable[[], Store],
    examples: int,
    phases: Collection[Phase] = tuple(Phase),
) -> None:
    with closing(one()) as first, closing(other()) as second:
        machine = type("Bound", (Operations,), {"stores": (first, second)})
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        chosen = settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=checks,
            phases=phases,
        )
        run_state_machine_as_test(machine, settings=chosen)
