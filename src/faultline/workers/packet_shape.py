"""What happens to which packet and when: pure, with the clock and the random numbers of the caller.

`Shape` says what was asked, `Line` is the line that packets wait in. Nothing here reads a clock or
a descriptor, so that tests run it with a virtual clock and a seed.

The order is that of a real path: a packet is duplicated or lost, then damaged, then waits for its
turn on the wire (rate), then travels (delay, jitter). Correlated choices repeat the choice before
with the probability asked, else choose afresh, so that the share asked is kept exactly at any
correlation (the formula of netem(8) changes it).
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final, NamedTuple, Self

from faultline.errors import InvalidParameter

DISTRIBUTIONS: Final = ("uniform", "normal", "pareto", "paretonormal")
CHECKSUMS: Final = ("wrong", "fixed")
_SECOND: Final = 10**9
_LEAST_BACKLOG: Final = 64 * 1024
_PARETO: Final = 3.0  # the shape of netem's Pareto distribution, here with the mean removed
_PARETO_MEAN: Final = _PARETO / (_PARETO - 1)
_PARETO_DEVIATION: Final = (_PARETO / ((_PARETO - 1) ** 2 * (_PARETO - 2))) ** 0.5
_FARTHEST: Final = 4.0  # standard deviations, as in netem's tables


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked of the packets: nanoseconds, bytes, bits per second, shares from 0 to 1."""

    delay: int = 0
    jitter: int = 0  # uniform: up to this much more or less; others: the standard deviation
    distribution: str = "uniform"
    delay_correlation: float = 0.0
    keep_order: bool = False  # a packet waits for those before it, as on one wire
    reorder: float = 0.0  # this share of the packets does not wait for the delay
    reorder_correlation: float = 0.0
    gap: int = 0  # every so many packets one goes at once, with probability `reorder` if given
    rate: int = 0  # bits per second on the wire, ethernet header included; 0: no limit
    burst: int = 0  # bytes that may leave at once after an idle time
    backlog: int = 0  # bytes that wait for their turn; 0: 400 ms of the rate, at least 64 KiB
    peak: int = 0  # bits per second at which a burst leaves; 0: as fast as it comes
    min_burst: int = 0  # bytes of it that may leave at once; 0: one packet
    loss: float = 0.0
    loss_correlation: float = 0.0
    duplicate: float = 0.0
    duplicate_correlation: float = 0.0
    corrupt: float = 0.0
    corrupt_correlation: float = 0.0
    checksum: str = (
        "wrong"  # of a corrupted packet: "wrong", it is dropped; "fixed", it is delivered
    )
    queue_packets: int = 100_000  # held at once; more are dropped and counted
    queue_bytes: int = 256 * 1024 * 1024

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Self:
        """Read and check; InvalidParameter names the field."""
        known = {field.name for field in fields(cls)}
        for name in document:
            if name not in known:
                raise InvalidParameter(f"shape.{name}", document[name], f"one of {sorted(known)}")
        shape = cls(**document)  # pyright: ignore[reportArgumentType] - checked below
        shape.check()
        return shape

    def check(self) -> None:
        """Raise InvalidParameter for a value of the wrong type or out of bounds."""
        for field in fields(self):
            value: object = getattr(self, field.name)
            name, kind = f"shape.{field.name}", str(field.type)
            if kind == "int" and (
                not isinstance(value, int) or isinstance(value, bool) or value < 0
            ):
                raise InvalidParameter(name, value, "an integer from 0")
            if kind == "bool" and not isinstance(value, bool):
                raise InvalidParameter(name, value, "true or false")
            if kind == "float" and not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise InvalidParameter(name, value, "a share from 0 to 1")
        if self.distribution not in DISTRIBUTIONS:
            raise InvalidParameter(
                "shape.distribution", self.distribution, f"one of {DISTRIBUTIONS}"
            )
        if self.checksum not in CHECKSUMS:
            raise InvalidParameter("shape.checksum", self.checksum, f"one of {CHECKSUMS}")
        if self.queue_packets == 0 or self.queue_bytes == 0:
            raise InvalidParameter("shape.queue_packets", 0, "room for at least one packet")

    @property
    def wants_segments(self) -> bool:
        """Whether packets must come one by one, for a choice or a time on the wire of their own."""
        return any((self.loss, self.duplicate, self.corrupt, self.reorder, self.gap, self.rate))

    @property
    def longest(self) -> int:
        """Nanoseconds that a packet is held at most."""
        spread = round(self.jitter * (1 if self.distribution == "uniform" else _FARTHEST))
        turn = self.backlog_limit * 8 * _SECOND // self.rate if self.rate else 0
        return self.delay + spread + turn

    @property
    def backlog_limit(self) -> int:
        """Bytes that may wait for their turn on the wire."""
        return self.backlog or max(_LEAST_BACKLOG, self.rate // 20)


class Chance:
    """A yes or no with a probability, repeating the answer before with another."""

    def __init__(self, share: float, correlation: float, rng: random.Random) -> None:
        self._share = share
        self._correlation = correlation
        self._random: Callable[[], float] = rng.random
        self._last: bool | None = None

    def draw(self) -> bool:
        if self._last is not None and self._correlation and self._random() < self._correlation:
            return self._last
        self._last = self._random() < self._share
        return self._last


class Jitter:
    """The travel time of one packet after another: delay and its variation, never negative."""

    def __init__(self, shape: Shape, rng: random.Random) -> None:
        self._delay = shape.delay
        self._jitter = shape.jitter
        self._kind = shape.distribution
        # A first-order process of normal numbers; for the other distributions each is mapped to its
        # rank, which turns a correlation r of uniform ones into (6 / pi) * asin(r / 2): this is its
        # inverse. For Pareto numbers the correlation is approximate.
        asked = shape.delay_correlation
        self._keep = asked if self._kind == "normal" else 2 * math.sin(math.pi * asked / 6)
        self._fresh = math.sqrt(max(0.0, 1 - self._keep**2))
        self._gauss = rng.gauss
        self._random = rng.random
        self._last = rng.gauss(0, 1)

    def draw(self) -> int:
        if not self._jitter:
            return self._delay
        return max(0, self._delay + round(self._unit() * self._jitter))

    def _unit(self) -> float:
        """The next difference in units of the jitter."""
        if self._kind == "uniform" and not self._keep:
            return 2 * self._random() - 1
        self._last = self._keep * self._last + self._fresh * self._gauss(0, 1)
        if self._kind == "normal":
            return max(-_FARTHEST, min(_FARTHEST, self._last))
        centred = math.erf(self._last / math.sqrt(2))  # uniform from -1 to 1
        if self._kind == "uniform":
            return centred
        left = max((1 - centred) / 2, 1e-12)  # the share of numbers above this one
        pareto = (left ** (-1 / _PARETO) - _PARETO_MEAN) / _PARETO_DEVIATION
        if self._kind == "paretonormal":
            pareto = 0.25 * self._gauss(0, 1) + 0.75 * pareto
        return max(-_FARTHEST, min(_FARTHEST, pareto))


class Wire:
    """The turn of a packet on a wire of some rate: a token bucket as a virtual clock."""

    def __init__(self, shape: Shape) -> None:
        self._rate = shape.rate
        self._credit = self.time(shape.burst)
        self._limit = self.time(shape.backlog_limit)
        self._free = -(2**63)  # when the wire has sent everything that it was given
        self._peak = shape.peak
        self._peak_credit = shape.min_burst * 8 * _SECOND // shape.peak if shape.peak else 0
        self._peak_free = -(2**63)  # the same at the peak rate

    def time(self, size: int) -> int:
        """Nanoseconds that so many bytes take."""
        return size * 8 * _SECOND // self._rate if self._rate else 0

    def send(self, now: int, size: int) -> int | None:
        """When a packet given now has been sent whole; None when too much waits before it."""
        if not self._rate:
            return now
        if self._free - now > self._limit:
            return None
        self._free = max(self._free, now - self._credit) + self.time(size)
        due = max(now, self._free)
        if self._peak:
            takes = size * 8 * _SECOND // self._peak
            began = max(self._peak_free, due - max(self._peak_credit, takes))
            self._peak_free = began + takes
            due = max(due, self._peak_free)
        return due


class Held(NamedTuple):
    """A packet that waits; ordered by its time, then by its arrival."""

    due: int
    number: int
    arrived: int
    size: int
    packet: bytes


@dataclass(slots=True)
class Counts:
    """What has happened so far, in packets as they came (a large one counts once)."""

    matched: int = 0
    released: int = 0
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0  # sent before packets that were there earlier, by choice (not by jitter)
    overflowed: int = 0  # dropped because too much was held


class Line:
    """The packets that are held, and the rules by which they got there."""

    def __init__(
        self,
        shape: Shape,
        rng: random.Random,
        corrupt: Callable[[bytes, random.Random], bytes],
    ) -> None:
        self.shape = shape
        self.counts = Counts()
        self.bytes = 0
        self._rng = rng
        self._damage = corrupt
        self._heap: list[Held] = []
        self._number = 0
        self._since_gap = 0
        self._latest = 0
        self._wire = Wire(shape)
        self._travel = Jitter(shape, rng)
        self._loss = Chance(shape.loss, shape.loss_correlation, rng)
        self._double = Chance(shape.duplicate, shape.duplicate_correlation, rng)
        self._corrupt = Chance(shape.corrupt, shape.corrupt_correlation, rng)
        self._early = Chance(shape.reorder, shape.reorder_correlation, rng)

    def __len__(self) -> int:
        return len(self._heap)

    def take(self, now: int, packet: bytes, size: int) -> None:
        """Decide the fate of a packet of `size` bytes on the wire that arrived at `now`."""
        shape, counts = self.shape, self.counts
        counts.matched += 1
        copies = 1
        if shape.duplicate and self._double.draw():
            counts.duplicated += 1
            copies += 1
        if shape.loss and self._loss.draw():
            counts.lost += 1
            copies -= 1
        for _ in range(copies):
            self._hold(now, packet, size)

    def _hold(self, now: int, packet: bytes, size: int) -> None:
        shape, counts = self.shape, self.counts
        full = len(self._heap) >= shape.queue_packets or self.bytes + size > shape.queue_bytes
        due = None if full and self._heap else self._wire.send(now, size)
        if due is None:
            counts.overflowed += 1
            return
        if shape.corrupt and self._corrupt.draw():
            counts.corrupted += 1
            packet = self._damage(packet, self._rng)
        if self._goes_early():
            counts.reordered += 1
        else:
            due += self._travel.draw()
            if shape.keep_order:
                due = self._latest = max(due, self._latest)
        self._number += 1
        self.bytes += size
        heapq.heappush(self._heap, Held(due, self._number, now, size, packet))

    def _goes_early(self) -> bool:
        shape = self.shape
        if shape.gap:
            self._since_gap += 1
            if self._since_gap < shape.gap:
                return False
            if shape.reorder and not self._early.draw():
                return False
            self._since_gap = 0
            return True
        return bool(shape.reorder) and self._early.draw()

    def next_due(self) -> int | None:
        """When the next packet has to leave."""
        return self._heap[0].due if self._heap else None

    def release(self, now: int) -> Held | None:
        """The next packet whose time has come, None when there is none."""
        if not self._heap or self._heap[0].due > now:
            return None
        held = heapq.heappop(self._heap)
        self.bytes -= held.size
        self.counts.released += 1
        return held
