"""Log lines from a template: `{now:%H:%M:%S}`, `{n}` and `{uid}`; a doubled brace is a brace.

Not `str.format`: that would hand the attributes of our objects to whoever writes the template.
"""

from __future__ import annotations

import re
from datetime import datetime

_FIELD = re.compile(r"\{\{|\}\}|\{(now|n|uid)(?::([^{}]*))?\}|[{}]")
NOW = "%Y-%m-%dT%H:%M:%S.%f%z"


def check(template: str) -> str:
    """The template, if it can be filled in; raises ValueError with the reason."""
    if "\n" in template:
        raise ValueError("one line: it must not hold a line break")
    for found in _FIELD.finditer(template):
        if found[0] in ("{", "}"):
            raise ValueError("fields are {now}, {now:FORMAT}, {n}, {uid}; write {{ for a brace")
        if found[2] is not None and found[1] != "now":
            raise ValueError(f"{{{found[1]}}} takes no format")
    return template


def fill(template: str, now: datetime, n: int, uid: str) -> bytes:
    """One line, with its end."""

    def value(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        if found[1] == "now":
            return now.strftime(found[2] or NOW)
        return str(n) if found[1] == "n" else uid

    return (_FIELD.sub(value, template) + "\n").encode()


def pattern(template: str, uid: str) -> re.Pattern[bytes]:
    """What a line made from the template looks like, to count them in a file."""

    def part(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return re.escape(found[0][0])
        return {"now": r"[^\n]*?", "n": r"\d+", "uid": re.escape(uid)}[found[1]]

    pieces: list[str] = []
    at = 0
    for found in _FIELD.finditer(template):
        pieces += [re.escape(template[at : found.start()]), part(found)]
        at = found.end()
    text = "".join([*pieces, re.escape(template[at:])])
    return re.compile(f"^{text}$".encode(), re.MULTILINE)
