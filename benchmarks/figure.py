"""What a benchmark gives back, so that all of them end in one table and one file."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


class NotHere(Exception):
    """This machine lacks what the benchmark needs; says what."""


@dataclass(frozen=True)
class Figure:
    """One published figure: a median or a ratio, never a best case."""

    name: str
    value: float
    unit: str
    aim: str = ""
    """What it should be, in words; empty where there is no aim."""
    spread: str = ""
    """How far the single measurements lie apart, in words."""
    n: int = 1
    """How many measurements it comes from."""


@dataclass(frozen=True)
class Missing:
    """A figure that could not be measured here, and why; it is told, not left out."""

    name: str
    why: str


Measured = Iterator[Figure | Missing]


def median(name: str, values: Sequence[float], unit: str, aim: str = "") -> Figure:
    """A figure from single measurements: their median, with the smallest and the largest."""
    spread = f"{min(values):.4g} to {max(values):.4g}"
    return Figure(name, statistics.median(values), unit, aim, spread, len(values))


def timed(act: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    act()
    return (time.perf_counter() - start) * 1000


def row(one: Figure | Missing) -> str:
    """One line of the table."""
    if isinstance(one, Missing):
        return f"{one.name:<64} not measured: {one.why}"
    value = f"{one.value:.4g} {one.unit}"
    return f"{one.name:<64} {value:>16}  {one.aim:<24} n={one.n} {one.spread}".rstrip()


def alone(measure: Callable[[], Measured]) -> int:
    """One benchmark by itself: python -m benchmarks.NAME"""
    try:
        for one in measure():
            print(row(one), flush=True)
    except NotHere as why:
        print(f"not measured here: {why}", file=sys.stderr)
        return 1
    return 0
