"""invariant over real databases, while somebody moves money between them."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faultline.api.probe import InvariantProbe, Measurement, ProbeBase
from faultline.probes import invariant
from faultline.probes.limit import Limit
from faultline.probes.prober import Prober
from faultline.testing.sampling import examples

pytest.importorskip("sqlalchemy", reason="needs SQLAlchemy")

Probe = Callable[..., Prober[ProbeBase]]


class Bank:
    """A database with one number per account."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run("CREATE TABLE account (id text PRIMARY KEY, balance int)")
        self.run("INSERT INTO account VALUES ('a', 600), ('b', 400)")

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def reads(self, query: str = "SELECT sum(balance) FROM account") -> dict[str, Any]:
        return {"type": "sql", "url": f"sqlite:///{self.path}", "query": query}

    def of(self, account: str) -> dict[str, Any]:
        return self.reads(f"SELECT balance FROM account WHERE id = '{account}'")


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "bank.db")


@pytest.fixture
def copy(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "copy.db")


def test_the_first_violation_is_kept(probe: Probe, bank: Bank) -> None:
    it = probe("invariant", of=bank.reads())
    found = it.measure()
    assert (found.ok, found.value, found.result["violation"]) == (True, 1000, None), found.text
    before = time.time()
    bank.run("UPDATE account SET balance = balance - 10 WHERE id = 'a'")
    first = it.measure()
    assert (first.ok, first.value) == (False, 990)
    assert first.text == "it changed from 1000 to 990"
    kept = first.result["violation"]
    assert (kept["value"], kept["expected"], kept["rule"]) == (990, 1000, "constant")
    assert kept["of"][0]["text"] == "sum(balance) is 990"
    assert before <= kept["at"] <= time.time()
    bank.run("UPDATE account SET balance = 0 WHERE id = 'a'")
    second = it.measure()
    assert (second.ok, second.value, second.result["violations"]) == (False, 400, 2)
    assert second.result["violation"] == kept
    bank.run("UPDATE account SET balance = 600 WHERE id = 'a'")
    healed = it.measure()
    assert (healed.ok, healed.value) == (True, 1000)
    assert healed.result["violation"] == kept
    assert "first violated at" in healed.text
    assert Measurement.model_validate_json(healed.model_dump_json()) == healed


def test_what_it_was_at_first_outlives_an_engine(probe: Probe, bank: Bank) -> None:
    kept = probe("invariant", of=bank.reads()).measure().keep
    bank.run("UPDATE account SET balance = 0 WHERE id = 'a'")
    later = probe("invariant", of=bank.reads())
    later.recall(json.loads(json.dumps(kept)))
    found = later.measure()
    assert (found.ok, found.text) == (False, "it changed from 1000 to 400")
    last = probe("invariant", of=bank.reads())
    last.recall(found.keep)
    assert last.measure().result["violation"] == found.result["violation"]


def test_what_is_expected_and_how_far_it_may_be_off(probe: Probe, bank: Bank) -> None:
    assert probe("invariant", of=bank.reads(), equals=1000.0).measure().ok is True
    assert probe("invariant", of=bank.reads(), equals=1001.0).measure().ok is False
    assert probe("invariant", of=bank.reads(), equals=1001.0, tolerance=1).measure().ok is True
    assert probe("invariant", of=bank.reads(), equals=1010.0, tolerance="1%").measure().ok is True
    assert probe("invariant", of=bank.reads(), equals=1011.0, tolerance="1%").measure().ok is False


def test_what_may_only_grow(probe: Probe, bank: Bank) -> None:
    it = probe("invariant", of=bank.reads(), rule="neverFalls")
    assert it.measure().ok is True
    bank.run("UPDATE account SET balance = 900 WHERE id = 'a'")
    assert it.measure().ok is True
    bank.run("UPDATE account SET balance = 800 WHERE id = 'a'")
    fell = it.measure()
    assert fell.ok is False
    assert fell.text == "it fell from 1300 to 1200"
    bank.run("UPDATE account SET balance = 850 WHERE id = 'a'")
    assert it.measure().ok is False  # still below what it has been
    bank.run("UPDATE account SET balance = 900 WHERE id = 'a'")
    assert it.measure().ok is True


def test_two_systems_agree(probe: Probe, bank: Bank, copy: Bank) -> None:
    it = probe("invariant", of=bank.reads(), **{"with": copy.reads()})
    assert (it.measure().ok, it.measure().value) == (True, 0)
    copy.run("UPDATE account SET balance = 0 WHERE id = 'a'")
    found = it.measure()
    assert (found.ok, found.value) == (False, 600)
    assert found.text == "1000 on one side, 400 on the other"
    assert found.result["violation"]["with"][0]["value"] == 400


def test_a_side_that_cannot_be_asked_is_no_violation(
    probe: Probe, bank: Bank, tmp_path: Path
) -> None:
    gone = {**bank.reads(), "url": f"sqlite:///{tmp_path / 'none.db'}"}
    for fields in ({"of": gone}, {"of": bank.reads(), "with": gone}, {"of": [bank.reads(), gone]}):
        found = probe("invariant", **fields).measure()
        assert (found.ok, found.value) == (None, None)
        assert "does not exist" in found.text


@pytest.fixture
def busy(bank: Bank, copy: Bank) -> Iterator[Callable[[Callable[[int], None]], None]]:
    """Calls a function in a thread again and again until the end of the test."""
    over, threads = threading.Event(), list[threading.Thread]()

    def start(step: Callable[[int], None]) -> None:
        def loop() -> None:
            number = 0
            while not over.is_set():
                number += 1
                step(number)
                time.sleep(0.01)

        threads.append(threading.Thread(target=loop))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


def test_money_on_its_way_between_two_accounts_is_not_lost(
    probe: Probe, bank: Bank, busy: Callable[..., None]
) -> None:
    """Both balances are read one after the other, while money moves from one to the other.

    It moves in one direction: no balance comes back to what it was.
    """

    def move(_: int) -> None:
        bank.run(
            "UPDATE account SET balance = balance - 1 WHERE id = 'a'",
            "UPDATE account SET balance = balance + 1 WHERE id = 'b'",
        )
        time.sleep(0.03)

    it = probe("invariant", of=[bank.of("a"), bank.of("b")], equals=1000.0, timeout="1s")
    busy(move)
    answers = [it.measure() for _ in range(6)]
    assert [each.text for each in answers if each.ok is False] == []
    assert any(each.ok is not None for each in answers)
    bank.run("UPDATE account SET balance = balance - 1 WHERE id = 'b'")
    deadline = time.monotonic() + 60
    while it.measure().ok is not False:  # what is really lost is found all the same
        assert time.monotonic() < deadline


def test_a_copy_that_lags_is_given_its_time(
    probe: Probe, bank: Bank, copy: Bank, busy: Callable[..., None]
) -> None:
    strict = probe("invariant", of=bank.reads(), **{"with": copy.reads()})
    patient = probe("invariant", of=bank.reads(), **{"with": copy.reads()}, within="1500ms")
    assert patient.measure().ok is True
    bank.run("UPDATE account SET balance = 700 WHERE id = 'a'")
    assert strict.measure().ok is False
    late = threading.Timer(0.3, copy.run, ["UPDATE account SET balance = 700 WHERE id = 'a'"])
    late.start()
    found = patient.measure()
    late.join()
    assert found.ok is True, found.text
    bank.run("UPDATE account SET balance = 750 WHERE id = 'a'")
    begun = time.monotonic()
    assert patient.measure().ok is False
    assert time.monotonic() - begun >= 1.5


def test_systems_that_never_stand_still_are_not_measured(
    probe: Probe, bank: Bank, copy: Bank, busy: Callable[..., None]
) -> None:
    bank.run("UPDATE account SET balance = 0 WHERE id = 'a'")
    busy(lambda number: bank.run(f"UPDATE account SET balance = {number} WHERE id = 'a'"))
    fields = {"of": bank.reads(), "with": copy.reads(), "within": "300ms", "timeout": "700ms"}
    found = probe("invariant", **fields).measure()
    assert found.ok is None
    assert "nothing stood still" in found.text


# --------------------------------------------------------------------------- simulated


class World:
    """Accounts whose money is moved by a script: before each read some moves happen."""

    def __init__(self, balances: list[int], script: list[tuple[int, int, int]]) -> None:
        self.balances, self.script = balances, script

    def read(self, account: int) -> float:
        if self.script:
            source, target, amount = self.script.pop(0)
            self.balances[source] -= amount
            self.balances[target] += amount
        return float(self.balances[account])


class Account:
    """A part that reads one account."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.spec = InvariantProbe.model_construct(type="invariant")

    def measure_within(self, limit: Limit) -> Measurement:
        return Measurement(value=self.world.read(self.number), ok=True)


@settings(
    max_examples=examples(50, 400), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    balances=st.lists(st.integers(0, 1000), min_size=2, max_size=5),
    # Amounts are powers of two of their own: no account comes back to what it was, and none hides
    # what is lost.
    moves=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=40),
    lost=st.integers(0, 1),
)
def test_no_interleaving_of_moves_and_reads_makes_a_violation(
    balances: list[int], moves: list[tuple[int, int]], lost: int
) -> None:
    count = len(balances)
    script = [(a % count, b % count, 2 ** (n + 4)) for n, (a, b) in enumerate(moves)]
    total = sum(balances)
    world = World(balances, script)
    part = {"type": "file", "path": "/x", "measure": "exists"}
    spec = InvariantProbe.model_validate(
        {"name": "it", "type": "invariant", "of": [part] * count, "equals": float(total + lost)}
    )
    prober: Any = invariant.Prober(spec)
    prober._of = [Account(world, number) for number in range(count)]
    found = prober.measure()
    assert found.ok is (lost == 0)
    assert lost == 0 or found.value == total
