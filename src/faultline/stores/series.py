"""Series beside the status: what only grows is written in parts, and what is new alone.

A run of an hour has some 20,000 samples. Written with the status, each second would cost the whole
of them; so lists of classes that say `entry` are taken out of it and kept in parts of `PART`.
Read, each series goes from its text to its models at once, without the data between them.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import groupby
from typing import Any, cast, get_args

from pydantic import TypeAdapter

from faultline.api.model import StatusModel
from faultline.stores.database import Database

PART = 64  # entries; the last part is written anew with each entry
Series = dict[str, list[StatusModel]]
"""Each series by its path in the status, as `probes/0/samples`."""


def split(status: StatusModel) -> tuple[StatusModel, Series]:
    """The status without its series, and these. The status that is given stays as it is."""
    found: Series = {}
    return _without(status, "", found), found


def _without(model: StatusModel, path: str, found: Series) -> StatusModel:
    emptied: dict[str, Any] = {}
    for field, alias, is_series in _fields(type(model)):
        value = getattr(model, field)
        if not value:
            continue
        if is_series:
            found[f"{path}{alias}"] = value
            emptied[field] = []
        elif isinstance(value, list):
            each = cast("list[StatusModel]", value)
            emptied[field] = [
                _without(one, f"{path}{alias}/{index}/", found) for index, one in enumerate(each)
            ]
        elif isinstance(value, dict):
            by_name = cast("dict[str, StatusModel]", value)
            if all("/" not in name and not name.isdigit() for name in by_name):
                emptied[field] = {
                    name: _without(one, f"{path}{alias}/{name}/", found)
                    for name, one in by_name.items()
                }
        elif isinstance(value, StatusModel):
            emptied[field] = _without(value, f"{path}{alias}/", found)
    return model.model_copy(update=emptied) if emptied else model


@cache
def _fields(model: type[StatusModel]) -> tuple[tuple[str, str, bool], ...]:
    """The fields that are series or hold some: name, name in documents, whether it is one."""
    found: list[tuple[str, str, bool]] = []
    for name, field in model.model_fields.items():
        inner = _models(field.annotation)
        is_list = getattr(field.annotation, "__origin__", None) is list
        if is_list and inner and all(each.entry for each in inner):
            found.append((name, field.alias or name, True))
        elif any(_fields(each) for each in inner if each is not model):
            found.append((name, field.alias or name, False))
    return tuple(found)


def _models(annotation: Any) -> list[type[StatusModel]]:
    if isinstance(annotation, type) and issubclass(annotation, StatusModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def fill(status: StatusModel, rows: list[tuple[Any, ...]]) -> None:
    """Put the series into a status that was read without them: `rows` are (path, entries) in order.

    Raises ValidationError for entries that are not what the models say.
    """
    for path, parts in groupby(rows, key=lambda row: row[0]):
        here, name = _place(status, path)
        inner = ",".join(entries[1:-1] for _, entries in parts)
        read = _reader(type(here), name).validate_json(f"[{inner}]")
        setattr(here, name, [*getattr(here, name), *read])


def put(status: StatusModel, series: Series) -> None:
    """Put the series into a status that was made without them, as they are."""
    for path, entries in series.items():
        here, name = _place(status, path)
        setattr(here, name, list(entries))


def _place(status: StatusModel, path: str) -> tuple[StatusModel, str]:
    """The part of a status in which a series lies, and its name there."""
    *above, last = path.split("/")
    here: Any = status
    for step in above:
        if isinstance(here, list):
            here = cast("list[Any]", here)[int(step)]
        elif isinstance(here, dict):
            here = cast("dict[str, Any]", here)[step]
        else:
            model = cast(StatusModel, here)
            here = getattr(model, _field(type(model), step))
    found = cast(StatusModel, here)
    return found, _field(type(found), last)


def has_some(model: type[Any]) -> bool:
    """Whether documents of a kind can have series."""
    status = model.model_fields.get("status")
    return status is not None and any(_fields(each) for each in _models(status.annotation))


def _field(model: type[StatusModel], alias: str) -> str:
    return next(name for name, other, _ in _fields(model) if other == alias)


@cache
def _reader(model: type[StatusModel], name: str) -> TypeAdapter[list[StatusModel]]:
    return TypeAdapter(cast(Any, model.model_fields[name].annotation))


def joined(status: Any, rows: list[tuple[Any, ...]]) -> Any:
    """The data of a status with its series: `rows` are (path, entries) in order."""
    for path, entries in rows:
        *above, last = (int(step) if step.isdigit() else step for step in path.split("/"))
        here = status
        for step in above:
            here = here[step]
        here[last] = [*here.get(last, ()), *json.loads(entries)]
    return status


class Written:
    """What this process has written of the series of one resource; it writes what is new."""

    def __init__(self) -> None:
        self._known: Series = {}

    def write(self, db: Database, kind: str, name: str, series: Series, anew: bool) -> None:
        """Within a transaction. `anew`: it is not known what is there."""
        if anew:
            self._known = {}
            db.run("DELETE FROM series WHERE kind = ? AND name = ?", kind, name)
        for path in self._known.keys() - series.keys():
            _forget(db, kind, name, path)
        rows: list[tuple[Any, ...]] = []
        for path, entries in series.items():
            had = self._known.get(path, [])
            # Almost always the same objects, which a comparison of lists sees at once.
            same = len(entries) >= len(had) and entries[: len(had)] == had
            if same and len(entries) == len(had):
                continue
            if not same:
                _forget(db, kind, name, path)
            rows += _parts(kind, name, path, entries, len(had) if same else 0)
        db.many(
            "INSERT INTO series VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (kind, name, path, part) DO UPDATE SET entries = excluded.entries",
            rows,
        )
        self._known = {path: list(entries) for path, entries in series.items()}


def _forget(db: Database, kind: str, name: str, path: str) -> None:
    db.run("DELETE FROM series WHERE kind = ? AND name = ? AND path = ?", kind, name, path)


def _parts(
    kind: str, name: str, path: str, entries: list[StatusModel], begin: int
) -> list[tuple[Any, ...]]:
    return [
        (kind, name, path, part, _text(entries[part * PART : (part + 1) * PART]))
        for part in range(begin // PART, -(-len(entries) // PART))
    ]


def _text(entries: list[StatusModel]) -> str:
    return json.dumps([entry.to_json() for entry in entries], separators=(",", ":"))
