"""Log lines from a template: the time, a number, the uid, a latency; a doubled brace is a brace.

`{now}` and `{utc}` take a format of strftime(3), with `%3f` for milliseconds and `%:z` for an
offset with a colon; `{latency}` takes the unit `s`, `ms` or `us`, of which it then is a plain
number. Not `str.format`: that would hand the attributes of our objects to whoever writes the
template.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_FIELD = re.compile(r"\{\{|\}\}|\{(now|utc|n|uid|latency)(?::([^{}]*))?\}|[{}]")
_TIME = re.compile(r"%(%|3f|:z)")
NOW = "%Y-%m-%dT%H:%M:%S.%f%z"
UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3}  # of a latency, in nanoseconds


def check(template: str) -> str:
    """The template, if it can be filled in; raises ValueError with the reason."""
    if "\n" in template:
        raise ValueError("one line: it must not hold a line break")
    for found in _FIELD.finditer(template):
        if found[0] in ("{", "}"):
            raise ValueError(
                "fields are {now}, {now:FORMAT}, {utc}, {n}, {uid}, {latency}, {latency:ms}; "
                "write {{ for a brace"
            )
        if found[1] == "latency" and found[2] not in (None, *UNITS):
            raise ValueError(f"{found[0]}: the unit is s, ms or us")
        if found[2] is not None and found[1] in ("n", "uid"):
            raise ValueError(f"{{{found[1]}}} takes no format")
    return template


def plain(text: str) -> str:
    """A template that gives this very text."""
    return text.replace("{", "{{").replace("}", "}}")


def is_number(template: str) -> bool:
    """Whether it gives a number and nothing else."""
    found = _FIELD.fullmatch(template)
    return bool(found) and (found[1] == "n" or (found[1] == "latency" and found[2] is not None))


def fill(template: str, now: datetime, n: int, uid: str, latency: int = 0) -> bytes:
    """One line, with its end. `now` has a time zone; `latency` is in nanoseconds."""

    def value(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        match found[1]:
            case "now":
                return written(now, found[2] or NOW)
            case "utc":
                return written(now.astimezone(UTC), found[2] or NOW)
            case "latency":
                return _latency(latency, found[2])
            case "n":
                return str(n)
            case _:
                return uid

    return (_FIELD.sub(value, template) + "\n").encode()


def written(now: datetime, form: str) -> str:
    """A time in a format."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "3f":
            return f"{now.microsecond // 1000:03d}"
        offset = now.strftime("%z")
        return f"{offset[:3]}:{offset[3:5]}" if found[1] == ":z" else found[0]

    return now.strftime(_TIME.sub(value, form))


def _latency(latency: int, unit: str | None) -> str:
    if unit == "s":
        return f"{latency / UNITS['s']:.3f}"
    return str(latency // UNITS[unit]) if unit else f"{latency // UNITS['ms']}ms"


def pattern(template: str, uid: str) -> re.Pattern[bytes]:
    """What a line made from the template looks like, to count them in a file."""

    def part(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return re.escape(found[0][0])
        if found[1] in ("now", "utc"):
            return r"[^\n]*?"
        return {"n": r"\d+", "uid": re.escape(uid), "latency": r"[\d.]+(?:ms)?"}[found[1]]

    pieces: list[str] = []
    at = 0
    for found in _FIELD.finditer(template):
        pieces += [re.escape(template[at : found.start()]), part(found)]
        at = found.end()
    text = "".join([*pieces, re.escape(template[at:])])
    return re.compile(f"^{text}$".encode(), re.MULTILINE)
