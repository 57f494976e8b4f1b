"""Small answers that the templates ask for: groups of panels, edges between lines, aims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faultline.report import words
from faultline.report.chart import Panel
from faultline.report.story import Judgement, ScoreLine, Story
from faultline.report.watched import Line, TargetStory
from faultline.report.words import Answer

_TITLE = 120  # characters of a heading
_OPEN = 2  # groups that are shown at once


@dataclass(frozen=True, slots=True)
class Group:
    """A heading over panels that can be folded."""

    title: str
    about: str
    open: bool
    shown: bool = True  # whether it has a panel


def groups(story: Story, panels: Sequence[Panel]) -> dict[str, Group]:
    """The targets and the logs, by the keys of their panels."""
    drawn = {each.group for each in panels}
    found: dict[str, Group] = {}
    for index, target in enumerate(story.targets):
        key = f"target{index}"
        first = index < _OPEN and not (target.is_host and len(story.targets) > 1)
        found[key] = Group(_title(target), about(target), first, key in drawn)
    found["logs"] = Group("Lines of the logs", "", open=True, shown="logs" in drawn)
    return found


def _title(target: TargetStory) -> str:
    if target.is_host:
        return "This host"
    name = target.words or target.name
    return name if len(name) <= _TITLE else f"{name[: _TITLE - 1]}…"


def about(target: TargetStory) -> str:
    """What is to be known beside the curves."""
    parts: list[str] = []
    if target.words and target.words != target.name and not target.is_host:
        parts.append(target.name)
    if target.cores is not None:
        parts.append(f"may use {words.plural_of(target.cores, 'core')}")
    if target.memory_limit is not None:
        parts.append(f"may use {words.amount(target.memory_limit, 'B')} of memory")
    if target.ended is not None:
        parts.append(f"gone at {words.moment(target.ended)}: {target.end}")
    elif target.end:
        parts.append(target.end)
    if target.restarts:
        parts.append(f"started anew {words.plural(len(target.restarts), 'time')}")
    if target.kills:
        parts.append(f"out of memory {words.plural(len(target.kills), 'time')}")
    if target.step > 1.5:
        parts.append(f"in steps of up to {words.span(target.step)}")
    if target.missing:
        parts.append(f"not read: {'; '.join(target.missing)}")
    if target.cost is not None:
        parts.append(f"looking at it took {words.amount(target.cost, 'ratio')} of a core")
    return " · ".join(parts)


def edges(story: Story) -> list[tuple[float, str]]:
    """When faults began and ended, in words."""
    found: list[tuple[float, str]] = []
    for fault in story.faults:
        named = (
            (fault.started, "is asked for"),
            (fault.effective, "is in effect"),
            (fault.recovered, "is gone"),
        )
        found += [(at, f"{fault.name} {text}") for at, text in named if at is not None]
    return sorted(found)


def edges_before(found: Sequence[tuple[float, str]], last: Line | None, line: Line) -> list[str]:
    """The edges that lie between two lines of a log."""
    if line.at is None:
        return []
    low = last.at if last is not None and last.at is not None else float("-inf")
    return [f"{words.moment(at)} {text}" for at, text in found if low < at <= line.at]


def aim(line: ScoreLine) -> Answer:
    """Whether an aim was reached."""
    if not line.measured:
        return Answer("unknown", "?", "not measured")
    if line.took is None:
        return Answer("bad", "✗", "never came")
    if line.took <= line.limit:
        return Answer("good", "✓", "in time")
    return Answer("bad", "✗", f"{words.span(line.took - line.limit)} late")


def judged(line: Judgement) -> Answer:
    """How a judgement came out."""
    if line.ok is None:
        return Answer("unknown", "?", "not measured")
    return Answer("good", "✓", "true") if line.ok else Answer("bad", "✗", "false")
