"""The nodes of a run: where each stands, how often it was tried, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from faultline.api.model import Model, NodeName, StatusModel
from faultline.api.search import SearchState


class NodeState(StrEnum):
    """Where a node stands; it moves backwards only to be tried again."""

    WAITING = "waiting"
    RUNNING = "running"
    RELEASED = "released"  # it runs in the background: what follows has begun
    ENDED = "ended"


LaxState = Annotated[NodeState, Field(strict=False)]
Outcome = Literal["succeeded", "failed", "skipped", "aborted"]
Answer = Literal["held", "broke", "not effective", "not measured", "error"]


class Attempt(StatusModel):
    """One attempt at a node."""

    started: float
    """Seconds since 1970."""
    ended: float | None = None
    verdict: Answer | None = None
    text: str = ""


class NodeStatus(StatusModel):
    """One node of a run."""

    name: str
    type: str
    parent: str = ""
    """The node that holds it; empty at the top."""
    state: LaxState = NodeState.WAITING
    outcome: Outcome | None = None
    """How it ended; `skipped` by its condition or its branch, `aborted` because the run was."""
    verdict: Answer | None = None
    """One of the five, where it measured something; never rounded."""
    text: str = ""
    """Why, for people."""
    started: float | None = None
    """When its first attempt began, seconds since 1970."""
    ended: float | None = None
    attempts: list[Attempt] = Field(default_factory=list[Attempt])
    began_ns: int | None = None
    """When the present attempt began, CLOCK_BOOTTIME; later by as long as the run was paused."""
    due_ns: int | None = None
    """When it is tried again, CLOCK_BOOTTIME."""
    mark: int = 0
    """What its kind counts: measurements taken when it began, the case that was chosen."""
    finish: bool = False
    """Whether it is to come to its end: what it stood behind is over."""
    cancelled: str = ""
    """Why everything that it holds is given up; empty if it is not."""
    answer: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What came back from where its present attempt was carried out: `verdict`, `text`."""
    output: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What expressions can use: of a task its code and text, of an experiment its run."""
    reused: str = ""
    """The run from which its result was taken over; empty where it was carried out."""
    search: SearchState | None = None
    """What a search has tried and found."""

    @property
    def over(self) -> bool:
        return self.state is NodeState.ENDED

    @property
    def passed(self) -> bool:
        """Whether what follows may begin."""
        released = self.state is NodeState.RELEASED
        return released or self.outcome in ("succeeded", "skipped")


class Approval(Model):
    """What a person said to a node that asked."""

    node: NodeName
    """The node."""
    answer: Literal["continue", "refuse"]
    """Whether to go on."""
    by: str = ""
    """Who."""
    at: float = 0.0
    """When, seconds since 1970."""
    text: str = ""
    """Why."""


class Pause(StatusModel):
    """A time in which nothing new began."""

    at: float
    """Seconds since 1970."""
    why: str = ""
    until: float | None = None
    """When it went on; None while it lasts, or where the run ended paused."""


def paused(pauses: Sequence[Pause], start: float, end: float) -> float:
    """For how many seconds between two instants nothing new began."""
    return sum(
        max(0.0, (end if each.until is None else min(each.until, end)) - max(each.at, start))
        for each in pauses
    )
