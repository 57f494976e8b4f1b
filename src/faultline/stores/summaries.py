"""What lists show: written with each resource, asked for without reading it."""

from __future__ import annotations

import json
from typing import Any

from faultline.errors import UsageError
from faultline.stores.model import Filter, Summary

COLUMNS = (
    "kind, name, uid, version, created, started, ended, experiment, creator, phase, verdict,"
    " reason, labels"
)


def plain(value: object) -> str:
    """Text that every database takes: NUL and half characters are replaced."""
    if not isinstance(value, str):
        return ""
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def of_spec(name: str, labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    """The columns that follow from metadata and spec."""
    experiment, creator = plain(spec.get("experiment")), plain(spec.get("creator"))
    about = [name, experiment, creator, *map(plain, [*labels, *labels.values()])]
    return {
        "experiment": experiment,
        "creator": creator,
        "labels": json.dumps(labels),
        "about": "\n".join(about).casefold(),
    }


def of_status(status: dict[str, Any] | None) -> dict[str, Any]:
    """The columns that follow from the status."""
    told = status or {}
    verdict, reason = plain(told.get("verdict")), plain(told.get("reason"))
    return {
        "started": told.get("started"),
        "ended": told.get("ended"),
        "phase": plain(told.get("phase")),
        "verdict": verdict,
        "reason": reason,
        "told": f"{verdict}\n{reason}".casefold(),
    }


def read(row: tuple[Any, ...]) -> Summary:
    """A row of `COLUMNS`."""
    *values, labels = row
    return Summary(*values, labels=json.loads(labels))


def label_rows(kind: str, name: str, labels: dict[str, str]) -> list[tuple[Any, ...]]:
    """As they are looked for; in JSON, since a database does not take every character."""
    return [(kind, json.dumps(key), json.dumps(value), name) for key, value in labels.items()]


def labelled(labels: dict[str, str], table: str) -> tuple[str, list[Any]]:
    """The condition that something has all these labels, each found by its index."""
    one = (
        f" AND EXISTS (SELECT 1 FROM labels b WHERE b.kind = {table}.kind AND b.label = ?"  # noqa: S608
        f" AND b.value = ? AND b.name = {table}.name)"
    )
    values = [json.dumps(text) for pair in labels.items() for text in pair]
    return one * len(labels), values


def condition(kind: str, where: Filter, after: str = "") -> tuple[str, list[Any]]:
    """What follows WHERE on the table `s`, with its values."""
    text, values = "s.kind = ?", [kind]
    more, given = labelled(where.labels, "s")
    text, values = text + more, values + given
    chosen = {
        "name": where.names,
        "experiment": where.experiments,
        "creator": where.creators,
        "phase": where.phases,
        "verdict": where.verdicts,
    }
    for column, wanted in chosen.items():
        if wanted:
            text += f" AND s.{column} IN ({', '.join('?' * len(wanted))})"
            values += map(plain, wanted)
    for comparison, bound in (("s.created >= ?", where.since), ("s.created < ?", where.until)):
        if bound is not None:
            text, values = f"{text} AND {comparison}", [*values, bound]
    if where.ended is not None:
        text += f" AND s.ended IS {'NOT ' if where.ended else ''}NULL"
    if where.text:
        text += " AND (s.about LIKE ? ESCAPE '!' OR s.told LIKE ? ESCAPE '!')"
        values += [_containing(where.text)] * 2
    if after:
        text, values = f"{text} AND (s.created, s.name) < (?, ?)", [*values, *_cursor(after)]
    return text, values


def matches(where: Filter, told: Summary) -> bool:
    """The same as `condition`, for a store that no database looks through."""
    if (where.names and told.name not in where.names) or not where.labels.items() <= (
        told.labels.items()
    ):
        return False
    chosen = (
        (where.experiments, told.experiment),
        (where.creators, told.creator),
        (where.phases, told.phase),
        (where.verdicts, told.verdict),
    )
    if any(wanted and value not in map(plain, wanted) for wanted, value in chosen):
        return False
    if where.since is not None and told.created < where.since:
        return False
    if where.until is not None and told.created >= where.until:
        return False
    if where.ended is not None and (told.ended is not None) is not where.ended:
        return False
    if not where.text:
        return True
    words = [told.name, told.experiment, told.creator, *told.labels, *told.labels.values()]
    text = plain("\n".join([*map(plain, words), told.verdict, told.reason])).casefold()
    return plain(where.text).casefold() in text


def behind(after: str) -> tuple[float, str] | None:
    """What a cursor names, in the order of all; None for the beginning. Raises UsageError."""
    return _cursor(after) if after else None


def _containing(text: str) -> str:
    escaped = plain(text).casefold()
    for special in "!%_":
        escaped = escaped.replace(special, f"!{special}")
    return f"%{escaped}%"


def _cursor(text: str) -> tuple[float, str]:
    created, slash, name = text.partition("/")
    try:
        if slash:
            return float(created), name
    except ValueError:
        pass
    raise UsageError(f"{text!r} is no cursor of a list", hint="give back what the list gave")
