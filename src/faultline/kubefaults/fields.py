"""Fields of objects: the way to one, its value before and after, and the edit between the two."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from faultline.kubeapi.model import Object

Path = tuple[str, ...]
"""The way to a field. `name=web` is the entry of a list whose `name` is `web`; `[]` at the end the
list as a set, of which one entry is added or removed."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of an object, before and after; None as `before` or `after`: it is not there."""

    path: Path
    before: Any
    after: Any

    def __post_init__(self) -> None:
        if self.of_set and (self.before is None) == (self.after is None):
            raise ValueError("an entry of a set is either added or removed")

    @property
    def of_set(self) -> bool:
        """Whether it is one entry of a set."""
        return self.path[-1] == "[]"

    @property
    def words(self) -> str:
        """Its name, for people."""
        return ".".join(step for step in self.path if step != "[]")

    def __str__(self) -> str:
        return f"{self.words}: {shown(self.before)} -> {shown(self.after)}"

    def touches(self, other: Field) -> bool:
        """Whether both are about the same place; entries of one set are not, if they differ."""
        if self.of_set and other.of_set and self.path == other.path:
            return (self.before or self.after) == (other.before or other.after)
        mine, theirs = (tuple(s for s in each.path if s != "[]") for each in (self, other))
        shorter = min(len(mine), len(theirs))
        return mine[:shorter] == theirs[:shorter]

    def now(self, each: Object) -> Any:
        """What it is at present; of a set, the entry that is meant, if it is in it."""
        if not self.of_set:
            return read(each, self.path)
        entry = self.after if self.before is None else self.before
        return entry if entry in (read(each, self.path[:-1]) or []) else None

    def edit(self, each: Object, *, back: bool) -> list[Object]:
        """The JSON Patch (RFC 6902) that sets it in an object that is just so, or puts it back."""
        value = self.before if back else self.after
        if self.of_set:
            return self._edit_set(each, value)
        pointer = _pointer(each, self.path)
        if value is None:
            return [{"op": "remove", "path": pointer}]
        return [*_parents(each, self.path), {"op": "add", "path": pointer, "value": value}]

    def _edit_set(self, each: Object, value: Any) -> list[Object]:
        path = self.path[:-1]
        entries = cast("list[Any]", read(each, path) or [])
        if value is None:
            entry = self.after if self.before is None else self.before
            return [{"op": "remove", "path": f"{_pointer(each, path)}/{entries.index(entry)}"}]
        if not entries:
            added: Object = {"op": "add", "path": _pointer(each, path), "value": [value]}
            return [*_parents(each, path), added]
        return [{"op": "add", "path": f"{_pointer(each, path)}/-", "value": value}]


def edit_all(each: Object, fields: Iterable[Field], *, back: bool) -> list[Object]:
    """The edits of several fields: each sees what those before it have done."""
    here = copy.deepcopy(each)
    made: list[Object] = []
    for one in fields:
        edits = one.edit(here, back=back)
        made += edits
        for edit in edits:
            _do(here, edit)
    return made


def _do(each: Object, edit: Object) -> None:
    """One edit of ours on an object in memory."""
    *way, last = (
        step.replace("~1", "/").replace("~0", "~") for step in str(edit["path"]).split("/")[1:]
    )
    here: Any = each
    for step in way:
        here = cast(Any, here[int(step)] if isinstance(here, list) else here[step])
    value = copy.deepcopy(edit.get("value"))
    if isinstance(here, list):
        _do_in_list(cast("list[Any]", here), last, edit["op"], value)
    elif edit["op"] == "remove":
        del here[last]
    else:
        here[last] = value


def _do_in_list(entries: list[Any], last: str, op: str, value: Any) -> None:
    if op == "remove":
        del entries[int(last)]
    elif last == "-":
        entries.append(value)
    else:
        entries[int(last)] = value


def read(each: Object, path: Path) -> Any:
    """The value at a path; None if there is none."""
    here: Any = each
    for step in path:
        key, equals, value = step.partition("=")
        if isinstance(here, list) and equals:
            entries = cast("list[Object]", here)
            here = next((entry for entry in entries if entry.get(key) == value), None)
        elif isinstance(here, dict):
            here = cast(Object, here).get(step)
        else:
            return None
    return here


def _parents(each: Object, path: Path) -> list[Object]:
    """Maps on the way that are not there yet."""
    missing = [path[:end] for end in range(1, len(path)) if read(each, path[:end]) is None]
    return [{"op": "add", "path": _pointer(each, way), "value": {}} for way in missing]


def _pointer(each: Object, path: Path) -> str:
    """The JSON pointer (RFC 6901) of a path, with the places that entries of lists have now."""
    made = ""
    here: Any = each
    for step in path:
        key, equals, value = step.partition("=")
        if isinstance(here, list) and equals:
            entries = cast("list[Object]", here)
            place = next(i for i, entry in enumerate(entries) if entry.get(key) == value)
            made, here = f"{made}/{place}", entries[place]
        else:
            made = f"{made}/{escaped(step)}"
            here = cast(Object, here).get(step) if isinstance(here, dict) else None
    return made


def escaped(step: str) -> str:
    """One step of a JSON pointer."""
    return step.replace("~", "~0").replace("/", "~1")


def shown(value: Any) -> str:
    """A value in a few words."""
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 80 else f"{text[:77]}..."
