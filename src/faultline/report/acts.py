"""What the nodes of a graph did, in sentences; what their faults did is told elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faultline.report import words
from faultline.report.nodes import NodeStory
from faultline.report.story import Story

_MANY = 12  # nodes of a kind that are told one by one
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that happened; `at` is None where it belongs to no moment."""

    at: float | None
    text: str
    tone: str = ""


def told(story: Story) -> list[Sentence]:
    """In no order."""
    found = {search.node for search in story.searches}
    out = [_failed(n) for n in story.nodes if n.outcome == "failed" and not n.is_group]
    out = [*out[:_MANY], *_more(len(out) - _MANY, story)]
    out += _together(story.nodes, "skipped", "skipped", "")
    out += _together(story.nodes, "aborted", "given up", "warn")
    for node in story.nodes:
        if node.type == "branch" and node.outcome == "succeeded":
            out += _way(story, node)
        elif node.type == "approval" and node.outcome == "succeeded":
            why = f": {node.text}" if node.text else ""
            out.append(Sentence(node.ended, f"{node.name} was answered, and it went on{why}."))
        elif node.attempts > 1 and node.outcome == "succeeded" and node.name not in found:
            text = f"{node.name} succeeded at its attempt {node.attempts}."
            out.append(Sentence(node.ended, text))
    ends = {node.name: node.ended for node in story.nodes}
    for search in story.searches:
        text = f"{search.node}: {search.text}."
        out.append(Sentence(ends.get(search.node), text, search.answer.tone))
    return out


def _failed(node: NodeStory) -> Sentence:
    after = f" after {words.plural(node.attempts, 'attempt')}" if node.attempts > 1 else ""
    why = f": {node.text}" if node.text else ""
    tone = node.answer.tone if node.answer else "bad"
    return Sentence(node.ended, f"{node.name} failed{after}{why}.", tone)


def _more(count: int, story: Story) -> list[Sentence]:
    return [Sentence(story.length, f"{count} more nodes failed.", "bad")] if count > 0 else []


def _together(nodes: Sequence[NodeStory], outcome: str, word: str, tone: str) -> list[Sentence]:
    """Those that ended so for one reason at one time; what one of them holds is meant with it."""
    ended = {node.name for node in nodes if node.outcome == outcome}
    chosen = {node.name for node in nodes if node.type == "branch" and node.outcome == "succeeded"}
    groups: dict[tuple[float | None, str], list[str]] = {}
    for node in nodes:
        within = node.parent in ended or (outcome == "skipped" and node.parent in chosen)
        if node.outcome == outcome and not within:
            groups.setdefault((node.ended, node.text), []).append(node.name)
    out: list[Sentence] = []
    for (at, why), names in list(groups.items())[:_MANY]:
        shown = ", ".join(names[:_NAMED])
        shown += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        were = "was" if len(names) == 1 else "were"
        out.append(Sentence(at, f"{shown} {were} {word}{f': {why}' if why else ''}.", tone))
    return out


def _way(story: Story, branch: NodeStory) -> list[Sentence]:
    """Which way was gone."""
    gone = [n.name for n in story.nodes if n.parent == branch.name and n.outcome != "skipped"]
    if not gone:
        return [Sentence(branch.started, f"{branch.name} went none of its ways.")]
    return [Sentence(branch.started, f"{branch.name} went on with {', '.join(gone[:_NAMED])}.")]
