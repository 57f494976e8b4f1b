"""What reads the output of one tool: line by line, without a process or a clock of its own."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import ClassVar

from faultline.api.traffic_external import ExternalTraffic
from faultline.traffic.external.pieces import Piece, Report, Times

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
NUMBER = r"(-?(?:\d+\.?\d*|\.\d+)|-?nan|-?inf)"

_TIME = re.compile(r"(\d+\.?\d*)(ns|us|µs|ms|s|m|h)")
_OURS = {0.5: "p50", 0.9: "p90", 0.95: "p95", 0.99: "p99", 1.0: "max"}


class Reader:
    """Reads one format. A line may come from any of the tool's outputs."""

    ends_by: ClassVar[signal.Signals] = signal.SIGTERM
    """The signal after which it prints its report, if it has one."""
    good: ClassVar[frozenset[int]] = frozenset({0})
    """Exit codes that say that it did its work."""
    says_begun: ClassVar[bool] = True
    """Whether it says anything before its end."""

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        """`started`: unix time at which the tool was started."""
        self.spec = spec
        self.started = started
        self.begun = False  # whether it has said that it sends

    def line(self, text: str, at: float) -> Sequence[Piece]:
        """What this line tells; `at`: seconds since the start at which it came."""
        raise NotImplementedError

    def report(self) -> Report | None:
        """What it said at its end; None as long as it has not."""
        return None

    def moment(self, stamp: float) -> float:
        """A unix time as seconds since the start."""
        return stamp - self.started


def duration(text: str) -> float | None:
    """`1.52ms`, `1m30s` in seconds; None if it is no time."""
    found = _TIME.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text.strip():
        return None
    return sum(float(number) * UNITS[unit] for number, unit in found)


def percentile_name(percent: float) -> str:
    """The name of the figure of a percentile, 0 to 100; '' if there is none."""
    return _OURS.get(round(percent / 100, 6), "")


def times_of(named: Mapping[str, float | None], unit: float) -> Times:
    """Times by the words that tools use for them, in a unit of so many seconds."""
    found: dict[str, float | None] = {}
    for word, value in named.items():
        low = word.lower().strip()
        percent = re.fullmatch(r"p?\(?(\d+\.?\d*)\)?(?:%|th percentile)?", low)
        name = percentile_name(float(percent[1])) if percent else _WORDS.get(low, "")
        if name:
            found[name] = value
    return Times.in_unit(unit, **found)


_WORDS = {"avg": "mean", "mean": "mean", "med": "p50", "median": "p50", "max": "max"}
