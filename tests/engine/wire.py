"""The network between an engine and its store: what is said may be late, lost or long ago.

Every call of the store is a place where time may pass, where others may act meanwhile, and where
the engine may be killed, before and after the store has done what it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from faultline.stores.model import Claimed, Event, Filter, Lease, Stale, StoreFailed, Summary

if TYPE_CHECKING:
    from tests.engine.replica import Replica

T = TypeVar("T")
LAG = 2.0
"""Seconds by which what is read may be behind."""


class Killed(BaseException):
    """The engine was killed: nothing of it goes on, not even what cleans up."""


@dataclass
class Weather:
    """How often a call goes wrong, from 0 to 1."""

    lost: float = 0.0  # it never arrived
    unheard: float = 0.0  # it was done, and the answer was lost
    old: float = 0.0  # what is read is not the latest
    conflict: float = 0.0  # somebody else wrote at that moment
    slow: float = 0.0  # whoever called waits; the rest of its engine goes on
    frozen: float = 0.0  # the whole engine stands still
    kill: float = 0.0
    cut: float = 0.0  # the store is out of reach for a while


class Wire:
    """A store as seen through the network."""

    shared = True

    def __init__(self, store: Any, replica: Replica) -> None:
        self.store = store
        self.replica = replica
        self.life = replica.life
        self.claimed: dict[str, int] = {}

    def close(self) -> None:
        self.store.close()

    # ------------------------------------------------------------------ one call

    def _call(self, work: Callable[[], T], *, checked: bool = False) -> T:
        replica, cluster, weather = self.replica, self.replica.cluster, self.replica.weather
        self._alive()
        if cluster.calm:
            return work()
        self._hold_up(weather)
        if replica.is_cut:
            raise StoreFailed("the store is out of reach")
        if cluster.chance(weather.cut):
            replica.cut_off(cluster.choice([1.0, 6.0, 20.0, 60.0]))
        if cluster.chance(weather.lost):
            raise StoreFailed("the connection was refused")
        if checked and cluster.chance(weather.conflict):
            raise Stale("somebody else wrote it")
        done = work()
        self._hold_up(weather)
        if replica.is_cut or cluster.chance(weather.unheard):
            raise StoreFailed("the connection broke off")
        return done

    def _hold_up(self, weather: Weather) -> None:
        cluster, replica = self.replica.cluster, self.replica
        if cluster.chance(weather.slow):
            cluster.meanwhile(cluster.choice([0.01, 0.3, 3.0, 12.0]), self._lives)
        if cluster.chance(weather.frozen):
            replica.freeze(cluster.choice([0.5, 8.0, 16.0, 40.0]))
            cluster.meanwhile(replica.frozen_for, self._lives)
        if cluster.chance(weather.kill):
            replica.kill()
        self._alive()

    def _lives(self) -> bool:
        return self.replica.life == self.life

    def _alive(self) -> None:
        if not self._lives():
            raise Killed

    # ------------------------------------------------------------------ read

    def _past(self, kind: Any, name: str) -> Any | None:
        """What a reader sees that lags behind."""
        cluster = self.replica.cluster
        if cluster.calm or not cluster.chance(self.replica.weather.old):
            return None
        past = cluster.shelf.older(kind if isinstance(kind, str) else kind.__name__, name, LAG)
        return cluster.choice(past) if past else None

    def get(self, kind: Any, name: str) -> Any:
        return self._call(lambda: self._past(kind, name) or self.store.get(kind, name))

    def list(self, kind: Any, labels: Any = None, limit: Any = None) -> list[Any]:
        return self._call(lambda: self.store.list(kind, labels, limit))

    def summaries(
        self, kind: Any, where: Filter | None = None, limit: Any = None, after: str = ""
    ) -> Sequence[Summary]:
        return self._call(lambda: self.store.summaries(kind, where, limit, after))

    def count(self, kind: Any, where: Filter | None = None) -> int:
        return self._call(lambda: self.store.count(kind, where))

    def version(self) -> int:
        return self._call(self.store.version)

    def watch(self, since: int, *_: Any, **__: Any) -> Iterator[Event]:
        return self._call(lambda: self.store.watch(since))

    # ------------------------------------------------------------------ write

    def create(self, resource: Any, given: Any = None) -> Any:
        return self._call(lambda: self.replica.cluster.created(self.store.create(resource, given)))

    def restore(self, resource: Any) -> Any:
        return self._call(lambda: self.replica.cluster.created(self.store.restore(resource)))

    def update(self, resource: Any) -> Any:
        wrote = self.replica.cluster.wrote
        return self._call(lambda: wrote(self.store.update(resource)), checked=True)

    def write_status(self, resource: Any, fence: int | None = None) -> Any:
        def write() -> Any:
            written = self.replica.cluster.wrote(self.store.write_status(resource, fence))
            name = resource.metadata.name
            if name in self.claimed:
                holds = self.replica.cluster.fence(name)
                assert holds == self.claimed[name], "it was written by who holds it no more"
            return written

        return self._call(write, checked=True)

    def delete(self, kind: Any, name: str, version: int | None = None) -> None:
        self._call(lambda: self.store.delete(kind, name, version))

    # ------------------------------------------------------------------ leases

    def claim(
        self, kind: Any, limit: int, holder: str, ttl: float, where: Filter | None = None
    ) -> Sequence[Claimed[Any]]:
        taken = self._call(lambda: self.store.claim(kind, limit, holder, ttl, where))
        self.claimed.update({each.lease.name: each.lease.fence for each in taken})
        return taken

    def renew(self, leases: Sequence[Lease], ttl: float) -> Sequence[Lease]:
        return self._call(lambda: self.store.renew(leases, ttl))

    def release(self, lease: Lease) -> None:
        self._call(lambda: self.store.release(lease))
