"""Schedules in a world where engines die between any two writes, come back late or twice, and
somebody sets the clock.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from tests.schedules.memory import Died, MemoryStore, sometimes
from tests.schedules.samples import schedule

from faultline.api.run import Verdict
from faultline.api.schedule import OCCURRENCE, RESUMED, Schedule
from faultline.engine import scheduling
from faultline.engine.calendar import occurrences
from faultline.engine.schedules import Schedules, run_facts
from faultline.engine.scheduling import CreateRun, Facts, reconcile

EXPERIMENT: dict[str, Any] = {
    "title": "a test",
    "hypothesis": {"text": "it holds", "probes": ["up"]},
    "probes": [{"name": "up", "type": "tcp", "host": "h", "port": 1}],
    "faults": [{"name": "one", "fault": "network.delay", "duration": "10s"}],
}
START = 1_780_000_020.0
NAME = "nightly"


class Simulation:
    def __init__(self, seed: int, spec: dict[str, Any], odds: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.odds = odds
        self.time = START
        self.skew = 0.0
        self.store = MemoryStore()
        self.store.now = lambda: self.time + self.skew
        made = schedule(name=NAME, created=START, **{
            "experiment": {"name": "checkout", "spec": EXPERIMENT}, **spec})  # fmt: skip
        self.store.kept["Schedule", NAME] = made
        self.engine = self._engine()
        self.late: list[tuple[float, CreateRun]] = []
        self.ends: dict[str, float] = {}
        self.longest = 240.0
        self.most_active = 0

    def _engine(self) -> Schedules:
        return Schedules(self.store, lambda fault, params: [])  # type: ignore[arg-type]

    @property
    def now(self) -> float:
        return self.time + self.skew

    @property
    def schedule(self) -> Schedule:
        return self.store.get(Schedule, NAME)

    def world(self) -> None:
        """Runs end by themselves, or soon after they were aborted."""
        for run in self.store.active():
            name = run.metadata.name
            self.ends.setdefault(name, self.time + self.random.uniform(1, self.longest))
            if run.spec.abort:
                self.ends[name] = min(self.ends[name], self.time + 20)
            if self.time >= self.ends[name]:
                self.store.end(run, self.random.choice(list(Verdict)))

    def step(self, halted: str = "") -> float:
        """One look of the engine, which may die in it; another takes its place."""
        self.store.before = sometimes(self.random, self.odds)
        self.store.after = sometimes(self.random, self.odds)
        try:
            wake = self.engine.step(self.now, halted)
        except Died:
            self.engine = self._engine()
            wake = self.now
            self._remember()
        self.store.before = self.store.after = lambda: None
        self.most_active = max(self.most_active, len(self.store.active()))
        return wake

    def _remember(self) -> None:
        """What the engine that died was about to do is done by a delayed twin, much later."""
        kept = self.schedule
        facts = Facts(run_facts(self.store, kept))  # type: ignore[arg-type]
        for action in reconcile(kept, facts, self.now).actions:
            if isinstance(action, CreateRun):
                self.late.append((self.time + self.random.uniform(1, 900), action))

    def go(self, seconds: float, pause: float = 0.0) -> None:
        until = self.time + seconds
        while self.time < until:
            self.world()
            wake = self.step()
            for due, action in [each for each in self.late if each[0] <= self.time]:
                self.late.remove((due, action))
                self.engine.carry_out(NAME, action)
            self.time += min(max(wake - self.now, 0.5), 5.0, until - self.time + 0.001) + pause

    def settle(self) -> None:
        """No more deaths: what was begun is finished."""
        self.odds = 0.0
        for _ in range(5):
            self.world()
            self.step()
            self.time += 1

    # ------------------------------------------------------------------ what must be true

    def accounted(self) -> None:
        """Every occurrence that was decided on was run, or left out with a reason, once."""
        kept = self.schedule
        status, seen = kept.status, kept.status.seen
        assert seen is not None
        due = sum(1 for _ in itertools.takewhile(
            lambda each: each.original <= seen, occurrences(kept, START)))  # fmt: skip
        assert status.started + status.skipped + len(status.creating) + len(status.backlog) == due

    def once(self) -> None:
        assert max(self.store.made.values(), default=1) == 1
        assert sum(self.store.made.values()) == self.schedule.status.started


WHENS: list[dict[str, Any]] = [
    {"when": {"every": "1m"}},
    {"when": {"cron": "*/2 * * * *"}, "jitter": "1m"},
    {"when": {"cron": ["*/10 * * * * *"]}},
    {"when": {"every": "45s"}, "onFreeze": "delay",
     "calendars": [{"freeze": [{"from": "20:40", "to": "20:50"}]}]},
]  # fmt: skip


@pytest.mark.parametrize(
    "seed", [0, 1, 2, 3, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(4, 60))]
)
@pytest.mark.parametrize("policy", ["forbid", "replace", "allow"])
@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_whatever_dies_each_occurrence_is_decided_on_once(
    seed: int, policy: str, missed: str
) -> None:
    chance = random.Random(seed)
    limits = {"succeeded": chance.randrange(3), "failed": chance.randrange(3)}
    spec = {
        **WHENS[seed % len(WHENS)],
        "concurrency": policy,
        "missed": missed,
        "history": limits,
    }
    made = Simulation(seed, spec, odds=0.15)
    for _ in range(4):
        made.go(190)
        made.accounted()
        made.time += chance.choice([0, 0, 100, 1000])  # no engine at all
        made.skew += chance.choice([0, 0, -300, 400])  # somebody sets the clock
    made.go(120)
    made.settle()
    made.accounted()
    made.once()
    assert made.schedule.status.creating == []
    if policy != "allow":
        assert made.most_active <= 1
    if spec.get("onFreeze") == "delay":
        for run in made.store.runs():
            minutes = run.metadata.creation_timestamp % 86400 // 60
            assert not 20 * 60 + 40 <= minutes < 20 * 60 + 50


def test_without_trouble_every_occurrence_runs_when_it_is_due() -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "concurrency": "allow",
                          "history": {"succeeded": 1000, "failed": 1000}})  # fmt: skip
    made.go(3600)
    runs = sorted(made.store.runs(), key=lambda run: run.metadata.creation_timestamp)
    assert [run.metadata.creation_timestamp // 1 for run in runs] == [
        START + 60 * number for number in range(1, 60)
    ]
    assert runs[0].metadata.labels[OCCURRENCE] == "2026-05-28T20:28:00+00:00"
    assert runs[0].metadata.name == "nightly-20260528-202800"
    assert made.schedule.status.skipped == 0


def test_an_engine_that_dies_at_every_write_in_turn_makes_each_run_once() -> None:
    """Not by chance: dead at the n-th write, for every n."""
    for number in range(40):
        made = Simulation(number, {"when": {"every": "1m"}, "concurrency": "allow",
                                   "history": {"succeeded": 1, "failed": 1}})  # fmt: skip
        made.longest = 30
        left = itertools.count(number, -1)

        def die(left: itertools.count[int] = left) -> None:
            if next(left) == 0:
                raise Died

        for _ in range(200):
            made.world()
            made.store.before = made.store.after = die
            try:
                made.engine.step(made.now)
            except Died:
                made.engine = made._engine()
            made.store.before = made.store.after = lambda: None
            made.time += 2
        assert len(made.store.made) == 6
        made.once()
        made.accounted()


def test_forbid_leaves_out_and_says_who_was_active() -> None:
    made = Simulation(1, {"when": {"every": "1m"}})
    made.longest = 1.0
    made.go(61)
    (run,) = made.store.runs()
    made.ends[run.metadata.name] = made.time + 100
    made.go(120)
    status = made.schedule.status
    assert status.started == 2
    assert [note.text for note in status.notes] == [f"{run.metadata.name} was still active"]


def test_replace_begins_only_when_the_old_one_has_ended() -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "concurrency": "replace"})
    made.go(61)
    (old,) = made.store.runs()
    made.ends[old.metadata.name] = made.time + 1000
    made.go(62)
    (still,) = made.store.active()
    assert still.metadata.name == old.metadata.name
    assert still.spec.abort.startswith("replaced by the occurrence of 2026-")
    assert made.schedule.status.backlog
    made.go(25)
    (new,) = made.store.active()
    assert new.metadata.name != old.metadata.name
    assert made.most_active == 1


@pytest.mark.parametrize(("missed", "expected"), [("skip", 0), ("once", 1), ("all", 10)])
def test_what_was_missed_follows_its_rule(missed: str, expected: int) -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "missed": missed, "concurrency": "allow"})
    made.time += 3600 + 30
    made.step()
    assert len(made.store.made) == expected
    assert made.schedule.status.missed == 60
    assert made.schedule.status.skipped == 60 - expected
    latest = max(made.store.made, default="nightly-20260528-212700")
    assert latest == "nightly-20260528-212700"
    made.accounted()


def test_what_was_missed_is_made_up_for_one_by_one_if_they_may_not_overlap() -> None:
    made = Simulation(1, {"when": {"every": "10m"}, "missed": "all", "missedLimit": 3})
    made.longest = 50
    made.time += 3600 + 30
    made.go(300)
    assert len(made.store.made) == 3
    assert sorted(made.store.made) == list(made.store.made)
    assert made.most_active == 1


def test_a_starting_deadline_bounds_what_is_made_up_for() -> None:
    late = {"when": {"every": "10m"}, "startingDeadline": "20m", "concurrency": "allow"}
    for missed, expected in (("skip", 2), ("once", 1), ("all", 2)):
        made = Simulation(1, {**late, "missed": missed})
        made.time += 3600 + 300
        made.step()
        assert len(made.store.made) == expected, missed


def test_a_million_missed_occurrences_cost_no_more_than_a_look() -> None:
    made = Simulation(1, {"when": {"cron": "* * * * * *"}, "missed": "all", "concurrency": "allow"})
    made.time += 2_000_000
    made.step()
    assert len(made.store.made) == 10 + 16  # missed, and within the 15 s that are on time
    assert made.schedule.status.seen == made.now // 1


def test_a_clock_that_is_put_back_runs_nothing_twice_and_says_so() -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "concurrency": "allow"})
    made.go(600)
    before = len(made.store.made)
    made.skew = -3600
    made.go(900)
    assert len(made.store.made) == before
    assert made.schedule.status.text.startswith("the clock is behind the latest occurrence")
    made.once()


def test_a_clock_that_was_wrong_for_a_while_does_not_stop_a_schedule_for_good() -> None:
    """It was a day ahead. Somebody who does not want to wait for a day resumes the schedule."""
    made = Simulation(1, {"when": {"every": "1m"}, "concurrency": "allow"})
    made.go(300)
    made.skew = 86400
    made.go(60)
    made.skew = 0
    made.go(120)
    before = len(made.store.made)
    made.go(300)
    assert len(made.store.made) == before
    assert "the clock is behind" in made.schedule.status.text
    kept = made.schedule
    meta = kept.metadata.model_copy(update={"annotations": {RESUMED: "1"}})
    made.store.update(kept.model_copy(update={"metadata": meta}))
    made.go(190)
    made.once()
    assert len(made.store.made) == before + 3


def test_a_clock_that_is_put_forward_has_missed_what_lies_between() -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "missed": "once", "concurrency": "allow"})
    made.go(90)
    made.skew = 86400
    made.step()
    assert made.schedule.status.started == 2
    assert made.schedule.status.missed == 1440


def test_what_falls_into_a_pause_or_a_halt_is_not_made_up_for() -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "missed": "all", "concurrency": "allow"})
    for _ in range(10):
        made.time += 60
        made.step(halted="an incident")
    made.go(61)
    assert made.schedule.status.started == 1
    assert made.schedule.status.notes[0].text == "halted: an incident"
    kept = made.schedule
    made.store.update(
        kept.model_copy(update={"spec": kept.spec.model_copy(update={"paused": True})})
    )
    made.go(600)
    assert made.schedule.status.started == 1
    assert made.schedule.status.text == "paused"
    assert made.schedule.status.next is None
    kept = made.schedule
    made.store.update(
        kept.model_copy(update={"spec": kept.spec.model_copy(update={"paused": False})})
    )
    made.time += 7200  # no engine looked at the change
    made.go(61)
    assert made.schedule.status.started == 2


def test_an_experiment_that_cannot_run_is_told_once_per_occurrence() -> None:
    made = Simulation(1, {"when": {"every": "1m"}, "experiment": "nobody"})
    made.go(121)
    past = made.schedule.status.history
    assert [each.outcome for each in past] == ["not made", "not made"]
    assert past[0].reason == "there is no stored experiment 'nobody'"
    assert made.schedule.status.creating == []


def test_history_keeps_the_latest_of_either_kind() -> None:
    made = Simulation(3, {"when": {"every": "10s"}, "history": {"succeeded": 2, "failed": 1}})
    made.longest = 5
    made.go(600)
    for run in made.store.active():
        made.store.end(run, Verdict.HELD)
    made.settle()
    kept = [run.status.verdict for run in made.store.runs() if run.status.ended]
    assert kept.count(Verdict.HELD) == 2
    assert len(kept) == 3
    status = made.schedule.status
    assert sum(past.kept and past.outcome != "active" for past in status.history) == 3
    assert len(status.history) <= scheduling.FORGOTTEN + 4 < status.started
    made.accounted()


def test_nothing_is_read_again_while_nothing_changes() -> None:
    made = Simulation(1, {"when": {"every": "1h"}})
    made.step()
    made.store.summaries = None  # type: ignore[assignment,method-assign]
    for _ in range(5):
        made.time += 10
        assert made.step() == pytest.approx(made.now + 60) or made.step() <= START + 3600
    assert scheduling.reconcile(made.schedule, Facts(), made.now).actions == ()
