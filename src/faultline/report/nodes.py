"""The nodes of a graph for a table: how each ended, what it answered, why, and what it gave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faultline.api.graph_status import NodeStatus
from faultline.report import words
from faultline.report.moments import Clock
from faultline.report.words import Answer

GROUPS = ("serial", "parallel", "branch", "foreach", "repeat")
_OUTPUT = 400  # characters of an output


@dataclass(frozen=True, slots=True)
class NodeStory:
    """One node."""

    name: str
    type: str
    parent: str
    depth: int
    state: str
    outcome: str
    verdict: str
    text: str
    output: tuple[tuple[str, str], ...]
    started: float | None
    ended: float | None
    attempts: int
    reused: str

    @property
    def is_group(self) -> bool:
        return self.type in GROUPS

    @property
    def ending(self) -> Answer:
        """How it ended, or where it stands."""
        return words.answer(words.STATES, self.outcome or self.state)

    @property
    def answer(self) -> Answer | None:
        """Its verdict, if it has one."""
        return words.answer(words.VERDICTS, self.verdict) if self.verdict else None

    @property
    def took(self) -> float | None:
        known = self.started is not None and self.ended is not None
        return max(0.0, (self.ended or 0.0) - (self.started or 0.0)) if known else None

    @property
    def notes(self) -> tuple[str, ...]:
        told = [words.plural(self.attempts, "attempt")] if self.attempts > 1 else []
        return (*told, *([f"taken over from {self.reused}"] if self.reused else []))


def nodes(status: Sequence[NodeStatus], clock: Clock) -> tuple[NodeStory, ...]:
    """In the order in which they are read: what a node holds stands below it."""
    inside: dict[str, list[NodeStatus]] = {}
    names = {node.name for node in status}
    for node in status:
        holder = node.parent if node.parent in names and node.parent != node.name else ""
        inside.setdefault(holder, []).append(node)
    out: list[NodeStory] = []
    seen: set[str] = set()

    def below(holder: str, depth: int) -> None:
        for node in inside.get(holder, ()):
            if node.name not in seen:  # a document that somebody made up
                seen.add(node.name)
                out.append(_node(node, clock, depth))
                below(node.name, min(depth + 1, 8))

    below("", 0)
    return tuple(out)


def _node(node: NodeStatus, clock: Clock, depth: int) -> NodeStory:
    return NodeStory(
        name=node.name,
        type=node.type,
        parent=node.parent,
        depth=depth,
        state=str(node.state),
        outcome=node.outcome or "",
        verdict=node.verdict or "",
        text=node.text,
        output=_output(node),
        started=clock.maybe(node.started),
        ended=clock.maybe(node.ended),
        attempts=len(node.attempts),
        reused=node.reused,
    )


def _output(node: NodeStatus) -> tuple[tuple[str, str], ...]:
    """What expressions could use, without what is said elsewhere: a text that is that of the node,
    or that was read as JSON, and the values behind what was measured.
    """
    told: list[tuple[str, str]] = []
    for key, value in node.output.items():
        again = key == "text" and (value == node.text or node.output.get("json") is not None)
        if value is None or value == "" or again or (key, node.type) == ("values", "fault"):
            continue
        text = value if isinstance(value, str) else _plain(value)
        short = " ".join(text.split())
        told.append((key, short if len(short) <= _OUTPUT else f"{short[: _OUTPUT - 1]}…"))
    return tuple(told)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return words.significant(value, 4)
    return json.dumps(value, ensure_ascii=False)
