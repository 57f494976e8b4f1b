"""A connection that is not asked more often than was agreed, and that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager

from faultline.kubeapi.model import Answer, ApiError, Request, Rest, Wrapped
from faultline.operator.meters import Meters


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
    """A `Rest` that waits for its turn, and counts."""

    def __init__(self, rest: Rest, budget: Budget, meters: Meters | None = None) -> None:
        super().__init__(rest)
        self._budget = budget
        self._meters = meters or Meters()

    def send(self, asked: Request) -> Answer:
        wait = self._budget.take()
        if wait > 0:
            self._meters.waits(wait)
            time.sleep(wait)
        with self._meters.request(_verb(asked.method, asked.query or {})) as codes:
            answer = super().send(asked)
            codes.append(answer.status)
            return answer

    @contextmanager
    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> Generator[Iterator[bytes]]:
        self._budget.take()
        with self._meters.request("watch") as codes:
            try:
                with self._rest.lines(path, query, timeout) as lines:
                    codes.append(200)
                    yield lines
            except ApiError as error:
                codes.append(error.status)
                raise


def _verb(method: str, query: Mapping[str, str]) -> str:
    """As the rights of Kubernetes name it."""
    if method == "GET":
        return "list" if "limit" in query else "get"
    return {"POST": "create", "PUT": "update"}.get(method, method.lower())
