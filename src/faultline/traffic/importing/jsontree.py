"""Data of a file whose shape nobody has checked: what is asked for, if it is what was expected."""

from __future__ import annotations

from typing import Any, cast

Entries = dict[str, Any]


def entries(data: object, *path: str) -> Entries:
    """The mapping at a path of keys; {} if there is none."""
    for key in path:
        data = cast("Entries", data).get(key) if isinstance(data, dict) else None
    return cast("Entries", data) if isinstance(data, dict) else {}


def items(data: object, *path: str) -> list[Any]:
    """The list at a path of keys; [] if there is none."""
    if path:
        data = entries(data, *path[:-1]).get(path[-1])
    return cast("list[Any]", data) if isinstance(data, list) else []


def each(data: object, *path: str) -> list[Entries]:
    """The mappings in the list at a path of keys."""
    return [cast("Entries", one) for one in items(data, *path) if isinstance(one, dict)]


def text(data: object, *path: str) -> str:
    """The text at a path of keys, a number as text; '' if there is none."""
    found: object = entries(data, *path[:-1]).get(path[-1]) if path else data
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found) if isinstance(found, (str, int, float)) else ""
