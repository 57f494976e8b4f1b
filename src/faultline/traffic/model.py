"""What a generator is told and what it says: plain data, one line of JSON each.

Standard library only: the generator loads it, and every module more is time before the first
request. Times are nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to one URL: `rate` (open model) or `concurrency` (closed model), never both."""

    url: str
    duration: int  # of sending; answers may come up to `timeout` later
    rate: float = 0.0  # requests per second; 0: closed model
    concurrency: int = 0
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    timeout: int = 10 * SECOND
    verify: bool = True
    in_flight: int = 10_000  # what is due beyond this is not sent, and counted as an error
    phase: int = 0  # how long after the start the first request is due

    def shares(self, workers: int) -> list[Self]:
        """The same load dealt out to processes; the open model's requests stay evenly spaced."""
        if self.rate:
            return [
                replace(
                    self,
                    rate=self.rate / workers,
                    phase=self.phase + round(each * SECOND / self.rate),
                    in_flight=max(1, self.in_flight // workers),
                )
                for each in range(workers)
            ]
        whole, rest = divmod(self.concurrency, workers)
        counts = [whole + (each < rest) for each in range(workers)]
        return [replace(self, concurrency=count) for count in counts if count]

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Tick:
    """One second of one or of all generators: what was sent and what came back in it.

    An answer belongs to the second in which it arrived, a request to that in which it left.
    """

    index: int  # the second of the run: [index, index + 1)
    until: int  # ns from the start to the end of the tick, or of the sending if that came first
    sent: int
    ok: int
    errors: dict[str, int]  # by kind: timeout, refused, reset, status 503, ...
    waiting: tuple[int, ...]  # how long each unanswered request has waited, at the second's end
    latency: str  # an encoded histogram; empty: nothing was counted
    lag_max: int  # the generator's own lateness, intended to actual send time: the worst

    def to_line(self) -> str:
        return json.dumps({"tick": asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        fields: dict[str, Any] = {**data, "waiting": tuple(data["waiting"])}
        return cls(**fields)


def sum_errors(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several parts by kind, the most frequent kind first."""
    total: dict[str, int] = {}
    for part in parts:
        for kind, count in part.items():
            total[kind] = total.get(kind, 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
