from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from faultline.api.experiment import Experiment
from faultline.api.run import Run, Sample
from faultline.report import render
from faultline.report.narrate import story

HERE = Path(__file__).parent
Read = Callable[[str], Run]

HOSTILE = (
    '<script>alert("1")</script><img src=x onerror=alert(2)>\'"]]>{{7*7}}</style>ñ 漢 🙂 \u2028'
)
VOID = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.headings and {"h1", "h2"} & set(self.stack):
            self.headings[-1] += data
        if not {"script", "style"} & set(self.stack):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def embedded(page: str, name: str) -> Any:
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL
    )
    assert found
    return json.loads(found[1])


def test_every_verdict_is_said_in_words_and_with_a_sign(run: Run) -> None:
    page = Page(render.html(run))
    verdict = str(run.status.verdict).capitalize()
    assert page.headings[0].startswith(f"{verdict}: ")
    assert run.status.reason in page.headings[0]
    parts = ["What happened", "Hypothesis", "Asked against measured", "What happened when"]
    found = [
        name
        for name in page.headings
        if name not in ("Found, located, mended", "How much is borne")
    ]
    assert found[1:5] == parts
    assert {"Proof of recovery", "Environment", "Run it again"} <= set(page.headings)


def test_the_page_is_well_formed_and_ids_are_unique(run: Run) -> None:
    page = Page(render.html(run))
    assert page.stack == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in page.elements:
        assert attrs.get("aria-labelledby", ids[0]) in ids


def test_the_page_asks_for_nothing_outside_itself(run: Run) -> None:
    page = Page(render.html(run))
    for tag, attrs in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
            assert not attrs.get(name) or attrs[name] == "data:,", (tag, attrs)
    assert "@import" not in render.html(run)
    assert "url(" not in render.html(run).split("</style>")[0]


def test_the_same_document_gives_the_same_bytes(run: Run) -> None:
    assert render.html(run) == render.html(run.model_copy(deep=True))
    assert render.text(run) == render.text(run)


def test_the_json_is_the_document_and_reads_back_equal(run: Run) -> None:
    assert Run.model_validate_json(render.json(run)) == run
    assert embedded(render.html(run), "document") == json.loads(render.json(run))
    assert json.loads(render.json(run))["apiVersion"] == "faultline.dev/v1alpha1"


def test_the_embedded_experiment_is_one_that_can_be_run_again(run: Run) -> None:
    document = yaml.safe_load(story(run).experiment)
    again = Experiment.model_validate_json(json.dumps(document))
    assert again.spec == run.spec.resolved


def test_every_fault_shows_asked_measured_and_method(run: Run) -> None:
    text = Page(render.html(run)).text
    for fault in run.status.faults:
        reading = fault.reading or {}
        for key in ("asked", "measured", "method", "reason"):
            assert reading.get(key, "") in text
        for change in fault.changes:
            assert change.describe in text
            assert change.undo in text
        for item in fault.residue:
            assert item in text


def test_an_unmeasured_effect_is_not_called_a_failure_or_a_success(recorded: Read) -> None:
    text = Page(render.html(recorded("run-not-measured"))).text
    assert "unmeasured" in text
    assert "no traffic matched" in text
    assert "22 not measured" in text


def fill(value: Any, hostile: str) -> Any:
    """Hostile text in every free text of a document; what the model restricts stays as it is."""
    if isinstance(value, BaseModel):
        for name, held in list(value.__dict__.items()):
            if type(held) is str and name not in (
                "api_version",
                "kind",
                "type",
                "interval",
                "unit",
            ):
                value.__dict__[name] = hostile
            else:
                value.__dict__[name] = fill(held, hostile)
        return value
    if isinstance(value, list):
        return [fill(item, hostile) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {f"{hostile}{i}": fill(item, hostile) for i, item in enumerate(value.values())}  # pyright: ignore[reportUnknownVariableType]
    return hostile if type(value) is str else value


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the text breaks patterns
def test_hostile_text_in_every_field_stays_text(run: Run) -> None:
    clean = Page(render.html(run))
    page = Page(render.html(fill(run, HOSTILE)))
    assert len(page.of("script")) == len(clean.of("script")) == 3
    assert page.of("img") == []
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")]
    assert "{{7*7}}" in page.text
    assert "漢 🙂" in page.text
    style = [attrs["style"] for _, attrs in page.elements if attrs.get("style")]
    assert all(re.fullmatch(r"[-\w:;.%]+", text or "") for text in style)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the text breaks patterns
def test_hostile_text_does_not_steer_a_terminal(run: Run) -> None:
    text = render.text(fill(run, "\x1b]0;owned\x07 \r\n\x9b31m\u202e"))
    assert not [c for c in text if c != "\n" and (ord(c) < 32 or 0x7F <= ord(c) < 0xA0)]
    assert "\u202e" not in text


def test_a_run_that_was_never_started_has_a_report(held: Run) -> None:
    empty = held.model_copy(update={"status": type(held.status)()})
    page = Page(render.html(empty))
    assert page.headings[0].startswith("Not finished: ")
    assert "No probe took a sample." in page.text
    assert render.text(empty)


def test_thousands_of_samples_stay_a_small_page(held: Run) -> None:
    start = held.status.started or 0.0
    probe = held.status.probes[0]
    probe.samples = [
        Sample(at=start + i / 1000, value=0.001 * (i % 97), ok=i % 5 > 0) for i in range(31_000)
    ]
    drawn = embedded(render.html(held), "drawn")["panels"][0]["series"][0]
    assert len(drawn) < 3000
    page = re.sub(
        r'<script type="application/json" id="document">.*?</script>', "", render.html(held)
    )
    assert len(page) < 400_000


def test_values_that_are_not_numbers_are_gaps_and_strict_json(held: Run) -> None:
    samples = held.status.probes[0].samples
    samples[5].value, samples[6].value = float("nan"), float("inf")
    page = render.html(held)
    assert "NaN" not in page.split('id="document">')[1].split("</script>")[0]
    values = [v for _, v in embedded(page, "drawn")["panels"][0]["series"][0]]
    assert None in values


def test_a_run_that_ended_early_says_why(held: Run) -> None:
    held.status.stopped = "the steady state did not hold"
    assert "Ended early: the steady state did not hold" in Page(render.html(held)).text
    assert "! Ended early: the steady state did not hold" in render.text(held)


def test_a_late_generator_is_named_as_doubtful(recorded: Read) -> None:
    late = Page(render.html(recorded("run-error"))).text
    assert "Read the latencies of shoppers with doubt" in late
    assert "Read the latencies of shoppers with doubt" in render.text(recorded("run-error"))
    assert "with doubt" not in Page(render.html(recorded("run-held"))).text


def test_a_relative_expectation_is_laid_around_the_value_before_the_fault(held: Run) -> None:
    probe = held.status.probes[0]
    spec = held.spec.resolved.probes[0]
    assert spec.expect is not None
    probe.initial = 0.004
    spec.expect.__dict__.update(interval="-10%,50%", relative="percent")
    told = story(held).probes[0]
    assert told.expected == "change -10 % to 50 %"
    assert (told.low, told.high) == (pytest.approx(0.0036), pytest.approx(0.006))


def test_a_wall_clock_that_was_set_during_the_run_is_named(held: Run) -> None:
    held.status.timeline[-1].boot_ns += 60 * 10**9
    assert "The wall clock was set during the run" in Page(render.html(held)).text


def test_the_figures_count_from_the_right_edges(broke: Run) -> None:
    told = story(broke)
    assert [round(f.time_to_effect or 0, 3) for f in told.faults] == [0.44, 1.3]
    assert [round(f.time_to_recovery or 0, 3) for f in told.faults] == [0.22, 0.7]
    assert told.discovered == pytest.approx(17.2)
    text = Page(render.html(broke)).text
    assert "7.16 s" in text
    assert "noticed at 17.20 s" in text


def test_what_is_left_behind_is_never_called_recovered(recorded: Read) -> None:
    text = render.text(recorded("run-error"))
    assert "1 thing of this fault still found after recovery" in text
    assert "nothing of this fault was found" not in text
    assert "0 of 1  1 thing left" in text


def test_a_recovery_that_nobody_checked_is_not_proof(held: Run) -> None:
    held.status.faults[0].recovered_at = None
    assert "not recorded that anybody looked" in Page(render.html(held)).text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_terminal_page_fits_its_width(run: Run, width: int) -> None:
    lines = render.text(run, width=width).splitlines()
    limit = max(width, 72)  # a table of key figures needs this much
    assert max(map(len, lines)) <= limit


def test_a_gap_of_the_terminal_curve_is_a_dot(recorded: Read) -> None:
    lines = render.text(recorded("run-not-measured")).splitlines()
    curve = next(line for line in lines if line.startswith("  lost-orders "))
    assert "··········" in curve


def test_the_recorded_runs_are_what_their_description_makes() -> None:
    made = runpy.run_path(str(HERE / "make_runs.py"))
    described = yaml.safe_load((HERE / "runs.yaml").read_text(encoding="utf-8"))["runs"]
    for name, wanted in described.items():
        document = made["Recorder"](name, wanted).document()
        recorded = (HERE / "data" / f"{name}.json").read_text(encoding="utf-8")
        assert Run.model_validate_json(json.dumps(document)) == Run.model_validate_json(recorded)
        assert "TEST DATA" in recorded
