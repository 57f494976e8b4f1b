"""The panels of the timeline as numbers: paths, ticks, bands; the template only writes them down.

A plot has no text and stretches to any width; its labels are HTML beside it. So letters keep their
size on a telephone and on paper. x runs from 0 to `WIDE` over the length of the run, y from 0 (top)
to `TALL`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from faultline.report import series as curves
from faultline.report import words
from faultline.report.scale import Scale, fit, ticks, wants_log
from faultline.report.series import Series

WIDE = 10_000
TALL = 1_000
CROWDED = 0.10  # a tick this close to a bound of the expectation gives way to it


@dataclass(frozen=True, slots=True)
class Tick:
    """A label beside or under a plot; `place` in percent from the left or the top."""

    place: float
    label: str
    kind: str = ""  # 'bound' for a bound of an expectation, 'limit' for what there is at most


@dataclass(frozen=True, slots=True)
class Mark:
    """One path of a plot."""

    style: str
    shape: str  # line, area, bars, dots
    path: str
    index: int = -1  # of the series it belongs to


@dataclass(frozen=True, slots=True)
class Plot:
    """One drawing of a panel, linear or logarithmic."""

    log: bool
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    expected: tuple[float, float] | None = None  # top and height of the band, in units of y


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: a title, a legend, and one or two drawings of the same data."""

    key: str
    title: str
    note: str
    unit: str
    series: tuple[Series, ...]
    plots: tuple[Plot, ...]
    empty: str = ""
    size: str = ""  # a class of the style sheet: low, tall
    has_band: bool = False
    has_failures: bool = False
    group: str = ""  # the heading that it stands under
    labelled: bool = False  # the values are answers, not numbers

    @property
    def spoken(self) -> str:
        """The picture in one sentence, for whoever cannot see it."""
        values = [v for s in self.series for v in s.values]
        if not values:
            return self.empty
        if self.labelled:
            return f"{sum(v > 0 for v in values)} of {len(values)} drawn samples are ok"
        low, high = words.amount(min(values), self.unit), words.amount(max(values), self.unit)
        return f"from {low} to {high}; the values are in a table below"

    @property
    def data(self) -> dict[str, Any]:
        """What the read-out needs: the same thinned points that are drawn."""
        return {
            "key": self.key,
            "unit": self.unit,
            "series": [[[round(t, 4), _short(v)] for t, v in s.points] for s in self.series],
        }


@dataclass(frozen=True, slots=True)
class Frame:
    """What all panels share: the stretch of time."""

    length: float

    def x(self, at: float) -> int:
        return round(min(max(at / self.length, -0.01), 1.01) * WIDE)

    def percent(self, at: float) -> float:
        return round(min(max(at / self.length, 0.0), 1.0) * 100, 3)

    def ticks(self) -> list[Tick]:
        """Seconds from the start, under all panels."""
        found = ticks(0.0, self.length, 8)
        unit = " s" if self.length < 1 else ""
        return [Tick(self.percent(t), f"{words.significant(t, 6)}{unit}") for t in found]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a panel is to show, before it is drawn."""

    key: str
    title: str
    unit: str
    series: tuple[Series, ...]
    note: str = ""
    low: float | None = None
    high: float | None = None
    limit: float | None = None  # what there is at most; a line and no expectation
    failures: tuple[tuple[float, float | None], ...] = ()
    log: bool = False  # offer a logarithmic drawing as well
    size: str = ""
    empty: str = ""
    group: str = ""
    labels: tuple[tuple[float, str], ...] = ()  # words instead of numbers beside the plot


def panel(frame: Frame, wanted: Wanted) -> Panel:
    """Thin the curves and draw them; the better scale comes first."""
    thinned = tuple(
        Series(s.name, curves.thin(curves.with_gaps(s.points), 0.0, frame.length), s.style, s.shape)
        for s in wanted.series
    )
    values = [v for s in thinned for v in s.values]
    bounds = [b for b in (wanted.low, wanted.high, wanted.limit) if b is not None]
    plots: list[Plot] = []
    if values:
        linear = Scale(-0.3, 1.3) if wanted.labels else fit([*values, *bounds])
        plots.append(_plot(frame, wanted, thinned, linear))
        if wanted.log and any(v > 0 for v in values):
            positive = [v for v in [*values, *bounds] if v > 0]
            plots.append(_plot(frame, wanted, thinned, fit(positive, log=True)))
            if wants_log([*values, *bounds]):
                plots.reverse()
    return Panel(
        wanted.key,
        wanted.title,
        wanted.note,
        wanted.unit,
        thinned,
        tuple(plots),
        empty="" if values else (wanted.empty or "nothing was measured"),
        size=wanted.size,
        has_band=(wanted.low, wanted.high) != (None, None),
        has_failures=bool(wanted.failures),
        group=wanted.group,
        labelled=bool(wanted.labels),
    )


def _plot(frame: Frame, wanted: Wanted, drawn: Sequence[Series], scale: Scale) -> Plot:
    marks: list[Mark] = []
    for index, series in enumerate(drawn):
        if series.shape == "bars":
            marks.append(Mark(series.style, "bars", _bars(frame, scale, series), index))
            continue
        marks.append(Mark(series.style, "line", _lines(frame, scale, series), index))
        lonely = [run[0] for run in curves.runs(series.points) if len(run) == 1]
        if lonely:
            marks.append(Mark(series.style, "dots", _dots(frame, scale, lonely), index))
    if wanted.failures:
        floor = scale.place(0.04)
        failed = [(t, floor if v is None else v) for t, v in wanted.failures]
        thinned = _spaced(frame, failed)
        marks.append(Mark("failed", "dots", _dots(frame, scale, thinned)))
    return Plot(scale.log, tuple(marks), _ticks(wanted, scale), _band(wanted, scale))


def _y(scale: Scale, value: float) -> int:
    return round((1 - scale.at(value)) * TALL)


def _lines(frame: Frame, scale: Scale, series: Series) -> str:
    parts: list[str] = []
    for run in curves.runs(series.points):
        if len(run) > 1:
            joint = "H{0}V{1}" if series.shape == "steps" else "L{0} {1}"
            first, *rest = [(frame.x(t), _y(scale, v)) for t, v in run]
            parts.append(
                f"M{first[0]} {first[1]}" + "".join(joint.format(*place) for place in rest)
            )
    return "".join(parts)


def _bars(frame: Frame, scale: Scale, series: Series) -> str:
    steps = [b[0] - a[0] for a, b in pairwise(series.points) if b[0] > a[0]]
    half = (median(steps) if steps else frame.length / 50) * 0.4
    return "".join(
        f"M{frame.x(t - half)} {TALL}V{_y(scale, v)}H{frame.x(t + half)}V{TALL}Z"
        for t, v in series.points
        if v is not None and v > 0
    )


def _dots(frame: Frame, scale: Scale, points: Sequence[tuple[float, float]]) -> str:
    """Lines of no length: with round ends and a stroke that does not scale they are dots."""
    return "".join(f"M{frame.x(t)} {_y(scale, v)}h.01" for t, v in points)


def _spaced(frame: Frame, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most one dot per 1/400 of the width and value in two digits: more look the same."""
    kept: dict[tuple[int, float], tuple[float, float]] = {}
    for at, value in points:
        kept.setdefault((frame.x(at) * 400 // WIDE, float(f"{value:.2g}")), (at, value))
    return list(kept.values())


def _ticks(wanted: Wanted, scale: Scale) -> tuple[Tick, ...]:
    if wanted.labels:
        return tuple(Tick(_percent(scale, value), text) for value, text in wanted.labels)
    bounds = [
        b for b in (wanted.low, wanted.high) if b is not None and scale.low <= b <= scale.high
    ]
    close = len(bounds) == 2 and scale.at(bounds[1]) - scale.at(bounds[0]) < CROWDED
    out = [
        Tick(_percent(scale, b), "" if close and i else words.amount(b, wanted.unit), "bound")
        for i, b in enumerate(bounds)
    ]
    if wanted.limit is not None and scale.low <= wanted.limit <= scale.high:
        out.append(
            Tick(_percent(scale, wanted.limit), words.amount(wanted.limit, wanted.unit), "limit")
        )
        bounds.append(wanted.limit)
    out.extend(
        Tick(_percent(scale, value), words.amount(value, wanted.unit))
        for value in scale.ticks(3 if wanted.size == "low" else 4)
        if all(abs(scale.at(value) - scale.at(b)) > CROWDED for b in bounds)
    )
    return tuple(out)


def _percent(scale: Scale, value: float) -> float:
    return round((1 - scale.at(value)) * 100, 2)


def _band(wanted: Wanted, scale: Scale) -> tuple[float, float] | None:
    if wanted.low is None and wanted.high is None:
        return None
    top = 0 if wanted.high is None else _y(scale, wanted.high)
    bottom = TALL if wanted.low is None else _y(scale, wanted.low)
    return (top, max(bottom - top, 4))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
