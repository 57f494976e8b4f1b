"""Nodes and searches in lines of text, for a terminal."""

from __future__ import annotations

from faultline.report.found import HEADS, SearchStory
from faultline.report.nodes import NodeStory
from faultline.report.story import Story

LONGEST = 60  # nodes; further ones are counted
_BAR = 12


def node_lines(story: Story) -> list[tuple[str, str]]:
    """What stands at the left and what is said of it. A part of what was skipped is left out."""
    skipped = {node.name for node in story.nodes if node.outcome == "skipped"}
    shown = [n for n in story.nodes if n.outcome != "skipped" or n.parent not in skipped]
    return [(f"{'  ' * node.depth}{node.name}", _said(node)) for node in shown]


def _said(node: NodeStory) -> str:
    answer = node.answer
    parts = [f"{node.ending.sign} {node.ending.word}".strip()]
    if answer is not None:
        parts.append(answer.word.lower())
    parts += node.notes
    told = ", ".join(parts)
    return f"{told}: {node.text}" if node.text else told


def curve_lines(search: SearchStory) -> list[str]:
    """The table of what was seen, with the share as a bar."""
    if not search.seen:
        return []
    rows = [(search.parameter, *HEADS[1:]), *(seen.cells for seen in search.seen)]
    bars = ["", *("█" * round((seen.share or 0.0) * _BAR) for seen in search.seen)]
    rooms = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    return [
        f"{row[0]:>{rooms[0]}}  {bar:<{_BAR}}  "
        + "  ".join(f"{cell:>{room}}" for cell, room in zip(row[1:], rooms[1:], strict=True))
        for row, bar in zip(rows, bars, strict=True)
    ]
