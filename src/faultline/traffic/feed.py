"""Rows of values, one for each turn. Standard library only: the generator loads it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from faultline.traffic.chance import Chance
from faultline.traffic.template import Row


def heading(path: str) -> list[str]:
    """The columns that a CSV file names; raises OSError, UnicodeDecodeError, ValueError."""
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        columns = next(rows, list[str]())
        if not columns or next(rows, None) is None:
            raise ValueError("it has no rows")
    return columns


def _rows(feed: Mapping[str, Any]) -> Sequence[Row]:
    if feed["rows"]:
        return feed["rows"]
    with Path(feed["file"]).open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, restval=""))


class Feeder:
    """The rows of a feed. Numbers of turns are the same over all generators, and so is the
    order.
    """

    def __init__(self, feed: Mapping[str, Any] | None, seed: int = 0) -> None:
        self._seed = seed
        self._rows: Sequence[Row] = _rows(feed) if feed else [{}]
        self._order = feed["order"] if feed else "sequential"

    def row(self, number: int) -> Row | None:
        """The row of turn `number`; None: there are no more."""
        if self._order == "random":
            return self._rows[Chance(self._seed, number).below(len(self._rows))]
        if self._order == "unique" and number >= len(self._rows):
            return None
        return self._rows[number % len(self._rows)]
