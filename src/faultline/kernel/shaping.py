"""What a queueing discipline is set to: netem and the token bucket, from plain data to bytes.

Layouts: linux/pkt_sched.h; meaning: tc-netem(8), tc-tbf(8). Times are nanoseconds, rates bits per
second, shares percent.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from faultline.kernel import netlink, tc
from faultline.kernel.netlink import Netlink

DISTRIBUTIONS = ("uniform", "normal", "pareto", "paretonormal")

_CORRELATION, _DELAY_DIST, _REORDER, _CORRUPT, _RATE = 1, 2, 3, 4, 6
_RATE64, _LATENCY64, _JITTER64, _PRNG_SEED = 8, 10, 11, 14
_TBF_PARMS, _TBF_RATE64, _TBF_PRATE64, _TBF_BURST, _TBF_PBURST = 1, 4, 5, 6, 7
_TABLE, _SCALE, _LARGEST = 4096, 8192, 32767
_TICK = 64
_U32 = 0xFFFFFFFF
_LINKLAYER_ETHERNET = 1
_PARETO = 3.0
_QUEUE_SECONDS = 0.4
_STEP = 1633


@dataclass(frozen=True, slots=True)
class Netem:
    """One netem. `jitter` is a standard deviation, or with `uniform` the largest difference.

    `reorder` percent of the packets skip the delay (with `gap` n only every n-th may). `limit` is
    the number of packets that it holds; 0 chooses one that does not drop without a rate, and with a
    rate a queue of 400 ms. `seed` makes its choices the same each time, from Linux 6.6 on; older
    kernels pass over it. 0: none.
    """

    delay: int = 0
    jitter: int = 0
    correlation: float = 0.0
    distribution: str = "uniform"
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    reorder_correlation: float = 0.0
    gap: int = 0
    rate: int = 0
    limit: int = 0
    seed: int = 0

    kind = "netem"

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"distribution {self.distribution!r}: one of {', '.join(DISTRIBUTIONS)}"
            )
        if self.reorder and not self.delay:
            raise ValueError(
                "reordering needs a delay: the packets that skip it overtake the others"
            )

    def options(self, packet_bytes: int) -> bytes:
        """The message's options for a device with packets of this size."""
        head = struct.pack(
            "=6I",
            min(self.delay // _TICK, _U32),
            self.limit or self._limit(packet_bytes),
            _share(self.loss),
            self.gap or (1 if self.reorder else 0),
            _share(self.duplicate),
            min(self.jitter // _TICK, _U32),
        )
        parts = [
            netlink.s64(_LATENCY64, self.delay),
            netlink.s64(_JITTER64, self.jitter),
            netlink.attribute(_CORRELATION, struct.pack("=3I", _share(self.correlation), 0, 0)),
        ]
        if self.reorder:
            pair = _share(self.reorder), _share(self.reorder_correlation)
            parts.append(netlink.attribute(_REORDER, struct.pack("=2I", *pair)))
        if self.corrupt:
            parts.append(netlink.attribute(_CORRUPT, struct.pack("=2I", _share(self.corrupt), 0)))
        if self.rate:
            octets = self.rate // 8
            parts.append(netlink.attribute(_RATE, struct.pack("=IiIi", min(octets, _U32), 0, 0, 0)))
            if octets > _U32:
                parts.append(netlink.u64(_RATE64, octets))
        if self.seed:
            parts.append(netlink.u64(_PRNG_SEED, self.seed))
        if self.jitter and self.distribution != "uniform":
            parts.append(netlink.attribute(_DELAY_DIST, distribution_table(self.distribution)))
        return head + b"".join(parts)

    def _limit(self, packet_bytes: int) -> int:
        if not self.rate:
            return 1_000_000
        seconds = _QUEUE_SECONDS + (self.delay + self.jitter) / 1e9
        return max(20, round(self.rate / 8 * seconds / packet_bytes))


@dataclass(frozen=True, slots=True)
class Tbf:
    """A token bucket: a rate and nothing else. Large sends are cut into packets by the kernel.

    `burst` (bytes) may pass at once, `limit` (bytes) wait; 0 chooses the smallest burst that keeps
    the rate and a queue of 400 ms. A burst passes at the rate of `peak`, of which `peak_burst`
    bytes (0: one packet) may pass at once; 0 is as fast as it comes.
    """

    rate: int
    burst: int = 0
    limit: int = 0
    peak: int = 0
    peak_burst: int = 0

    kind = "tbf"

    def __post_init__(self) -> None:
        if self.rate < 8:
            raise ValueError(f"rate {self.rate}: at least 8 bits per second")
        if self.peak and self.peak <= self.rate:
            raise ValueError(f"peak {self.peak}: more than the rate, {self.rate}")

    def options(self, packet_bytes: int) -> bytes:
        octets = self.rate // 8
        whole = packet_bytes + 32  # a link header and a tag
        burst = self.burst or max(whole, octets // 50)
        limit = self.limit or max(4 * whole, round(octets * _QUEUE_SECONDS))
        rate = struct.pack("=BBHhHI", 0, _LINKLAYER_ETHERNET, 0, 0, 0, min(octets, _U32))
        most = self.peak // 8
        peak = struct.pack("=BBHhHI", 0, _LINKLAYER_ETHERNET, 0, 0, 0, min(most, _U32))
        parms = rate + (peak if most else bytes(12)) + struct.pack("=III", min(limit, _U32), 0, 0)
        parts = [
            netlink.attribute(_TBF_PARMS, parms),
            netlink.u32(_TBF_BURST, min(burst, _U32)),
        ]
        if octets > _U32:
            parts.append(netlink.u64(_TBF_RATE64, octets))
        if most:
            parts.append(netlink.u32(_TBF_PBURST, min(self.peak_burst or whole, _U32)))
        if most > _U32:
            parts.append(netlink.u64(_TBF_PRATE64, most))
        return b"".join(parts)


Shape = Netem | Tbf


def _share(percent: float) -> int:
    return min(round(percent / 100 * 2**32), _U32)


def distribution_table(name: str) -> bytes:
    """A table of differences in units of 1/8192 standard deviation, as netem takes it.

    Built from the quantile functions themselves: normal; Pareto with shape 3, mean removed and
    scaled to one deviation; and a quarter normal with three quarters Pareto.
    """
    points = [(i + 0.5) / _TABLE for i in range(_TABLE)]
    normal = _normal_quantiles(points)
    mean = _PARETO / (_PARETO - 1)
    deviation = (_PARETO / ((_PARETO - 1) ** 2 * (_PARETO - 2))) ** 0.5
    pareto = [((1 - p) ** (-1 / _PARETO) - mean) / deviation for p in points]
    if name == "normal":
        values = normal
    elif name == "pareto":
        values = pareto
    else:  # the step is odd, so every value is used once, far from its neighbour
        mixed = [pareto[i * _STEP % _TABLE] for i in range(_TABLE)]
        values = [0.25 * n + 0.75 * p for n, p in zip(normal, mixed, strict=True)]
    scaled = [max(-_LARGEST, min(_LARGEST, round(v * _SCALE))) for v in values]
    return struct.pack(f"={_TABLE}h", *scaled)


def _normal_quantiles(points: list[float]) -> list[float]:
    """Where the normal distribution reaches each of the rising points, by Newton's method.

    The module `statistics` has it, but loads five megabytes more than the keeper may have.
    """
    found: list[float] = []
    at = -4.0
    for point in points:
        for _ in range(60):
            missing = point - 0.5 * (1 + math.erf(at / math.sqrt(2)))
            step = missing / (math.exp(-at * at / 2) / math.sqrt(2 * math.pi))
            at += max(-0.5, min(0.5, step))
            if abs(step) < 1e-7:
                break
        found.append(at)
    return found


def add(nl: Netlink, index: int, shape: Shape, packet_bytes: int, *, handle: int = 0x10000) -> None:
    """Make it the root of a device of ours. OSError ENOENT where the kernel has no such kind."""
    tc.add_qdisc(nl, index, shape.kind, shape.options(packet_bytes), handle=handle)
