"""What a kind of change must be able to do, and the closed set of kinds.

The set is closed because undo must not depend on code that may be gone: a third party's fault
composes these or runs a declared executable. Every method must be callable at any crash point:
`undo` and `presence` may not rely on `made`, which is only a hint that a crash can have swallowed;
they find what is ours by its mark (uid and step) and by `prior`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from faultline.changes.model import Change, Outcome, Presence, mark
from faultline.errors import TargetGone

if TYPE_CHECKING:
    from faultline.kernel.netlink import Netlink

Data = dict[str, Any]


@dataclass(slots=True)
class Context:
    """Everything a change may use: opened before the fault, so that it works inside it."""

    uid: str
    index: int
    deadline: int  # CLOCK_BOOTTIME ns
    netlink: Netlink | None = None  # a route socket in the place's network namespace
    run: str = ""  # the store's folder for what a reboot may lose: locks, sockets, live statistics
    code: str = ""  # the folder of the frozen code that workers are started from
    inside: Data = field(default_factory=dict[str, Any])  # the place, as the record keeps it
    root_fd: int | None = None  # the place's root directory, where that is not ours
    handed: list[int] = field(
        default_factory=list[int]
    )  # descriptors opened for this step by `hold`

    @property
    def root(self) -> int | None:
        """A descriptor that paths of this place are walked from; None for our own root.

        Raises TargetGone where the place has a root of its own and is not there any more.
        """
        if self.inside.get("rooted") and self.root_fd is None:
            raise TargetGone(f"{self.inside.get('name') or 'the target'} has ended")
        return self.root_fd

    @property
    def mark(self) -> str:
        return mark(self.uid, self.index)

    @property
    def stats(self) -> str:
        """The file in which a worker of this step publishes what it measures."""
        return f"{self.run}/stats/{self.uid}-{self.index}" if self.run else ""


@dataclass(frozen=True, slots=True)
class Found:
    """Something of ours that a scan met: enough to undo it without any journal."""

    uid: str
    index: int
    change: Change
    prior: Data
    where: str


class Kind(ABC):
    """One kind of reversible change."""

    name: ClassVar[str]
    survives_reboot: ClassVar[bool] = False
    instant: ClassVar[bool] = False  # nothing lasts, so there is nothing to undo
    watched: ClassVar[bool] = False  # has a pulse

    def takes(self, spec: Data) -> float:
        """Seconds that an undo may rightly take beyond the usual; others wait that much longer."""
        return 0.0

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        """What this change needs for itself alone; a second fault that claims it is refused."""
        return frozenset()

    @abstractmethod
    def capture(self, spec: Data, ctx: Context) -> Data:
        """Look at what is there before. Raises Refused, Unsupported, TargetGone."""

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        """Open the descriptors that undo will need; called by each keeper before `apply`."""
        return []

    def loads(self, spec: Data) -> str:
        """The worker that `apply` will start; it is loaded while the fault is written down and the
        keepers take it. Empty: none.
        """
        return ""

    @abstractmethod
    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        """Make the change and mark it. Returns a hint of what was made."""

    def pulse(self, spec: Data, ctx: Context) -> int | None:
        """A number that changes many times a second as long as what this change needs is alive.

        For changes that do harm without it (a filter that leads packets to a process): when the
        number stands still the keepers undo the fault before its time. None: nothing to watch now.
        Asked by the keepers several times a second: quick, touching nothing, never blocking.
        """
        return None

    @abstractmethod
    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        """Look at what stands there now; touches nothing."""

    @abstractmethod
    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        """Put back what is still ours and check it; leave alone what is not. Idempotent."""

    @abstractmethod
    def describe(self, spec: Data) -> tuple[str, str]:
        """Two sentences for people: what is changed, and how it is undone."""

    @abstractmethod
    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        """What a person would type to undo this by hand; argument lists."""

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        """Find what carries our mark, with no journal; files are looked for in `folders`."""
        return iter(())


def kinds() -> MutableMapping[str, Kind]:
    """The closed set, by name; each is loaded when it is looked up."""
    from faultline.changes import catalogue

    return catalogue.KINDS
