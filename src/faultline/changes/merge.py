"""Bringing back what a file held without losing what its program wrote meanwhile.

Pure functions over bytes. `original` is what was there, `broken` what we made of it, `current`
what is there now. Where what the program did can be told from what we did, both are honoured;
where they touch the same lines the answer is None and a person decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Final

MOST_LINES: Final = 20_000  # of a three-way merge: matching lines takes up to quadratic time
_CHANGED_LINES: Final = 4_000


class How(StrEnum):
    """What had become of a file."""

    UNTOUCHED = "untouched"  # as we left it, or as a killed write of ours left it
    APPENDED = "appended"  # the program went on at the end
    POSITIONED = "positioned"  # the program went on at its old position, behind a gap
    MERGED = "merged"  # the program changed other lines than we did


@dataclass(frozen=True, slots=True)
class Merge:
    """What the file shall hold."""

    content: bytes
    how: How


def merge(original: bytes, broken: bytes, current: bytes) -> Merge | None:
    """What the file shall hold, or None when both changed the same place."""
    if current in (original, broken) or torn(original, broken, current):
        return Merge(original, How.UNTOUCHED)
    if current.startswith(broken):
        return with_tail(original, len(broken), current[len(broken) :])
    merged = three_way(broken, original, current)
    return None if merged is None else Merge(merged, How.MERGED)


def with_tail(original: bytes, start: int, tail: bytes) -> Merge:
    """The original with what was written behind offset `start` of the broken file.

    A program that kept its position writes at the original's end and leaves a gap of zeros before
    it; one that appends writes right behind the broken end.
    """
    gap = len(original) - start
    if 0 < gap < len(tail) and not any(tail[:gap]):
        return Merge(original + tail[gap:], How.POSITIONED)
    return Merge(original + tail, How.APPENDED)


def torn(original: bytes, broken: bytes, current: bytes) -> bool:
    """Whether `current` is what a killed write of `broken` over `original` leaves."""
    done = common_prefix(current, broken)
    return len(current) == max(len(original), done) and current[done:] == original[done:]


def common_prefix(one: bytes, two: bytes) -> int:
    """How many first bytes are the same."""
    low, high = 0, min(len(one), len(two))
    if one[:high] == two[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle
    return low


def three_way(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Lines of `ours` and `theirs`, both made from `base`; None where both changed the same or
    adjoining lines.

    Adjoining changes count as touching: which of them comes first would be a guess.
    """
    lines = [text.splitlines(keepends=True) for text in (base, ours, theirs)]
    if max(map(len, lines)) > MOST_LINES:
        return None
    mine, others = _changes(lines[0], lines[1]), _changes(lines[0], lines[2])
    if mine is None or others is None:
        return None
    for a in mine:
        for b in others:
            if a[0] <= b[1] and b[0] <= a[1] and a != b:
                return None
    edits = sorted({(low, high, text) for low, high, text in (*mine, *others)})
    result: list[bytes] = []
    at = 0
    for low, high, text in edits:
        result += [*lines[0][at:low], text]
        at = high
    return b"".join([*result, *lines[0][at:]])


def _changes(base: list[bytes], other: list[bytes]) -> list[tuple[int, int, bytes]] | None:
    """What turns `base` into `other`: lines [low, high) become this text. None if too much to
    match.
    """
    head = 0
    while head < min(len(base), len(other)) and base[head] == other[head]:
        head += 1
    foot = 0
    while foot < min(len(base), len(other)) - head and base[-1 - foot] == other[-1 - foot]:
        foot += 1
    left, right = base[head : len(base) - foot], other[head : len(other) - foot]
    if max(len(left), len(right)) > _CHANGED_LINES:
        return None
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return [
        (head + low, head + high, b"".join(right[first:last]))
        for tag, low, high, first, last in matcher.get_opcodes()
        if tag != "equal"
    ]


def replaced(content: bytes, find: str, put: str, *, regex: bool, line: int, count: int) -> bytes:
    """The content with text replaced; `line` 0 is every line, `count` 0 every occurrence.

    A literal is taken as it is on both sides. In a regular expression `^` and `$` stand at each
    line and the replacement may name groups.
    """
    pattern = re.compile((find if regex else re.escape(find)).encode(), re.MULTILINE)
    text = put.encode()
    if line == 0:
        return _sub(pattern, text, content, regex, count)
    lines = content.splitlines(keepends=True)
    if line > len(lines):
        return content
    lines[line - 1] = _sub(pattern, text, lines[line - 1], regex, count)
    return b"".join(lines)


def _sub(pattern: re.Pattern[bytes], text: bytes, content: bytes, regex: bool, count: int) -> bytes:
    if regex:
        return pattern.sub(text, content, count=count)
    return pattern.sub(lambda _: text, content, count=count)
