"""The curve of a search as numbers for a picture: how often each value was borne, and how surely.

x are the values of the parameter, y the share of the trials that held. As on the timeline the plot
has no text of its own; `WIDE` and `TALL` are those of the timeline.
"""

from __future__ import annotations

from dataclasses import dataclass

from faultline.report.chart import TALL, WIDE, Tick
from faultline.report.found import SearchStory, Seen, number
from faultline.report.scale import Scale
from faultline.report.words import significant

_AIR = 0.15
_LEAST = 1e-3  # of the range: a single value gets this much around it
_Y = Scale(-0.08, 1.08)


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing; `interval` is left edge and width, `pinned` a place, both in units of x."""

    xs: tuple[Tick, ...]
    ys: tuple[Tick, ...]
    dots: str
    bars: str
    line: str
    share: int  # where the asked share lies, in units of y
    interval: tuple[int, int] | None
    pinned: int | None


def picture(search: SearchStory) -> Picture | None:
    """None where there is nothing to draw."""
    points = sorted(
        ((n, seen) for seen in search.seen if (n := seen.number) is not None),
        key=lambda pair: pair[0],
    )
    if not any(seen.share is not None for _, seen in points):
        return None
    axis = _axis(search, [n for n, _ in points])
    if axis is None:
        return None
    drawn = [(_x(axis, n), seen) for n, seen in points if seen.share is not None]
    fitted = [(x, seen.fitted) for x, seen in drawn if seen.fitted is not None]
    pin = number(search.pinned)
    return Picture(
        xs=tuple(
            Tick(round(axis.at(value) * 100, 3), _shown(search, value)) for value in axis.ticks(4)
        ),
        ys=tuple(Tick(round((1 - _Y.at(v)) * 100, 2), f"{v:.0%}") for v in (0.0, 0.5, 1.0)),
        dots="".join(f"M{x} {_y(seen.share or 0.0)}h.01" for x, seen in drawn),
        bars="".join(_bar(x, seen) for x, seen in drawn),
        line="".join(f"{'L' if i else 'M'}{x} {_y(v)}" for i, (x, v) in enumerate(fitted)),
        share=_y(search.share),
        interval=_interval(search, axis),
        pinned=_x(axis, pin) if pin is not None and axis.low <= pin <= axis.high else None,
    )


def _axis(search: SearchStory, tried: list[float]) -> Scale | None:
    """What was tried and what was found, with air, inside of what was searched."""
    spec = search.spec
    found = [number(text) for text in (search.borne, search.not_borne, search.pinned)]
    values = [*tried, *(value for value in found if value is not None)]
    low, high = min(values), max(values)
    if spec is not None and spec.scale == "log" and low > 0:
        ratio = max((high / low) ** _AIR, 1.1)
        return Scale(low / ratio, high * ratio, log=True)
    size = high - low
    air = max(size * _AIR, abs(high) * _LEAST if size else abs(high) * 0.5) or 1.0
    return Scale(low - air, high + air)


def _interval(search: SearchStory, axis: Scale) -> tuple[int, int] | None:
    """Between borne and not borne; an end that is not known is the edge of the picture."""
    if search.answer.word in ("all borne", "none borne"):
        return None  # the threshold lies outside
    borne, not_borne = number(search.borne), number(search.not_borne)
    if borne is None and not_borne is None:
        return None
    smaller = search.spec is not None and search.spec.worse == "smaller"
    mild, worse = (axis.high, axis.low) if smaller else (axis.low, axis.high)
    edges = (mild if borne is None else borne, worse if not_borne is None else not_borne)
    first, last = sorted(_x(axis, edge) for edge in edges)
    return first, max(last - first, 10)


def _bar(x: int, seen: Seen) -> str:
    return f"M{x} {_y(seen.low)}V{_y(seen.high)}"


def _shown(search: SearchStory, value: float) -> str:
    return significant(value) if search.spec is None else search.spec.shown(value)


def _x(axis: Scale, value: float) -> int:
    return round(axis.at(value) * WIDE)


def _y(share: float) -> int:
    return round((1 - _Y.at(share)) * TALL)
