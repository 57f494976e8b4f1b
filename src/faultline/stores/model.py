"""What every store does: get, list, watch and write with a resource version.

A write names the version that it has read; if somebody wrote meanwhile it is refused (`Stale`), and
the writer reads again. So two engines can never both believe that they moved a run. Spec and status
are written separately: people write the one, the engine the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from faultline.api.model import Resource
from faultline.errors import Refused

R = TypeVar("R", bound=Resource)


class Stale(Refused):
    """Somebody else wrote the resource since it was read; read it again."""

    code = "stale"
    retry = True
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


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a resource, as a watcher sees it."""

    type: Literal["put", "deleted"]
    kind: str
    name: str
    version: int  # of the store; watch on from here
    resource: Resource | None  # as it is now; None if it was deleted


class Store(Protocol):
    """The operations of a store."""

    def create(self, resource: R) -> R:
        """Add a resource and give it uid, version and time; raises Exists."""
        ...

    def get(self, kind: type[R], name: str) -> R:
        """One resource; raises UnknownName."""
        ...

    def list(
        self, kind: type[R], labels: dict[str, str] | None = None, limit: int | None = None
    ) -> list[R]:
        """Resources of a kind that have all these labels, newest first."""
        ...

    def update(self, resource: R) -> R:
        """Write labels, annotations and spec; raises Stale or UnknownName. The status stays."""
        ...

    def write_status(self, resource: R) -> R:
        """Write the status alone; raises Stale or UnknownName."""
        ...

    def delete(self, kind: type[Resource], name: str, version: int | None = None) -> None:
        """Remove it, with `version` only if that is still its version; or raises Stale."""
        ...

    def version(self) -> int:
        """The version of the latest change of anything."""
        ...

    def watch(
        self, since: int, kind: type[Resource] | None = None, timeout: float | None = None
    ) -> Iterator[Event]:
        """Changes after version `since` in order, waiting up to `timeout` seconds for each next
        one.

        Several changes of one resource may be seen as the last of them. Raises Expired.
        """
        ...

    def close(self) -> None: ...
