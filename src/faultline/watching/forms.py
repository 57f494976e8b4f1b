"""The forms in which logs are written, line by line: pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

from faultline.api.watching import LogLine

LONGEST = 1000
"""Characters that are kept of a line."""

_FRACTION = re.compile(r"\.(\d{1,9})\d*")
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\s?(?:Z|[+-]\d\d:?\d\d)(?![\d:])"
)


def short(text: str) -> str:
    """One line, not too long."""
    line = text.rstrip("\r\n").replace("\n", "\\n")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def moment(text: str) -> float | None:
    """Seconds since 1970 of a time as RFC 3339 writes it; None if it is none."""
    cut = _FRACTION.sub(lambda found: f".{found[1]:0<6.6}", text.strip().replace(",", "."), count=1)
    try:
        found = datetime.fromisoformat(cut)
    except ValueError:
        return None
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def said(text: str) -> float | None:
    """The time that stands near the beginning of a line, if it says its zone as well."""
    found = _ISO.search(text[:80])
    return moment(found[0].replace(" ", "T", 1).replace(" ", "")) if found else None


def docker(lines: Iterable[bytes]) -> Iterator[LogLine]:
    """Lines of Docker's json-file; what a program wrote in pieces is put together."""
    held: dict[str, str] = {}
    for line in lines:
        try:
            found: object = json.loads(line)
        except ValueError:  # cut off by rotation
            continue
        if not isinstance(found, dict):
            continue
        one = cast("dict[str, Any]", found)
        stream, text = str(one.get("stream", "")), str(one.get("log", ""))
        text = held.pop(stream, "") + text
        if text.endswith("\n") or len(text) > LONGEST:
            yield LogLine(at=moment(str(one.get("time", ""))), text=short(text), stream=stream)
        else:
            held[stream] = text
    for stream, text in held.items():
        yield LogLine(text=short(text), stream=stream)


def cri(lines: Iterable[bytes]) -> Iterator[LogLine]:
    """Lines of the form `TIME STREAM F|P TEXT`; P is a piece that goes on."""
    held: dict[str, str] = {}
    for line in lines:
        words = line.decode(errors="replace").split(" ", 3)
        if len(words) < 3 or words[2] not in ("F", "P"):
            continue
        text = held.pop(words[1], "") + (words[3] if len(words) == 4 else "")
        if words[2] == "P" and len(text) <= LONGEST:
            held[words[1]] = text
        else:
            yield LogLine(at=moment(words[0]), text=short(text), stream=words[1])


def journal(lines: Iterable[bytes]) -> Iterator[LogLine]:
    """What `journalctl --output=json` prints; a message that is no text is a list of bytes."""
    for line in lines:
        try:
            one = cast("dict[str, Any]", json.loads(line))
            stamp = float(one["__REALTIME_TIMESTAMP"]) / 1e6
        except (ValueError, KeyError, TypeError):
            continue
        message: object = one.get("MESSAGE") or ""
        if isinstance(message, list):
            message = bytes(cast("list[int]", message)).decode(errors="replace")
        name = str(one.get("SYSLOG_IDENTIFIER") or one.get("_COMM") or "")
        yield LogLine(at=stamp, text=short(f"{name}: {message}" if name else str(message)))


def loki(answer: Any) -> list[LogLine]:
    """The lines of an answer of Loki, in order of time; raises ValueError for what is none."""
    try:
        if answer["status"] != "success" or answer["data"]["resultType"] != "streams":
            raise ValueError("not an answer with streams of lines")
        found = [
            LogLine(at=int(pair[0]) / 1e9, text=short(str(pair[1])))
            for stream in answer["data"]["result"]
            for pair in stream["values"]
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not an answer of Loki: {error!r}") from error
    return sorted(found, key=lambda line: line.at or 0.0)
