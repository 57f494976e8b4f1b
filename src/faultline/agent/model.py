"""What the agent decides from, and what it decides: plain data.

Documents stay the JSON that they came as: this process loads no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Document = dict[str, Any]


def part(of: Document, name: str) -> Document:
    """An object within a document; an empty one where there is none."""
    found: Document = of.get(name) or {}
    return found


def parts(of: Document, name: str) -> list[Document]:
    """A list of objects within a document."""
    found: list[Document] = of.get(name) or []
    return found


def sides(params: Document) -> Document:
    """The addresses that a fault of the network goes by: what alone may change while it lasts."""
    found = {name: params.get(name) for name in ("source", "destination")}
    return {name: given for name, given in found.items() if given and isinstance(given, list)}


Verb = Literal["inject", "measure", "recover", "readdress"]

CREATOR = "agent:"
"""What the creator of every fault that an agent made begins with; others it never touches."""
LEASE = "agent"
"""The lease that its faults end with (faultline.changes.lease)."""


@dataclass(frozen=True, slots=True)
class Found:
    """One fault as the journal of the host has it."""

    uid: str  # of the record: that of the entry, or `UID.N` for the container that followed
    state: str  # prepared, applying, active, undoing, ended
    boot: str
    deadline: int  # CLOCK_BOOTTIME, nanoseconds
    created: float  # seconds since 1970
    ours: bool = True  # made by an agent
    ended: float | None = None
    end: str = ""
    note: str = ""
    reading: Document | None = None
    sides: Document = field(default_factory=dict[str, Any])  # the addresses that it goes by

    @property
    def entry(self) -> str:
        """The uid of the entry of the host that asked for it."""
        return self.uid.partition(".")[0]

    @property
    def round(self) -> int:
        """1, and one more for each container that followed."""
        return int(self.uid.partition(".")[2] or 1)

    @property
    def open(self) -> bool:
        return self.state != "ended"


@dataclass(frozen=True, slots=True)
class Tried:
    """An action that has failed."""

    until: int  # CLOCK_BOOTTIME at which it may be tried again
    error: str
    final: bool = False  # whether the answer would be the same again
    gone: bool = False  # whether the target was not there


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when it is decided."""

    boot: str
    clock: int  # CLOCK_BOOTTIME, nanoseconds: what deadlines are kept on
    now: float  # seconds since 1970, as the host's clock has it
    looked: bool = False  # whether the journal has been read since the agent was started
    found: tuple[Found, ...] = ()
    running: frozenset[tuple[Verb, str]] = frozenset()  # actions under way, by entry
    tried: Mapping[tuple[Verb, str], Tried] = field(default_factory=dict[tuple[Verb, str], Tried])
    lease: bool = True  # whether the API server has been reached within the lease
    stopping: bool = False  # whether the agent was told to end
    about: Document = field(default_factory=dict[str, Any])  # of the host, as in its status
    unwanted: tuple[str, ...] = ()  # marks that no journal knows


@dataclass(frozen=True, slots=True)
class Action:
    """Something that somebody has to do; asking twice does no harm."""

    verb: Verb
    uid: str  # of the record
    order: Document = field(default_factory=dict[str, Any])

    @property
    def key(self) -> tuple[Verb, str]:
        return self.verb, self.uid.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to report, what is to be done now, and when to look again."""

    status: Document
    actions: tuple[Action, ...]
    wake: int | None  # CLOCK_BOOTTIME, nanoseconds
