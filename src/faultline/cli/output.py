"""How things are printed: a table for people, JSON or YAML for programs; plain when piped."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import threading

    from faultline.changes.model import Record

FORMATS = ("table", "json", "yaml")
COLOURS = {
    "effective": "green", "recovered": "green", "nothing to undo": "green", "held": "green",
    "works": "green", "ok": "green", "target gone": "yellow", "unmeasured": "yellow",
    "already above": "yellow", "not measured": "yellow", "not effective": "yellow",
    "active": "cyan", "ineffective": "red", "needs a person": "red", "broke": "red",
    "error": "red", "no": "red",
}  # fmt: skip
ENDINGS = {
    "kernel-owned": "the deadline is inside the kernel object",
    "self-ending": "a kernel timer ends the process that holds the effect",
    "keeper-owned": "one of two keepers undoes it",
    "instant": "it is over as soon as it has happened",
}
NARROWEST = 8  # columns that a cut cell keeps


def format_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option --format, the same everywhere."""
    return click.option("--format", "form", **FORMAT)(function)


FORMAT: dict[str, Any] = {
    "type": click.Choice(FORMATS),
    "default": "table",
    "show_default": True,
    "help": "A table for people, JSON or YAML for programs.",
}


def wants_colour() -> bool | None:
    """Never when NO_COLOR is set (https://no-color.org); else as each stream is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def emit(data: Any, form: str) -> None:
    """Print data for programs."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if form == "yaml":
        import yaml

        plain = json.loads(text)  # the words of an enumeration are words
        click.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(text)


def coloured(word: str) -> str:
    """A word in the colour of its meaning, which is also in the word."""
    colour = COLOURS.get(word.strip())
    return click.style(word, fg=colour) if colour else word


def terminal_width() -> int | None:
    """Columns of the terminal that is written to; None when it is none, and nothing is cut."""
    return _columns() if sys.stdout.isatty() else None


def _columns() -> int:
    import shutil  # only for people: programs need not wait for it

    return shutil.get_terminal_size((80, 24)).columns


def table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Left-aligned columns, cut to the terminal if it is one; the first names and is never cut."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    room = terminal_width()
    while room and sum(widths) + 2 * len(widths) - 2 > room:
        widest = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        if not widest or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    lines = [click.style(_line(headings, widths), bold=True)]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def harmless(text: str) -> str:
    """Names and documents must not steer the terminal that shows them: no control characters."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells: list[str] = []
    for raw, width in zip(row, widths, strict=True):
        text = harmless(raw)
        short = text if len(text) <= width else text[: width - 1] + "…"
        shown = coloured(short) if cells else short  # the first is a name, whatever it says
        cells.append(shown + " " * (width - len(short)))
    return "  ".join(cells).rstrip()


RECORD_HEADINGS = ("UID", "FAULT", "STATE", "EFFECT", "ENDS", "ASKED", "MEASURED")


def record_row(record: Record) -> tuple[str, ...]:
    """A fault in one line."""
    reading = record.reading or {}
    return (
        record.uid,
        record.fault,
        str(record.end or record.state),
        str(reading.get("effect", "-")),
        remaining(record),
        reading.get("asked") or "-",
        reading.get("measured") or reading.get("reason") or "-",
    )


def remaining(record: Record) -> str:
    """When a fault ends or how long ago it did."""
    if record.ended:
        return f"{ago(time.time() - record.ended)} ago"
    from faultline.kernel import clock

    if record.boot_id != clock.boot_id():
        return "before the reboot"
    left = (record.deadline - clock.now()) / 1e9
    return f"in {ago(left)}" if left > 0 else "overdue"


def ago(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(0, round(seconds))
    for (unit, size), (lower, part) in itertools.pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}" + (f" {rest}{lower}" if rest else "")
    return f"{whole}s"


_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def record_json(record: Record) -> dict[str, Any]:
    """A record as programs get it."""
    from faultline.units import Duration

    data = record.to_json()
    return {**data, "duration": str(Duration(record.duration)), "remaining": remaining(record)}


def say(text: str, **style: Any) -> None:
    """A line for people."""
    click.secho(text, **style)


def field(name: str, text: str, width: int = 12) -> None:
    """A name and what it says, wrapped on a terminal."""
    room = terminal_width()
    lead = f"{name:<{width}}"
    if room and len(lead) + len(text) > room:
        text = click.wrap_text(text, room, lead, " " * width)
    else:
        text = lead + text
    click.echo(text)


@contextmanager
def waiting(what: str, quiet: bool = False) -> Generator[None]:
    """Say on the terminal what is being waited for, and for how long; wiped away afterwards."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    import threading

    done = threading.Event()
    ticking = threading.Thread(target=_tick, args=(what, done), daemon=True)
    ticking.start()
    try:
        yield
    finally:
        done.set()
        ticking.join()
        click.echo("\r\x1b[K", nl=False, err=True)


def _tick(what: str, done: threading.Event) -> None:
    began = time.monotonic()
    while not done.wait(0.25):
        room = _columns() - 8
        text = f"\r{what[:room]} ({time.monotonic() - began:.0f}s)\x1b[K"
        click.echo(text, nl=False, err=True)
