"""A run of a graph: its nodes, and what a search found."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.api.run import Run
from faultline.api.search import SearchPoint, SearchSpec
from faultline.report import render
from faultline.report.chart import TALL, WIDE
from faultline.report.found import SearchStory, searches
from faultline.report.found_chart import picture
from faultline.report.markdown import markdown
from faultline.report.narrate import story
from faultline.report.panels import Row, timeline
from faultline.report.words import NONE


def search(run: Run) -> SearchStory:
    return story(run).searches[0]


def rows(run: Run) -> dict[str, Row]:
    return {row.label: row for row in timeline(story(run)).rows}


def state(run: Run) -> Any:
    found = next(n.search for n in run.status.nodes if n.search)
    assert found.result is not None
    assert found.spec is not None
    return found


def test_a_search_is_told_on_every_page(complete: Run) -> None:
    for text in (render.html(complete), render.text(complete), markdown(complete)):
        for part in ("latency 23ms is borne, 32ms is not", "6 of 6", "1 of 5", "20ms", "27"):
            assert part in text.replace("\\", "")


def test_the_picture_has_points_intervals_and_the_threshold(complete: Run) -> None:
    drawn = picture(search(complete))
    assert drawn is not None
    assert drawn.dots.count("M") == drawn.bars.count("V") == 3
    assert drawn.line.startswith("M")
    xs = [int(x) for x in re.findall(r"M(\d+) ", drawn.dots)]
    assert xs == sorted(xs)
    assert drawn.interval == (xs[0], xs[1] - xs[0])
    assert drawn.pinned is not None
    assert 0 < drawn.pinned < xs[0]
    assert {tick.label for tick in drawn.xs} >= {"20ms", "50ms"}


def test_an_end_of_the_interval_that_is_not_known_is_the_edge(complete: Run) -> None:
    found = state(complete).result
    found.not_borne = None
    drawn = picture(search(complete))
    assert drawn is not None
    assert drawn.interval is not None
    assert sum(drawn.interval) == WIDE
    found.answer = "all borne"
    drawn = picture(search(complete))
    assert drawn is not None
    assert drawn.interval is None, "the threshold lies outside of what was searched"


def test_where_smaller_is_worse_the_open_end_is_on_the_left(complete: Run) -> None:
    found = state(complete)
    found.result.not_borne = None
    found.spec.__dict__["worse"] = "smaller"
    drawn = picture(search(complete))
    assert drawn is not None
    assert drawn.interval is not None
    assert drawn.interval[0] == 0


def test_a_value_without_an_answer_has_no_point(complete: Run) -> None:
    found = state(complete).result
    found.curve = [SearchPoint(value="40ms", held=0, broke=0, no_answer=3)]
    assert picture(search(complete)) is None
    assert search(complete).seen[0].cells[1:4] == (f"{NONE}, 3 without an answer", NONE, NONE)
    assert "How much is borne" in render.html(complete)


def test_a_search_that_has_not_ended_shows_its_trials(complete: Run) -> None:
    state(complete).result = None
    told = search(complete)
    assert (told.text, told.answer.word) == ("12 trials so far", "not ended")
    assert "12 trials so far" in render.html(complete)
    state_before = next(n.search for n in complete.status.nodes if n.search)
    assert state_before is not None
    state_before.trials = []
    assert searches(complete.status.nodes) == ()


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1)), min_size=1, max_size=20))
def test_everything_lies_on_the_picture(points: list[tuple[int, float]]) -> None:
    from faultline.report.found import Seen
    from faultline.report.words import Answer

    spec = SearchSpec(parameter="n", low=0, high=1000, probes=["p"])
    seen = tuple(Seen(str(n), float(n), 1, 1, 0, s, s / 2, 1.0, s) for n, s in points)
    drawn = picture(SearchStory("x", "n", "", Answer("good", "", "open"), "", seen=seen, spec=spec))
    assert drawn is not None
    for x, y in re.findall(r"[ML](-?\d+) (-?\d+)", drawn.dots + drawn.line + drawn.bars):
        assert 0 <= int(x) <= WIDE
        assert 0 <= int(y) <= TALL
    assert all(0 <= tick.place <= 100 for tick in drawn.xs)


def test_skipped_aborted_and_groups_look_different(complete: Run) -> None:
    found = rows(complete)
    assert found["all"].style == "group"
    assert found["late"].stopped
    assert found["other"].style.split() == ["group", "never", "skipped"]
    assert found["left"].bars == ()
    assert [bar.tone for bar in found["flaky"].bars] == ["bad", "bad"]
    assert found["flaky"].notes == ("2 attempts",)


def test_trials_stand_below_their_search_with_their_values(complete: Run) -> None:
    one = complete.status.faults[0]
    complete.status.faults = [
        one.model_copy(update={"name": f"how-much_{i}", "node": "how-much"}) for i in range(1, 13)
    ]
    found = rows(complete)
    assert found["how-much_1"].kind == "network.delay 23ms"
    assert (found["how-much_1"].answer.word, found["how-much_12"].answer.word) == ("Held", "Broke")
    assert found["how-much_12"].depth == 1


def test_time_points_have_a_row_of_their_own(complete: Run, held: Run) -> None:
    assert [tip.name for tip in timeline(story(complete)).points][:2] == ["effective", "impact"]
    assert timeline(story(held)).points == ()


def test_the_story_tells_what_the_nodes_did(complete: Run) -> None:
    page = render.html(complete)
    for text in (
        "ask failed: exit 1.",
        "flaky failed after 2 attempts: exit code 1.",
        "late was given up.",
        "other was skipped: its condition is false.",
        "way went on with right.",
        "how-much: latency 23ms is borne, 32ms is not.",
    ):
        assert f"<span>{text}</span>" in page
    assert "left was skipped" not in page, "the branch has said so"


def test_the_table_of_nodes_has_outcome_verdict_and_output(complete: Run) -> None:
    found = {node.name: node for node in story(complete).nodes}
    flaky = found["flaky"]
    assert flaky.answer is not None
    assert (flaky.ending.word, flaky.answer.word) == ("failed", "Error")
    assert flaky.output == (("code", "1"), ("json", '{"a": 5.0}')), "the text is that JSON"
    assert found["never"].ending.word == "never begun"
    assert (found["inner"].depth, found["ask"].depth) == (1, 2)


def test_the_terminal_lists_the_nodes(complete: Run) -> None:
    text = render.text(complete)
    assert re.search(r"^  all +✓ succeeded$", text, re.MULTILINE)
    assert re.search(r"^      ask +✗ failed, broke: exit 1$", text, re.MULTILINE)
    assert re.search(r"^  flaky +✗ failed, error, 2 attempts: exit code 1$", text, re.MULTILINE)


@pytest.mark.parametrize("count", [7, 30])
def test_many_faults_that_did_as_asked_are_told_shortly(held: Run, count: int) -> None:
    one = held.status.faults[0]
    held.status.faults = [one.model_copy(update={"name": f"f{i}"}) for i in range(count)]
    held.status.faults[3].residue = ["a rule"]
    text = render.text(held)
    assert "Faults that were effective and are gone" in text
    assert text.count("  proof ") == 1
    assert "Fault f3:" in text
    assert ("faults that did what was asked" in render.html(held)) == (count > 12)
