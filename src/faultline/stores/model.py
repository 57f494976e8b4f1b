"""What every store does: get, list, watch and write with a resource version.

A write names the version that it has read; if somebody wrote meanwhile it is refused (`Stale`), and
the writer reads again. So two engines can never both believe that they moved a run. Spec and status
are written separately: people write the one, the engine the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar

from faultline.errors import FaultlineError, Refused
from faultline.kernel import clock

if TYPE_CHECKING:
    from faultline.api.model import Resource

R = TypeVar("R", bound="Resource")
_T = TypeVar("_T")


class Stale(Refused):
    """Somebody else wrote the resource since it was read; read it again."""

    code = "stale"
    retry = True
    http_status = 409

    @classmethod
    def since(cls, kind: str, name: str, read: int, now: int) -> Stale:
        """It was read at one version and is at another one now."""
        return cls(f"{kind} {name!r} was read at version {read} and is now at {now}")


class Fenced(Refused):
    """Another engine has taken the resource over; whoever had it must not go on with it."""

    code = "fenced"
    http_status = 409


class Exists(Refused):
    """There is a resource of that kind and name already."""

    code = "exists"
    http_status = 409


class Expired(Refused):
    """The changes since that version are no longer kept; list again and watch from there."""

    code = "expired"
    retry = True
    http_status = 410


class StoreFailed(FaultlineError):
    """The store could not be reached, or it broke off; read again before you repeat a write."""

    code = "store-failed"
    retry = True
    http_status = 503


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a resource, as a watcher sees it."""

    type: Literal["put", "deleted"]
    kind: str
    name: str
    version: int  # of the store; watch on from here
    resource: Resource | None  # as it is now; None if it was deleted, or not asked for


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list shows of a resource: the whole document is not read for it."""

    kind: str
    name: str
    uid: str
    version: int
    created: float  # seconds since 1970, as the next two
    started: float | None
    ended: float | None
    experiment: str
    creator: str
    phase: str  # empty for what has none, as the next two
    verdict: str
    reason: str
    labels: dict[str, str]

    @property
    def cursor(self) -> str:
        """Where it stands in the order of all: give it as `after` for what follows."""
        return f"{self.created!r}/{self.name}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which resources are meant: those to which all of it applies. Times are seconds since 1970."""

    labels: dict[str, str] = field(default_factory=dict[str, str])  # all of these
    names: tuple[str, ...] = ()  # one of these; empty for any, as in the next ones
    experiments: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    since: float | None = None  # made then or later
    until: float | None = None  # made before then
    ended: bool | None = None  # only those that have ended, or only those that have not
    text: str = ""  # found in name, experiment, creator, labels or reason, whatever the case


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to carry out one resource for a while.

    `fence` grows each time somebody takes it. What is written with it is refused once somebody else
    has it. It is not enough for what is done elsewhere: look at `sure` before each such step, and
    give the number along to whatever can refuse an older one.
    """

    kind: str
    name: str
    uid: str
    holder: str
    fence: int
    until_ns: int  # CLOCK_BOOTTIME of this machine; until then nobody else can have it

    @property
    def sure(self) -> bool:
        """Whether it cannot have been given to anybody else yet."""
        return clock.now() < self.until_ns


@dataclass(frozen=True, slots=True)
class Claimed(Generic[_T]):
    """A resource that was taken, as it was at that moment."""

    resource: _T
    lease: Lease


class Store(Protocol):
    """The operations of a store. A kind is its class or, where that is enough, its name."""

    @property
    def shared(self) -> bool:
        """Whether engines of other hosts may use it too."""
        ...

    def create(self, resource: R, given: Resource | None = None) -> R:
        """Add a resource and give it uid, version and time; raises Exists.

        With `given` only while that is as it was read, or else raises Stale: for who makes things
        because it says so, and may have stood still since.
        """
        ...

    def restore(self, resource: R) -> R:
        """Add a resource of another store with its uid, time and status; raises Exists."""
        ...

    def get(self, kind: type[R], name: str) -> R:
        """One resource, complete; raises UnknownName."""
        ...

    def list(
        self, kind: type[R], labels: dict[str, str] | None = None, limit: int | None = None
    ) -> list[R]:
        """Resources of a kind that have all these labels, newest first; complete, so for many of
        them `summaries` is the better question.
        """
        ...

    def summaries(
        self,
        kind: type[Resource] | str,
        where: Filter | None = None,
        limit: int | None = None,
        after: str = "",
    ) -> Sequence[Summary]:
        """What is to be known of many resources, newest first, from behind the cursor `after`."""
        ...

    def count(self, kind: type[Resource] | str, where: Filter | None = None) -> int:
        """How many there are."""
        ...

    def update(self, resource: R) -> R:
        """Write labels, annotations and spec; raises Stale or UnknownName. The status stays."""
        ...

    def write_status(self, resource: R, fence: int | None = None) -> R:
        """Write the status alone; raises Stale or UnknownName, and Fenced if `fence` is given and
        somebody has taken the resource with a higher one. It is given by itself for what was
        claimed here.
        """
        ...

    def delete(self, kind: type[Resource] | str, name: str, version: int | None = None) -> None:
        """Remove it, with `version` only if that is still its version; or raises Stale."""
        ...

    def version(self) -> int:
        """The version of the latest change of anything."""
        ...

    def watch(
        self,
        since: int,
        kind: type[Resource] | str | None = None,
        timeout: float | None = None,
        *,
        light: bool = False,
    ) -> Iterator[Event]:
        """Changes after version `since` in order, waiting up to `timeout` seconds for each next
        one; with `light` without the resources themselves.

        Several changes of one resource may be seen as the last of them. Raises Expired.
        """
        ...

    def claim(
        self,
        kind: type[R],
        limit: int,
        holder: str,
        ttl: float,
        where: Filter | None = None,
    ) -> Sequence[Claimed[R]]:
        """Take up to `limit` resources that have not ended and that nobody holds, oldest first, for
        `ttl` seconds. `holder` names one engine for as long as it runs.

        From then on this object writes their status with the number of the lease by itself, also
        when the lease is lost: what an engine does that was overtaken must be refused. Only
        `release` ends that.
        """
        ...

    def renew(self, leases: Sequence[Lease], ttl: float) -> Sequence[Lease]:
        """Keep them for `ttl` more seconds; those that somebody else has are left out."""
        ...

    def release(self, lease: Lease) -> None:
        """Let somebody else have it at once; nothing happens if somebody has."""
        ...

    def close(self) -> None: ...


class Closing:
    """A store that is closed behind a block, and knows what was claimed by it."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}  # the fences of what was claimed here, by uid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections. Idempotent."""
        raise NotImplementedError

    def let_go(self, lease: Lease) -> None:
        """It is claimed no more, unless it was claimed anew since."""
        if self.held.get(lease.uid) == lease.fence:
            del self.held[lease.uid]


def kind_name(kind: type[Any] | str) -> str:
    """The name of a kind, as it stands in documents."""
    return kind if isinstance(kind, str) else kind.model_fields["kind"].default
