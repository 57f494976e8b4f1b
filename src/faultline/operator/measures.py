"""In which unit a fault is asked for and measured, and what many targets say together. Pure.

Hosts give plain numbers in the unit of the fault; others want base units: seconds, bytes, ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from faultline.operator.tally import Part


@dataclass(frozen=True, slots=True)
class Unit:
    """A base unit, and what one of the fault's own is in it."""

    name: str
    factor: float = 1.0


NUMBER: Final = Unit("number")
RATIO, OF_HUNDRED = Unit("ratio"), Unit("ratio", 0.01)
SECONDS, BYTES = Unit("seconds"), Unit("bytes")
BYTES_A_SECOND, BITS_A_SECOND = Unit("bytes_per_second"), Unit("bytes_per_second", 0.125)
UNITS: Final = {
    "cpu.burn": OF_HUNDRED,
    "cpu.throttle": Unit("cores"),
    "disk.delay": SECONDS,
    "diskio.burn": BYTES_A_SECOND,
    "diskio.limit": BYTES_A_SECOND,
    "dns.delay": RATIO,
    "dns.error": RATIO,
    "dns.random": RATIO,
    "dns.record": RATIO,
    "memory.swapoff": BYTES,
    "memory.squeeze": BYTES,
    "network.corrupt": RATIO,
    "network.delay": SECONDS,
    "network.duplicate": RATIO,
    "network.limit": BITS_A_SECOND,
    "network.loss": RATIO,
    "network.partition": RATIO,
    "network.reorder": RATIO,
    "network.reset": RATIO,
}
"""Of faults that have one unit. All others count something: processes, files, lines."""
_BY_PARAMETER: Final = {
    "disk.fill": {"percent": OF_HUNDRED, "bytes": BYTES},
    "disk.inodes": {"percent": OF_HUNDRED},
    "memory.fill": {"percent": OF_HUNDRED, "bytes": BYTES},
}


def unit_of(fault: str, params: Mapping[str, Any]) -> Unit:
    """The unit of its values."""
    if fault == "network.flood" and params.get("mode") == "tcp":
        return BITS_A_SECOND
    for name, unit in _BY_PARAMETER.get(fault, {}).items():
        if params.get(name) is not None:
            return unit
    return UNITS.get(fault, NUMBER)


@dataclass(frozen=True, slots=True)
class Values:
    """What the targets of one fault say, in its base unit."""

    unit: Unit
    asked: float | None
    measured: tuple[float, float, float] | None  # least, median, most


def values(fault: str, params: Mapping[str, Any], parts: Iterable[Part]) -> Values:
    """Three numbers however many targets there are."""
    unit = unit_of(fault, params)
    asked: list[float] = []
    measured: list[float] = []
    for part in parts:
        for entry in part.entries:
            actual = entry.actual
            if actual is not None and actual.asked is not None:
                asked.append(actual.asked * unit.factor)
            if actual is not None and actual.measured is not None:
                measured.append(actual.measured * unit.factor)
    spread = (min(measured), statistics.median(measured), max(measured)) if measured else None
    return Values(unit, statistics.median(asked) if asked else None, spread)
