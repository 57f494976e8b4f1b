"""Which version the cluster had when: what a server that lags behind would know. No I/O.

Versions of all objects are counted by one clock, that of etcd, so one number says what is known of
everything. A server whose versions are no numbers cannot be told to lag.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from faultline.kube.proxy.active import Active
from faultline.kube.proxy.faults import Stale

EVERY = 0.2  # seconds between two looks at the version
KEPT = 600.0


class Timeline:
    """Versions by the time at which they were seen."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, version: str) -> None:
        """The cluster has this version now."""
        now = self._clock()
        if version.isdigit() and (not self._seen or int(version) >= self._seen[-1][1]):
            self._seen.append((now, int(version)))
        while self._seen and self._seen[0][0] < now - KEPT:
            self._seen.popleft()

    def view(self, active: Active, params: Stale) -> tuple[int, float] | None:
        """The version that is known under this fault now, and how old that knowledge is in seconds.
        None while nothing has been seen yet.
        """
        now = self._clock()
        behind = params.behind.seconds if params.behind is not None else None
        since = active.begun if behind is None else max(active.begun, now - behind)
        found: int | None = None
        for at, version in self._seen:
            if found is not None and at > since:
                break
            found = version
        return None if found is None else (found, now - since)
