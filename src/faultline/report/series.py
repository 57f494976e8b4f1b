"""Curves as data: gaps stay gaps, and thousands of samples are thinned without losing a peak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

Point = tuple[float, float | None]
"""Seconds from the start of the run, and the value; None where nothing was measured."""

COLUMNS = 600
SILENCE = 3.5  # a pause this many times the usual interval is a gap and not a line


@dataclass(frozen=True, slots=True)
class Series:
    """One curve of a panel."""

    name: str
    points: tuple[Point, ...]
    style: str = "a"  # a name of the style sheet: a, b, c, d, errors, lag
    shape: str = "line"  # line, steps, or bars from nought

    @property
    def values(self) -> list[float]:
        return [v for _, v in self.points if v is not None]


def with_gaps(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points in order of time, with an explicit None in every silence between two samples."""
    ordered = sorted(points, key=lambda p: p[0])
    steps = [b[0] - a[0] for a, b in pairwise(ordered) if b[0] > a[0]]
    if not steps:
        return tuple(ordered)
    limit = SILENCE * median(steps)
    out: list[Point] = []
    for point in ordered:
        if out and point[0] - out[-1][0] > limit:
            out.append(((out[-1][0] + point[0]) / 2, None))
        out.append(point)
    return tuple(out)


def thin(
    points: Sequence[Point], start: float, end: float, columns: int = COLUMNS
) -> tuple[Point, ...]:
    """At most four points per column (first, lowest, highest, last) and a None if a gap is in it.

    A line through these covers the same pixels as one through all (the M4 aggregation: Jugel et
    al., "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).
    """
    if len(points) <= 2 * columns or end <= start:
        return tuple(points)
    width = (end - start) / columns
    out: list[Point] = []
    bucket: list[Point] = []
    column = -1
    for point in points:
        here = min(int((point[0] - start) / width), columns - 1)
        if here != column and bucket:
            out.extend(_corners(bucket))
            bucket = []
        column = here
        bucket.append(point)
    out.extend(_corners(bucket))
    return tuple(out)


def _corners(bucket: list[Point]) -> list[Point]:
    known = [(at, v) for at, v in bucket if v is not None]
    holes = [p for p in bucket if p[1] is None][:1]
    if not known:
        return holes
    low, high = min(known, key=lambda p: p[1]), max(known, key=lambda p: p[1])
    keep: set[Point] = {known[0], low, high, known[-1], *holes}
    return sorted(keep, key=lambda p: p[0])


def runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The unbroken stretches between gaps."""
    out: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is not None:
            out[-1].append((at, value))
        elif out[-1]:
            out.append([])
    return [run for run in out if run]
