"""Two runs beside each other, nodes as bars, and the story in sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.api.run import Run, Verdict
from faultline.api.watching import TargetStatus
from faultline.report import gantt, telling
from faultline.report.compare import BETTER, OTHER, SAME, WORSE, Comparison, compare, previous
from faultline.report.moments import Clock
from faultline.report.narrate import story
from faultline.stores.sql import SqlStore

Read = Callable[[str], Run]


def kinds(found: Comparison) -> dict[str, str]:
    return {line.what: line.kind for line in found.lines}


def test_a_run_beside_itself_differs_in_nothing(run: Run) -> None:
    found = compare(run, run.model_copy(deep=True))
    assert {line.kind for line in found.lines} <= {SAME}
    assert found.changed == ()
    assert found.sentence.startswith("Nothing differs")


def test_what_became_worse_is_named_as_a_regression(recorded: Read) -> None:
    found = compare(recorded("run-broke"), recorded("run-held"))
    assert kinds(found)["verdict"] == WORSE
    assert kinds(found)["answers-fast"] == WORSE
    assert kinds(found)["answers-fast, median while in effect"] == WORSE
    assert found.sentence.startswith("Regression: verdict: held became broke")
    back = compare(recorded("run-held"), recorded("run-broke"))
    assert kinds(back)["answers-fast, median while in effect"] == BETTER
    assert not back.regressions


@pytest.mark.parametrize("verdict", [Verdict.ERROR, Verdict.NOT_EFFECTIVE, Verdict.NOT_MEASURED])
def test_no_answer_is_neither_better_nor_worse_than_broke(broke: Run, verdict: Verdict) -> None:
    other = broke.model_copy(deep=True)
    other.status.verdict = verdict
    assert kinds(compare(other, broke))["verdict"] == OTHER


def test_which_way_is_worse_comes_from_the_expectation(held: Run) -> None:
    other = held.model_copy(deep=True)
    for sample in other.status.probes[0].samples:
        sample.value = None if sample.value is None else sample.value * 3
    spec = other.spec.resolved.probes[0]
    assert spec.expect is not None
    assert kinds(compare(other, held))["answers-fast, median while in effect"] == WORSE
    spec.expect.__dict__.update(interval="50ms,")
    assert kinds(compare(other, held))["answers-fast, median while in effect"] == BETTER
    spec.expect.__dict__.update(interval="1ms,9s")
    line = "answers-fast, median while in effect"
    assert kinds(compare(other, held))[line] in (WORSE, OTHER)


def test_a_later_discovery_is_told_with_how_much(broke: Run) -> None:
    other = broke.model_copy(deep=True)
    other.status.discovered_at = (broke.status.discovered_at or 0) + 30
    line = next(x for x in compare(other, broke).lines if x.what == "time to discovery")
    assert (line.kind, line.told) == (WORSE, "30.0 s later")
    other.status.discovered_at = None
    line = next(x for x in compare(other, broke).lines if x.what == "time to discovery")
    assert (line.kind, line.told) == (WORSE, "it did not come this time")


def test_a_changed_experiment_or_place_is_told(held: Run) -> None:
    other = held.model_copy(deep=True)
    other.spec.resolved.faults[0].params["latency"] = "300ms"
    assert other.status.environment is not None
    other.status.environment.kernel = "7.0"
    found = compare(other, held).changed
    assert "the experiment: faults.0.params.latency" in found
    assert any(each.startswith("kernel: ") for each in found)


def test_the_run_before_is_of_the_same_experiment_and_has_ended(
    tmp_path: Path, recorded: Read
) -> None:
    def stored(store: SqlStore, name: str, **more: object) -> Run:
        run = recorded("run-held")
        run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"name": name})})
        spec = run.spec.model_copy(update=more) if more else run.spec
        made = store.create(run.model_copy(update={"spec": spec}))
        return store.write_status(made.model_copy(update={"status": run.status}))

    with SqlStore(tmp_path / "runs.db") as store:
        first = stored(store, "first")
        stored(store, "another", experiment="something-else")
        last = stored(store, "last")
        assert previous(store, first) is None
        found = previous(store, last)
        assert found is not None
        assert found.metadata.name == "first"


# ---------------------------------------------------------------------- bars


def test_nodes_stand_below_what_holds_them(complete: Run) -> None:
    bars = gantt.bars(complete.status, Clock(complete.status.started or 0.0))
    assert [(bar.label, bar.depth) for bar in bars][:5] == [
        ("all", 0),
        ("slow-net", 1),
        ("inner", 1),
        ("ask", 2),
        ("look", 2),
    ]
    assert [bar.state for bar in bars[:5]] == ["succeeded", "succeeded", "failed", "broke", "held"]
    again = bars[1]
    assert [part.style for part in again.parts] == ["attempt", "attempt"]
    assert again.notes == ("2 attempts",)
    assert [bar.label for bar in bars[-2:]] == ["slow-db", "busy"], "faults of no node"


def test_a_fault_of_a_node_is_its_bar(complete: Run) -> None:
    complete.status.faults[0].node = "slow-net"
    bar = next(b for b in story(complete).bars if b.label == "slow-net")
    assert bar.kind == "fault network.delay"
    assert [part.style for part in bar.parts] == ["rising", "active", "falling"]
    assert [mark.name for mark in bar.marks] == ["asked", "effective", "undoing", "gone"]


def test_nodes_that_hold_each_other_are_drawn_and_end(complete: Run) -> None:
    for node in complete.status.nodes:
        node.parent = "all" if node.name != "all" else "inner"
    assert len(story(complete).bars) >= 2


def test_a_run_without_a_graph_has_its_faults_as_bars(broke: Run) -> None:
    bars = story(broke).bars
    assert [(bar.label, bar.depth, bar.state) for bar in bars] == [
        ("slow-db", 0, "effective"),
        ("busy", 0, "effective"),
    ]


# ---------------------------------------------------------------------- sentences


def told(run: Run) -> str:
    return "\n".join(each.text for each in telling.told(story(run)))


def test_the_story_is_in_order_and_ends_with_the_verdict(run: Run) -> None:
    found = telling.told(story(run))
    stamps = [each.at for each in found if each.at is not None]
    assert stamps == sorted(stamps)
    assert run.status.reason in found[-1].text
    if str(run.status.verdict) != "held":
        assert "hypothesis held" not in told(run)


def test_what_the_targets_and_logs_show_is_told(complete: Run) -> None:
    text = told(complete)
    assert "container web: 1.79 cores busy, 0.28 before" in text
    assert "web logged 14 lines with words of trouble" in text
    assert "ERROR upstream timed out" in text
    assert "was started anew" in text


def test_nothing_is_told_of_a_target_that_stayed_as_it_was(held: Run) -> None:
    held.status.targets = [TargetStatus(name="host", kind="host")]
    assert "host" not in told(held)


def test_a_run_without_an_effect_says_that_nothing_was_tested(recorded: Read) -> None:
    assert "was not tested" in told(recorded("run-not-effective"))
    assert "could not be measured" in told(recorded("run-not-measured"))
    assert "So the hypothesis held" in told(recorded("run-held"))


def test_many_faults_are_told_together(held: Run) -> None:
    one = held.status.faults[0]
    held.status.faults = [one.model_copy(update={"name": f"f{i}"}) for i in range(40)]
    text = told(held)
    assert "40 faults were asked for" in text
    assert text.count("was asked for") == 0
