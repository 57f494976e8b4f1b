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
LATE = SECOND // 100
"""A request that leaves later than this counts as late by the generator's own fault."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one driver sends: `rate` (open model) or `concurrency` (closed model), never both."""

    driver: str
    options: dict[str, Any]  # the driver's own, with secrets filled in
    duration: int  # of sending; answers may come up to `timeout` later
    rate: float = 0.0  # turns per second at the beginning; 0: closed model
    concurrency: int = 0
    stages: tuple[tuple[int, float], ...] = ()  # how long, and the rate or users at the end
    think: int = 0  # the pause of a user of the closed model
    think_most: int = 0
    timeout: int = 10 * SECOND
    feed: dict[str, Any] | None = None
    connections: int = 0  # how many at most; 0: as many as needed
    in_flight: int = 10_000  # what is due beyond this is not sent, and counted as an error
    index: int = 0  # which generator this is
    workers: int = 1  # of how many
    seed: int = 0  # what is drawn from, by all generators alike

    def shares(self, workers: int) -> list[Self]:
        """The same load dealt out to processes: each takes every n-th request, or user."""
        if not self.rate:
            most = max([self.concurrency, *(round(value) for _, value in self.stages)])
            workers = max(1, min(workers, most))
        shared, rest = divmod(self.connections, workers)
        return [
            replace(
                self,
                index=index,
                workers=workers,
                in_flight=max(1, self.in_flight // workers),
                connections=max(1, shared + (index < rest)) if self.connections else 0,
            )
            for index in range(workers)
        ]

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        fields: dict[str, Any] = json.loads(line)
        fields["stages"] = tuple((at, value) for at, value in fields["stages"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of request within a second."""

    sent: int
    ok: int
    errors: int
    latency: str  # an encoded histogram; empty: nothing was counted


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
    late: int = 0  # how many requests left more than LATE behind their time
    cpu: tuple[int, ...] = ()  # processor time that each generator used, ns
    parts: dict[str, Part] = field(default_factory=dict[str, Part])

    def to_line(self) -> str:
        return json.dumps({"tick": asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        fields: dict[str, Any] = {
            **data,
            "waiting": tuple(data["waiting"]),
            "cpu": tuple(data["cpu"]),
            "parts": {name: Part(**part) for name, part in data["parts"].items()},
        }
        return cls(**fields)


def sum_errors(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several parts by kind, the most frequent kind first."""
    total: dict[str, int] = {}
    for part in parts:
        for kind, count in part.items():
            total[kind] = total.get(kind, 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
