"""The curves of a target and the density of a log, as panels."""

from __future__ import annotations

from collections import Counter

from faultline.report.chart import Frame, Panel, Wanted, panel
from faultline.report.series import Point, Series
from faultline.report.watched import LogStory, TargetStory

_STYLES = ("a", "b", "c")
_COLUMNS = 120  # stretches in which the lines of a log are counted

# Title, unit, and the curves with the names of their lines; in the order in which they are shown.
_PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("processor", "cores", (("cpu", "busy"), ("throttled", "made to wait by its quota"))),
    ("memory", "B", (("memory", "in use"),)),
    (
        "pressure",
        "ratio",
        (("cpu_pressure", "cores"), ("memory_pressure", "memory"), ("io_pressure", "disk")),
    ),
    ("disk", "B/s", (("read", "read"), ("written", "written"))),
    ("network", "B/s", (("received", "received"), ("sent", "sent"))),
    ("sent again (TCP)", "/s", (("retransmits", "segments"),)),
    ("processes", "", (("processes", "in it"),)),
)


def curves_of(frame: Frame, index: int, target: TargetStory) -> list[Panel]:
    """The panels of one target; what stayed at nought throughout is left out."""
    out: list[Panel] = []
    for number, (title, unit, lines) in enumerate(_PANELS):
        series = [
            Series(name, target.points(curve), _STYLES[place])
            for place, (curve, name) in enumerate(lines)
            if _moves(target.points(curve)) or (place == 0 and unit in ("cores", "B"))
        ]
        series = [each for each in series if each.values]
        if title == "processes" and series and not _changes(series[0]):
            continue
        if not series:
            continue
        wanted = Wanted(
            f"target{index}-{number}",
            title,
            unit,
            tuple(series),
            limit=_room(target, title, series),
            size="low",
            group=f"target{index}",
        )
        out.append(panel(frame, wanted))
    return out


def _moves(points: tuple[Point, ...]) -> bool:
    return any(value for _, value in points)


def _changes(series: Series) -> bool:
    return len(set(series.values)) > 1


def _room(target: TargetStory, title: str, series: list[Series]) -> float | None:
    """What it may use, where the curve comes near enough for that to be told apart from nought."""
    limit = {"processor": target.cores, "memory": target.memory_limit}.get(title)
    highest = max(max(each.values) for each in series)
    return limit if limit and highest > limit / 5 else None


def lines_of(frame: Frame, index: int, log: LogStory) -> Panel:
    """How many lines of a log were written when."""
    width = frame.length / _COLUMNS
    places = [min(int(line.at / width), _COLUMNS - 1) for line in log.lines if line.at is not None]
    bad = Counter(
        min(int(line.at / width), _COLUMNS - 1)
        for line in log.lines
        if line.at is not None and line.trouble
    )
    every = Counter(places)
    points = tuple(((c + 0.5) * width, float(every[c])) for c in range(_COLUMNS))
    series = [Series("lines", points, "lines", "bars")]
    if bad:
        counted = tuple(((c + 0.5) * width, float(bad[c])) for c in range(_COLUMNS))
        series.append(Series("with words of trouble", counted, "errors", "bars"))
    wanted = Wanted(
        f"log{index}",
        log.name,
        "",
        tuple(series) if places else (),
        note=log.source,
        size="low",
        empty="none of its lines says when it was written",
        group="logs",
    )
    return panel(frame, wanted)
