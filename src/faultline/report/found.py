"""What a search found: its points as numbers, ready to be drawn, and as texts for every page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faultline.api.graph_status import NodeStatus
from faultline.api.search import SearchPoint, SearchSpec, SearchState, Value, number_of
from faultline.errors import InvalidParameter
from faultline.report import words
from faultline.report.words import Answer

ANSWERS: dict[str, Answer] = {
    "found": Answer("good", "✓", "found"),
    "all borne": Answer("good", "✓", "all borne"),
    "none borne": Answer("bad", "✗", "none borne"),
    "open": Answer("warn", "⊘", "open"),
    "contradicted": Answer("bad", "!", "contradicted"),
    "not measured": Answer("unknown", "?", "not measured"),
    "": Answer("plain", "…", "not ended"),
}
TRIALS: dict[str, Answer] = {
    "held": Answer("good", "✓", "held"),
    "broke": Answer("bad", "✗", "broke"),
    "no answer": Answer("unknown", "?", "no answer"),
}
HEADS = ("Value", "Held", "Share", "Surely between", "Fitted")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at one value; shares from 0 to 1."""

    value: str
    number: float | None  # in the unit of its kind; None where it cannot be read
    held: int
    broke: int
    no_answer: int
    share: float | None
    low: float
    high: float
    fitted: float | None

    @property
    def tried(self) -> str:
        """`6 of 7`, and how many trials gave no answer."""
        count = self.held + self.broke
        told = f"{self.held} of {count}" if count else words.NONE
        return f"{told}, {self.no_answer} without an answer" if self.no_answer else told

    @property
    def cells(self) -> tuple[str, ...]:
        """The line of the table that every page shows."""
        known = self.held + self.broke > 0
        between = f"{_percent(self.low)} and {_percent(self.high)}" if known else words.NONE
        return self.value, self.tried, _percent(self.share), between, _percent(self.fitted)


@dataclass(frozen=True, slots=True)
class TrialStory:
    """One trial in the order in which they were made."""

    value: str
    outcome: str
    seconds: float
    text: str

    @property
    def answer(self) -> Answer:
        return words.answer(TRIALS, self.outcome)


@dataclass(frozen=True, slots=True)
class SearchStory:
    """One search: what was asked, what was seen, what was found."""

    node: str
    parameter: str
    asked: str  # in a sentence
    answer: Answer
    text: str
    why: str = ""
    borne: str = ""
    not_borne: str = ""
    pinned: str = ""
    estimate: str = ""
    share: float = 0.5  # of the trials, at which a value counts as borne
    monotone: bool = True
    seen: tuple[Seen, ...] = ()
    trials: tuple[TrialStory, ...] = ()
    spec: SearchSpec | None = None

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The interval in short pairs."""
        known = (
            ("Borne", self.borne),
            ("Not borne", self.not_borne),
            ("Probably", self.estimate),
            ("Pinned", self.pinned),
        )
        return tuple((name, value) for name, value in known if value)


def searches(nodes: Sequence[NodeStatus]) -> tuple[SearchStory, ...]:
    """Of every node that searches and has begun to."""
    return tuple(
        _search(node, node.search)
        for node in nodes
        if node.search is not None and (node.search.result or node.search.trials)
    )


def _search(node: NodeStatus, state: SearchState) -> SearchStory:
    spec, found = state.spec, state.result
    tried = tuple(TrialStory(str(t.value), t.outcome, t.seconds, t.text) for t in state.trials)
    if found is None:
        text = f"{words.plural(len(tried), 'trial')} so far"
    else:
        text = found.text or node.text
    return SearchStory(
        node=node.name,
        parameter=spec.parameter_name if spec else "value",
        asked=_asked(spec),
        answer=words.answer(ANSWERS, found.answer if found else ""),
        text=text,
        why=found.why if found else "",
        borne=_text(found.borne) if found else "",
        not_borne=_text(found.not_borne) if found else "",
        pinned=_text(found.pinned) if found else "",
        estimate=found.estimate if found else "",
        share=float(spec.share) / 100 if spec else 0.5,
        monotone=found.monotone if found else True,
        seen=tuple(_seen(point) for point in found.curve) if found else (),
        trials=tried,
        spec=spec,
    )


def _asked(spec: SearchSpec | None) -> str:
    if spec is None:
        return ""
    share = _percent(float(spec.share) / 100)
    return (
        f"{spec.parameter_name} from {spec.low} to {spec.high}, to within {spec.tolerance}; borne "
        f"is what at least {share} of the trials bear, held for {words.span(spec.hold / 1e9)} "
        f"by {', '.join(spec.probes)}"
    )


def _seen(point: SearchPoint) -> Seen:
    return Seen(
        str(point.value),
        number(point.value),
        point.held,
        point.broke,
        point.no_answer,
        point.share,
        point.low,
        point.high,
        point.fitted,
    )


def number(value: Value | None) -> float | None:
    """A value in the unit of its kind; None where it is no quantity."""
    if value is None or value == "":
        return None
    try:
        return number_of(value)
    except InvalidParameter:
        return None


def _text(value: Value | None) -> str:
    return "" if value is None else str(value)


def _percent(share: float | None) -> str:
    return words.NONE if share is None else f"{share * 100:.0f} %"
