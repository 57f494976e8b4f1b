"""Texts that change from turn to turn: `{{name}}` becomes the value of that name.

Nothing is evaluated. Standard library only: the generator loads it.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, cast

from faultline.traffic.chance import Chance

_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")

Row = Mapping[str, Any]


def written(value: object) -> str:
    """A value as it stands inside a text."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


class Values:
    """The values of one turn: those of its row, those that steps have found, and the built-in
    ones, which are made when they are first asked for.
    """

    __slots__ = ("_chance", "_found", "_number", "_row", "_user")

    def __init__(self, row: Row, number: int, user: int, chance: Chance | None = None) -> None:
        self._chance = chance or Chance(0, number)
        self._row, self._number, self._user = row, number, user
        self._found: dict[str, Any] = {}

    def __setitem__(self, name: str, value: object) -> None:
        self._found[name] = value

    def __getitem__(self, name: str) -> Any:
        if name in self._found:
            return self._found[name]
        if name in self._row:
            return self._row[name]
        self._found[name] = self._make(name)
        return self._found[name]

    def _make(self, name: str) -> Any:
        match name:
            case "uuid":
                return str(uuid.uuid4())
            case "number":
                return self._number
            case "user":
                return self._user
            case "now":
                return time.time_ns() // 1_000_000
            case "random":
                return self._chance.below(2**31)
            case _:
                return ""  # of a step that was left out after a failure


class Template:
    """A text with places, taken apart once."""

    __slots__ = ("_parts", "constant", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _PLACE.split(text)
        self.constant = len(self._parts) == 1

    @property
    def names(self) -> list[str]:
        return self._parts[1::2]

    def fill(self, values: Values) -> str:
        if self.constant:
            return self.text
        parts = list(self._parts)
        for place in range(1, len(parts), 2):
            parts[place] = written(values[parts[place]])
        return "".join(parts)

    def value(self, values: Values) -> Any:
        """The same, but what is nothing except one place keeps the type of its value."""
        if len(self._parts) == 3 and not self._parts[0] and not self._parts[2]:
            return values[self._parts[1]]
        return self.fill(values)


class Data:
    """JSON data whose texts may have places."""

    def __init__(self, data: Any) -> None:
        self._data, self.constant = data, not names_in(data)

    def fill(self, values: Values) -> Any:
        return self._data if self.constant else _filled(self._data, values)


def _filled(data: Any, values: Values) -> Any:
    if isinstance(data, str):
        return Template(data).value(values)
    if isinstance(data, dict):
        entries = cast("dict[str, Any]", data)
        return {key: _filled(each, values) for key, each in entries.items()}
    if isinstance(data, list):
        return [_filled(each, values) for each in cast("list[Any]", data)]
    return data


def names_in(data: Any) -> set[str]:
    """All names that the texts inside of JSON data refer to."""
    if isinstance(data, str):
        return set(_PLACE.findall(data))
    if isinstance(data, dict):
        data = list(cast("dict[str, Any]", data).values())
    if isinstance(data, list):
        return {name for each in cast("list[Any]", data) for name in names_in(each)}
    return set()
