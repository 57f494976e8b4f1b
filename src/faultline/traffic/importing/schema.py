"""From a JSON schema to the smallest value that fits it, as far as that is easy to see."""

from __future__ import annotations

from typing import Any

from faultline.traffic.importing.jsontree import Entries, entries, items

_DEEPEST = 12
_MOST = 2000  # values of one body
_LONGEST = 10_000  # characters of a text

_NAMED = ("example", "default", "const")
_LISTED = ("examples", "enum")
_FORMATS = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "byte": "",
}


class Schemas:
    """The schemas of one document."""

    def __init__(self, document: Entries) -> None:
        self._document = document
        self._made = 0

    def resolve(self, data: object) -> Entries:
        """What a reference within the document refers to; {} for one to elsewhere, or to itself."""
        found = entries(data)
        seen: set[str] = set()
        while isinstance(found.get("$ref"), str):
            reference: str = found["$ref"]
            if reference in seen or not reference.startswith("#/"):
                return {}
            seen.add(reference)
            here: Any = self._document
            for part in reference[2:].split("/"):
                key = part.replace("~1", "/").replace("~0", "~").replace("%7B", "{")
                here = entries(here).get(key.replace("%7D", "}"))
            found = entries(here)
        return found

    def says(self, schema: object) -> bool:
        """Whether the schema itself names a value."""
        return bool({*_NAMED, *_LISTED} & self.resolve(schema).keys())

    def example(self, schema: object) -> Any:
        """A value that fits the schema; None where nothing can be said."""
        self._made = 0
        self._within: list[str] = []
        return self._value(schema, 0)

    def _value(self, schema: object, depth: int) -> Any:
        self._made += 1
        reference = str(entries(schema).get("$ref", ""))
        if depth > _DEEPEST or self._made > _MOST or (reference and reference in self._within):
            return None  # what must hold itself has no value
        self._within.append(reference)
        found = self._plain(self.resolve(schema), depth)
        self._within.pop()
        return found

    def _plain(self, said: Entries, depth: int) -> Any:
        for word in _NAMED:
            if word in said:
                return said[word]
        for word in _LISTED:
            if found := items(said, word):
                return found[0]
        if parts := items(said, "allOf"):
            return self._merged([*parts, {k: v for k, v in said.items() if k != "allOf"}], depth)
        for word in ("oneOf", "anyOf"):
            if choices := items(said, word):
                usable = [c for c in choices if entries(c).get("type") != "null"]
                return self._value((usable or choices)[0], depth + 1)
        return self._of_type(said, depth)

    def _merged(self, parts: list[Any], depth: int) -> Any:
        values = [self._value(part, depth + 1) for part in parts]
        whole: Entries = {}
        for value in values:
            whole.update(entries(value))
        plain = [value for value in values if value is not None and not isinstance(value, dict)]
        return whole if whole or not plain else plain[0]

    def _of_type(self, said: Entries, depth: int) -> Any:
        kind: Any = said.get("type")
        if isinstance(kind, list):  # 3.1
            kind = next((one for one in items(said, "type") if one != "null"), "null")
        if kind == "object" or (kind is None and "properties" in said):
            return self._object(said, depth)
        if kind == "array":
            least = _whole(said.get("minItems"), 0)
            one = self._value(said.get("items"), depth + 1) if least else None
            return [one] * min(least, 100)
        if kind == "string":
            return self._text(said)
        if kind in ("integer", "number"):
            return self._number(said, kind == "integer")
        return True if kind == "boolean" else None

    def _object(self, said: Entries, depth: int) -> Entries:
        known = entries(said, "properties")
        required = [str(name) for name in items(said, "required")]
        return {
            name: self._value(known.get(name, {}), depth + 1)
            for name in required
            if not self.resolve(known.get(name)).get("readOnly")
        }

    def _text(self, said: Entries) -> str:
        found = _FORMATS.get(str(said.get("format")), "text" if "format" not in said else "")
        least = min(_whole(said.get("minLength"), 0), _LONGEST)
        most = _whole(said.get("maxLength"), _LONGEST)
        return found.ljust(least, "x")[: max(most, least)]

    def _number(self, said: Entries, whole: bool) -> int | float:
        """The least that is allowed; else the most, if that is below 1; else 1."""
        low, above = _real(said.get("minimum")), _real(said.get("exclusiveMinimum"))
        if low is not None and said.get("exclusiveMinimum") is True:  # 3.0
            low, above = None, low
        high = _real(said.get("maximum"))
        found = 1.0 if high is None or high >= 1 else high
        if above is not None and (low is None or above >= low):
            found = above + 1
        elif low is not None:
            found = low
        return int(found) if whole or found == int(found) else found


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e15 else None


def _whole(value: object, default: int) -> int:
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default
    )
