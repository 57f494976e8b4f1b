"""Latencies as an HdrHistogram: three significant digits from 1 us to an hour, mergeable by adding.

The library is untyped and needed by experiments alone: it is imported here, on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Protocol, Self, cast

from faultline.errors import Unsupported

_LOWEST_US = 1
_HIGHEST_US = 3_600_000_000
_DIGITS = 3


class _Hdr(Protocol):
    total_count: int

    def record_value(self, value: int, count: int = 1) -> bool: ...
    def add(self, other_hist: _Hdr) -> None: ...
    def encode(self) -> bytes: ...
    def decode_and_add(self, encoded_histogram: bytes) -> None: ...
    def get_percentile_to_value_dict(self, percentile_list: list[float]) -> dict[float, int]: ...
    def get_count_at_value(self, value: int) -> int: ...
    def get_max_value(self) -> int: ...
    def get_mean_value(self) -> float: ...
    def reset(self) -> None: ...


def _make() -> _Hdr:
    try:
        module = import_module("hdrh.histogram")
    except ImportError as error:
        raise Unsupported(
            "traffic needs hdrhistogram, which is not installed",
            hint="pip install 'faultline[experiments]'",
        ) from error
    factory = cast("Callable[[int, int, int], _Hdr]", vars(module)["HdrHistogram"])
    return factory(_LOWEST_US, _HIGHEST_US, _DIGITS)


class Histogram:
    """Counts of durations. Nanoseconds go in; seconds come out."""

    def __init__(self) -> None:
        self._hdr = _make()

    @property
    def count(self) -> int:
        return self._hdr.total_count

    def record(self, nanoseconds: int) -> None:
        """Count one duration; what is outside 1 us to 1 h is counted as the nearer end."""
        self._hdr.record_value(min(max(nanoseconds // 1000, _LOWEST_US), _HIGHEST_US))

    def clear(self) -> None:
        self._hdr.reset()

    def encode(self) -> str:
        """The compressed text form of HdrHistogram (V2), as its other implementations read it."""
        return self._hdr.encode().decode("ascii")

    def add(self, encoded: str) -> Self:
        """Add the counts of an encoded histogram; empty text adds nothing."""
        if encoded:
            self._hdr.decode_and_add(encoded.encode("ascii"))
        return self

    @classmethod
    def merged(cls, encoded: Iterable[str]) -> Self:
        total = cls()
        for text in encoded:
            total.add(text)
        return total

    def percentiles(self, wanted: Sequence[float]) -> dict[float, float]:
        """The value in seconds at each percentile (0 to 100); {} when nothing was counted."""
        if not self.count:
            return {}
        found = self._hdr.get_percentile_to_value_dict(sorted(wanted))
        return {percent: found[percent] / 1e6 for percent in wanted}

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None when nothing was counted."""
        return self._hdr.get_mean_value() / 1e6 if self.count else None

    @property
    def largest(self) -> float | None:
        """The largest value in seconds, to three digits; None when nothing was counted."""
        return self._hdr.get_max_value() / 1e6 if self.count else None
