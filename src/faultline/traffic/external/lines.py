"""Any tool that prints a line for each interval: by a regular expression, or as JSON objects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from faultline.api.traffic_external import FIGURES, ExternalTraffic
from faultline.traffic.external.pieces import PERCENTILES, Period, Piece, Times
from faultline.traffic.external.reader import UNITS, Reader

_EPOCHS = ((1e18, 1e-9), (1e15, 1e-6), (1e12, 1e-3), (1e9, 1.0))  # a unix time, by its size


class Lines(Reader):
    """One line, one interval. Lines follow each other without a gap unless one is late."""

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._last: float | None = None

    def line(self, text: str, at: float) -> Sequence[Piece]:
        said = self.figures(text)
        if not said:
            return ()
        known = {
            name: number for name, value in said.items() if (number := _number(value)) is not None
        }
        if not known.keys() & {"rate", "ok", "errors"}:
            return ()
        self.begun = True
        interval = self.spec.interval.seconds
        end = self._end(said.get("at"), at)
        begin = end - interval
        if self._last is not None and abs(begin - self._last) < interval / 2:
            begin = self._last
        self._last = end
        errors = max(0.0, known.get("errors", 0.0))
        ok = max(0.0, known["ok"] if "ok" in known else known.get("rate", errors) - errors)
        unit = UNITS[self.spec.unit]
        times = {name: known.get(name) for name in (*PERCENTILES, "max", "mean")}
        return [
            Period(
                max(0.0, begin),
                end,
                ok=ok * interval,
                errors=errors * interval,
                times=Times.in_unit(unit, **times) if ok + errors else Times(),
            )
        ]

    def figures(self, text: str) -> Mapping[str, object]:
        """The figures of a line, as they are written there; {} if it has none."""
        raise NotImplementedError

    def _end(self, said: object, at: float) -> float:
        """When the interval of a line ended, in seconds since the start."""
        number = _number(said)
        if number is not None:
            for size, unit in _EPOCHS:
                if number >= size:
                    return self.moment(number * unit)
            return number
        if isinstance(said, str):
            try:
                return self.moment(datetime.fromisoformat(said).timestamp())
            except ValueError:
                return at
        if self._last is not None:
            # By the count of lines as long as that fits: they come a little early or late.
            counted = self._last + self.spec.interval.seconds
            if abs(counted - at) < self.spec.interval.seconds / 2:
                return counted
        return at


class RegexLines(Lines):
    """Named groups of a regular expression."""

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._pattern = re.compile(spec.pattern)

    def figures(self, text: str) -> Mapping[str, object]:
        found = self._pattern.search(text)
        return found.groupdict() if found else {}


class JsonLines(Lines):
    """Fields of a JSON object."""

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        fields = spec.fields or {name: name for name in FIGURES}
        self._paths = {str(name): path.split(".") for name, path in fields.items()}

    def figures(self, text: str) -> Mapping[str, object]:
        if not text.lstrip().startswith("{"):
            return {}
        try:
            data: object = json.loads(text)
        except ValueError:
            return {}
        found = ((name, _within(data, path)) for name, path in self._paths.items())
        return {name: value for name, value in found if value is not None}


def _within(data: Any, path: list[str]) -> object:
    for part in path:
        if isinstance(data, dict):
            data = cast("dict[str, Any]", data).get(part)
        elif isinstance(data, list) and part.isdecimal():
            items = cast("list[Any]", data)
            data = items[int(part)] if int(part) < len(items) else None
        else:
            return None
    return cast("object", data)


def _number(value: object) -> float | None:
    """A finite number, also from text such as `1,234.5`; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value.replace(",", "") if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None
