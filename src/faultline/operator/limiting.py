"""A connection that is not asked more often than was agreed, and that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from faultline.kubeapi.model import Answer, Rest, Wrapped


class Budget:
    """So many requests a second on average, for all connections together (a token bucket)."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._left, self._at = float(burst), clock()
        self._lock = threading.Lock()
        self.spent = 0

    def take(self) -> float:
        """Take one; the seconds to wait before it is used."""
        with self._lock:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            self._left -= 1
            self.spent += 1
            return max(0.0, -self._left / self._rate)


class Limited(Wrapped):
    """A `Rest` that waits for its turn."""

    def __init__(self, rest: Rest, budget: Budget) -> None:
        super().__init__(rest)
        self._budget = budget

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: str = "application/json",
        timeout: float = 30.0,
    ) -> Answer:
        wait = self._budget.take()
        if wait > 0:
            time.sleep(wait)
        return self._rest.request(method, path, query, body, content, timeout)

    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[Iterator[bytes]]:
        self._budget.take()
        return self._rest.lines(path, query, timeout)
