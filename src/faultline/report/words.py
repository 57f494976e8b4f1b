"""Numbers, times and answers in the words of the report: the same in HTML and on the terminal."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple


class Answer(NamedTuple):
    """An answer that never depends on colour: a tone for the style sheet, a sign, and a word."""

    tone: str  # good, bad, warn, unknown, plain
    sign: str
    word: str


NONE = "\N{EN DASH}"
VERDICTS: dict[str, Answer] = {
    "held": Answer("good", "✓", "Held"),
    "broke": Answer("bad", "✗", "Broke"),
    "not effective": Answer("warn", "⊘", "Not effective"),
    "not measured": Answer("unknown", "?", "Not measured"),
    "error": Answer("bad", "!", "Error"),
}
EFFECTS: dict[str, Answer] = {
    "effective": Answer("good", "✓", "effective"),
    "ineffective": Answer("warn", "⊘", "ineffective"),
    "already above": Answer("warn", "⊘", "already above"),
    "unmeasured": Answer("unknown", "?", "unmeasured"),
}
ENDS: dict[str, Answer] = {
    "recovered": Answer("good", "✓", "recovered"),
    "nothing to undo": Answer("good", "✓", "nothing to undo"),
    "target gone": Answer("warn", "⊘", "target gone"),
    "needs a person": Answer("bad", "!", "needs a person"),
}
UNDONE: dict[str, Answer] = {
    "undone": Answer("good", "✓", "undone"),
    "absent": Answer("good", "✓", "nothing of ours was there"),
    "kept": Answer("warn", "✓", "undone, what others wrote was kept"),
    "left": Answer("bad", "!", "left alone: somebody else changed it"),
    "gone": Answer("warn", "⊘", "the target is gone"),
    "failed": Answer("bad", "!", "failed"),
}
STATES: dict[str, Answer] = {
    "succeeded": Answer("good", "✓", "succeeded"),
    "failed": Answer("bad", "✗", "failed"),
    "skipped": Answer("plain", NONE, "skipped"),
    "aborted": Answer("warn", "⊘", "aborted"),
    "running": Answer("plain", "…", "running"),
    "released": Answer("plain", "…", "running in the background"),
    "waiting": Answer("plain", "…", "never begun"),
    "ended": Answer("plain", "", "ended"),
}
"""How a node of a graph ended, where it has no verdict."""
UNKNOWN = Answer("unknown", "?", "not known")

_SHORT = 0.005  # seconds: a pause that no reader would see

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def answer(table: dict[str, Answer], key: str) -> Answer:
    """The answer for `key`; a word that this version does not know is shown as it is."""
    found = table.get(key)
    if found is not None:
        return found
    return Answer("unknown", "?", key) if key else UNKNOWN


def significant(value: float, digits: int = 3) -> str:
    """`digits` significant digits without an exponent: 0.0123, 1.23, 12.3, 1230."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)) + 1e-12))
    text = f"{value:,.{min(places, 9)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(seconds: float | None) -> str:
    """A length of time for people: 310 ms, 15.2 s, 2 min 5 s."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    size = abs(seconds)
    if size < 1e-6:
        return "0 s" if size == 0 else f"{seconds * 1e9:.0f} ns"
    if size < 1e-3:
        return f"{significant(seconds * 1e6)} µs"
    if size < 0.9995:
        return f"{significant(seconds * 1e3)} ms"
    if size < 99.95:
        return f"{seconds:.1f} s" if size >= 9.995 else f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return (
            f"{whole // 3600} h {whole % 3600 // 60} min" if whole >= 3600 else f"{whole // 60} min"
        )
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def lasting(seconds: float | None, idle: float = 0.0) -> str:
    """A length of time, with how much of it the run was paused: `40 s (30 s of it paused)`."""
    if idle < _SHORT:
        return span(seconds)
    return f"{span(seconds)} ({span(idle)} of it paused)"


def moment(seconds: float | None) -> str:
    """A point of time of the run, from its start: 12.345 s."""
    if seconds is None:
        return NONE
    return f"{seconds:.2f} s" if abs(seconds) < 1000 else f"{seconds:,.1f} s"


def amount(value: float | None, unit: str) -> str:
    """A value with its unit: seconds become ms or s, bytes get k and M, a share becomes percent."""
    if value is None:
        return NONE
    if unit == "s":
        return span(value)
    if unit == "ratio":
        return f"{significant(value * 100)} %"
    if unit in ("B", "bit/s", "B/s") and abs(value) >= 1000:
        factor, prefix = next(p for p in _PREFIXES if abs(value) >= p[0])
        return f"{significant(value / factor)} {prefix}{unit}"
    text = significant(value, 4) if abs(value) >= 100 else significant(value)
    return f"{text} {unit}" if unit else text


def spread(low: float, high: float, unit: str) -> str:
    """From one value to another: `3.02 to 6.81 ms`, `900 ms to 1.2 s`; empty if they look alike."""
    least, most = amount(low, unit), amount(high, unit)
    if least == most:
        return ""
    number, _, name = least.rpartition(" ")
    return f"{number} to {most}" if number and most.endswith(f" {name}") else f"{least} to {most}"


def clock(stamp: float | None) -> str:
    """Wall clock in UTC, to the second."""
    if stamp is None:
        return NONE
    return datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def plural_of(count: float, one: str) -> str:
    """`1 core`, `1.5 cores`."""
    return f"{significant(count)} {one if count == 1 else one + 's'}"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 change`, `3 changes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
