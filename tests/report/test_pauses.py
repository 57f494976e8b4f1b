"""A run that was paused: bands over everything, a sentence, and lengths that say so."""

from __future__ import annotations

import re

import pytest

from faultline.api.graph_status import Pause, paused
from faultline.api.repeat import FoundTarget, Repeat
from faultline.api.run import Run
from faultline.report import annotations, render, telling, words
from faultline.report.markdown import markdown
from faultline.report.narrate import story
from faultline.report.panels import timeline


@pytest.fixture
def halted(complete: Run) -> Run:
    """Paused twice while the fault acted, and once after it."""
    start = complete.status.started or 0.0
    times = ((12.0, 14.0, "lunch"), (16.0, 16.5, ""), (27.0, 28.0, "again"))
    complete.status.pauses = [Pause(at=start + a, until=start + b, why=w) for a, b, w in times]
    return complete


def test_every_row_and_every_curve_shows_when_it_was_paused(halted: Run) -> None:
    drawn = timeline(story(halted))
    assert [bar.label for bar in drawn.pauses] == [
        "paused for 2.00 s: lunch", "paused for 500 ms", "paused for 1.00 s: again",
    ]  # fmt: skip
    assert all(0 < bar.width < 10 for bar in drawn.pauses)
    page = render.html(halted)
    bands = page.count('class="x w paused"')
    plots = sum(len(panel.plots) for panel in drawn.panels)
    begun = sum(row.start is not None for row in drawn.rows)
    assert bands == 3 * (plots + begun + 1)
    assert "paused: nothing new began" in page


def test_lengths_name_what_of_them_was_paused(halted: Run) -> None:
    told = story(halted)
    assert told.idle() == pytest.approx(3.5)
    assert told.idle(13.0, 16.2) == pytest.approx(1.2)
    assert told.idle(None, 3.0) == 0.0
    drawn = timeline(told)
    wait = next(phase for phase in drawn.phases if phase.name == "wait")
    assert wait.idle == pytest.approx(2.5)
    rows = {row.label: row for row in drawn.rows}
    assert rows["look"].idle == pytest.approx(2.5)
    assert rows["ask"].idle == 0.0
    whole = words.lasting(told.length, 3.5)
    assert whole.endswith("(3.50 s of it paused)")
    for text in (render.html(halted), render.text(halted), markdown(halted)):
        assert whole in " ".join(text.replace("\\", "").split())


def test_the_story_says_what_went_on_meanwhile(halted: Run) -> None:
    said = {each.text: each for each in telling.told(story(halted))}
    text = "The run was paused for 2.00 s: lunch; slow-db, busy went on meanwhile."
    assert said[text].at == pytest.approx(12.0)
    assert "The run was paused for 1.00 s: again." in said, "by then the fault was gone"
    halted.status.pauses[-1].until = None
    halted.status.ended = None
    assert any("and never went on" in each.text for each in telling.told(story(halted)))
    start = halted.status.started or 0.0
    halted.status.pauses = [Pause(at=start + n, until=start + n + 0.5) for n in range(9)]
    assert "It was paused 4 more times." in {e.text for e in telling.told(story(halted))}


def test_without_a_pause_nothing_is_said_of_one(run: Run) -> None:
    page = render.html(run)
    assert 'class="x w paused"' not in page
    assert "of it paused" not in page
    assert "paused" not in render.text(run)


def test_pauses_are_regions_in_grafana(halted: Run) -> None:
    found = [each for each in annotations.every(halted) if "paused" in each.tags]
    assert [each.text for each in found] == ["paused: lunch", "paused:", "paused: again"]
    assert found[0].end - found[0].time == 2000


def test_time_in_which_nothing_began_is_counted_once() -> None:
    pauses = [Pause(at=10.0, until=20.0), Pause(at=30.0)]
    assert paused(pauses, 0.0, 9.0) == 0.0
    assert paused(pauses, 15.0, 35.0) == 10.0
    assert paused([], 0.0, 9.0) == 0.0


def test_the_seed_the_targets_and_what_is_repeated_are_told(held: Run) -> None:
    plain = render.text(held)
    assert "Seed" not in plain
    spec = held.spec.model_copy(update={"seed": 4711, "repeat": Repeat(run="web-latency-1")})
    held = held.model_copy(update={"spec": spec})
    held.status.faults[0].target = FoundTarget(kind="process", words="process 812 (nginx)")
    text, page = render.text(held), render.html(held)
    assert re.search(r"Seed +4711", text)
    assert "It repeats web-latency-1." in text
    assert "process 812 (nginx)" in text
    for part in ("with its seed 4711", "--seed 4711", "process 812 (nginx)", "web-latency-1"):
        assert part in page
    assert f"faultline replay {held.metadata.name}" in page
