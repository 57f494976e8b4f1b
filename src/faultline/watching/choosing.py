"""Which lines of a log are kept, and what of them is hidden: pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from faultline.api.watching import LogLine

BYTES = 128 << 10
"""Bytes that are kept of one log, whatever its number of lines."""

_STARS = "***"
_WORD = r"(?:pass(?:word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|auth)"
SECRETS = (
    # name=value, name: value, "name": "value"
    re.compile(rf"(?i)[\w.-]*{_WORD}[\w.-]*[\"']?\s*[=:]\s*(\"[^\"]+\"|'[^']+'|[^\s,;&\"']+)"),
    re.compile(r"(?i)\b(?:basic|bearer|digest)\s+([a-z0-9+/=._~-]{6,})"),
    re.compile(r"://[^\s:/@]*:([^\s@/]+)@"),  # a password in an address
    re.compile(r"\b(eyJ[\w-]+\.[\w-]+\.[\w-]*)"),  # a JSON web token
    re.compile(r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b"),  # a key of AWS
    re.compile(r"\b(gh[pousr]_\w{20,}|xox[abprs]-[\w-]{10,}|glpat-[\w-]{15,})"),
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----.*)"),
)
"""What looks like a secret; the group is what is hidden."""


def hidden(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """The text with stars for whatever matches: the first group, or all of it without one."""
    for pattern in patterns:
        text = pattern.sub(_covered, text)
    return text


def _covered(found: re.Match[str]) -> str:
    whole, start = found[0], found.start()
    if not found.re.groups or found[1] is None:
        return _STARS
    if found[1].strip("\"'") == _STARS or (found[1].lower() in ("basic", "bearer", "digest")):
        return whole  # covered already, or the word before the secret itself
    first, last = found.span(1)
    return f"{whole[: first - start]}{_STARS}{whole[last - start :]}"


def mask(
    lines: Sequence[LogLine], patterns: Sequence[re.Pattern[str]]
) -> tuple[list[LogLine], int]:
    """The lines with what matches hidden, and how many of them that changed."""
    if not patterns:
        return list(lines), 0
    out = [each.model_copy(update={"text": hidden(each.text, patterns)}) for each in lines]
    changed = sum(new.text != old.text for new, old in zip(out, lines, strict=True))
    return out, changed


def chosen(
    lines: Sequence[LogLine], most: int, cuts: Sequence[float] = (), size: int = BYTES
) -> list[LogLine]:
    """At most `most` lines with `size` bytes, from every part of the run.

    The run is cut at the edges of its faults (`cuts`, unix times). Each part has the same share;
    what one does not need the others get. A part that says more keeps its first and its last lines.
    """
    if len(lines) <= most and _bytes(lines) <= size:
        return list(lines)
    parts = _parts(lines, sorted(cuts))
    while True:
        counts = shares([len(part) for part in parts], most)
        kept = [
            line for part, count in zip(parts, counts, strict=True) for line in _ends(part, count)
        ]
        if _bytes(kept) <= size or most <= 1:
            return kept if _bytes(kept) <= size else []
        most = min(most - 1, max(1, int(len(kept) * size / _bytes(kept))))


def _bytes(lines: Sequence[LogLine]) -> int:
    return sum(len(line.text.encode()) for line in lines)


def _parts(lines: Sequence[LogLine], cuts: Sequence[float]) -> list[list[LogLine]]:
    bounds = [float("-inf"), *cuts, float("inf")]
    parts: list[list[LogLine]] = [[] for _ in range(len(bounds) - 1)]
    at = 0.0
    for line in lines:
        at = line.at if line.at is not None else at
        place = next(i for i, (low, high) in enumerate(pairwise(bounds)) if low <= at < high)
        parts[place].append(line)
    return parts


def shares(wants: Sequence[int], most: int) -> list[int]:
    """How much each may have of `most`: all the same, but nobody more than it wants."""
    given = [0] * len(wants)
    left = most
    while left > 0:
        hungry = [i for i, want in enumerate(wants) if given[i] < want]
        if not hungry:
            break
        each = max(1, left // len(hungry))
        for i in hungry:
            more = min(each, wants[i] - given[i], left)
            given[i] += more
            left -= more
    return given


def _ends(part: list[LogLine], count: int) -> list[LogLine]:
    if count >= len(part):
        return part
    first = (count + 1) // 2
    return part[:first] + (part[len(part) - (count - first) :] if count > first else [])
