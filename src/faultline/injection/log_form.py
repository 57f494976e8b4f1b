"""What the lines of a log look like, read from its own last lines, and templates of such lines.

Whoever reads the log has to take our lines for the application's own, so times are written as the
application writes them, and in a log of JSON objects under the same keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from faultline.workers import line_template

TAIL: Final = 64 << 10  # bytes of the end that are looked at
ISO: Final = "{now:%Y-%m-%dT%H:%M:%S.%3f%:z}"

# Well-known names of the parts of a line in logs of JSON objects; the first that is there counts.
_KEYS: Final = {
    "time": ("@timestamp", "timestamp", "time", "ts", "datetime", "date", "eventTime", "t"),
    "level": ("level", "severity", "log.level", "levelname", "lvl", "loglevel"),
    "message": ("message", "msg", "event", "text"),
    "logger": ("logger", "logger_name", "name", "component", "module"),
}
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
_NUMBERS: Final = {"TRACE": 10, "DEBUG": 20, "INFO": 30, "WARN": 40, "ERROR": 50, "FATAL": 60}


@dataclass(frozen=True, slots=True)
class Form:
    """How a log writes its lines."""

    kind: str = "text"  # or json
    time: str = ISO  # the field of a template
    opening: str = ""  # what stands before the time and behind it, in text
    closing: str = ""
    keys: dict[str, str] = field(default_factory=lambda: {name: name for name in _KEYS})
    sample: dict[str, Any] = field(default_factory=dict[str, Any])  # a line of JSON that was seen


def read(tail: bytes, now: datetime | None = None) -> Form:
    """The form of the lines at the end of a log; a plain one where nothing is recognized."""
    lines = [line for line in tail.decode(errors="replace").splitlines()[-50:] if line.strip()]
    for line in reversed(lines):
        found = _of_json(line, now) if line.startswith("{") else _of_text(line, now)
        if found is not None:
            return found
    return Form()


def _of_json(line: str, now: datetime | None) -> Form | None:
    try:
        value: object = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    sample = cast("dict[str, Any]", value)
    keys = {
        part: next((name for name in names if name in sample), part)
        for part, names in _KEYS.items()
    }
    stamp = sample.get(keys["time"])
    time = ISO
    if isinstance(stamp, (int, float)) and not isinstance(stamp, bool):
        time = time_field(
            "%s%3f" if stamp > 1e11 else "%s.%3f" if isinstance(stamp, float) else "%s"
        )
    elif isinstance(stamp, str):
        found = _time(stamp, now)
        time = found[0] if found else ISO
    return Form("json", time, keys=keys, sample=sample)


def _of_text(line: str, now: datetime | None) -> Form | None:
    found = _time(line, now)
    if found is None:
        return None
    form, begin, end = found
    opening, closing = line[:begin], line[end : end + 1]
    if opening not in ("", "["):
        return Form("text", form)  # somewhere inside: the way of writing it is known at least
    return Form("text", form, opening, closing if opening else "")


def _iso(found: re.Match[str], now: datetime | None) -> str:
    fraction = found["fraction"] or ""
    digits = {0: "", 3: "%3f", 6: "%f", 9: "%f000"}.get(max(0, len(fraction) - 1), "%3f")
    zone = found["zone"] or ""
    form = f"%Y-%m-%d{found['middle']}%H:%M:%S{fraction[:1]}{digits}"
    if not zone:
        return f"{{{'utc' if _is_utc(found, now) else 'now'}:{form}}}"
    return time_field(form + ("Z" if zone == "Z" else "%:z" if ":" in zone else "%z"))


def _is_utc(found: re.Match[str], now: datetime | None) -> bool:
    """Whether a time without a zone is nearer to UTC's now than to that of this host."""
    local = (now or datetime.now(UTC)).astimezone()
    stamp = datetime.fromisoformat(f"{found['day']}T{found['clock']}")
    here = abs((local.replace(tzinfo=None) - stamp).total_seconds())
    there = abs((local.astimezone(UTC).replace(tzinfo=None) - stamp).total_seconds())
    return there < here


def _fixed(form: str) -> Callable[[re.Match[str], datetime | None], str]:
    return lambda _found, _now: time_field(form)


_ISO: Final = (
    r"(?P<day>\d{4}-\d\d-\d\d)(?P<middle>[T ])(?P<clock>\d\d:\d\d:\d\d)"
    r"(?P<fraction>[.,]\d{1,9})?(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
_TIMES: Final[tuple[tuple[str, Callable[[re.Match[str], datetime | None], str]], ...]] = (
    (_ISO, _iso),
    (r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}", _fixed("%d/%b/%Y:%H:%M:%S %z")),
    (r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d", _fixed("%Y/%m/%d %H:%M:%S")),
    (r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d", _fixed("%b %e %H:%M:%S")),
    (r"\b1\d{12}\b", _fixed("%s%3f")),
    (r"\b1\d{9}\.\d{3}\b", _fixed("%s.%3f")),
    (r"\b1\d{9}\b", _fixed("%s")),
)


def _time(text: str, now: datetime | None) -> tuple[str, int, int] | None:
    """How the first time in a text is written, and where it stands."""
    for pattern, form in _TIMES:
        found = re.search(pattern, text[:400])
        if found:
            return form(found, now), found.start(), found.end()
    return None


# ------------------------------------------------------------------------------------- templates


@dataclass(frozen=True, slots=True)
class Words:
    """What a line says; all but the level and the fields' names are templates."""

    level: str
    logger: str
    message: str
    fields: tuple[tuple[str, str], ...] = ()


def template(form: Form, words: Words) -> str:
    """A line of this form, as a template of the worker that writes lines."""
    return _json_line(form, words) if form.kind == "json" else _text_line(form, words)


def time_field(form: str) -> str:
    """The field for a time in a format of strftime(3), in UTC if it ends in Z."""
    return f"{{utc:{form}}}" if form.endswith("Z") else f"{{now:{form}}}"


def _text_line(form: Form, words: Words) -> str:
    parts = [form.opening + form.time + form.closing, words.level]
    parts += [f"{words.logger}: {words.message}" if words.logger else words.message]
    parts += [f"{line_template.plain(name)}={value}" for name, value in words.fields]
    return " ".join(part for part in parts if part)


def _json_line(form: Form, words: Words) -> str:
    bare = form.time in ("{now:%s}", "{now:%s%3f}", "{now:%s.%3f}")
    parts = {form.keys["time"]: form.time if bare else _text(form.time)}
    parts[form.keys["level"]] = _level(words.level, form.sample.get(form.keys["level"]))
    if words.logger:
        parts[form.keys["logger"]] = _text(words.logger)
    parts[form.keys["message"]] = _text(words.message)
    for name, value in words.fields:
        number = line_template.is_number(value) or _NUMBER.fullmatch(value)
        parts[name] = value if number else _text(value)
    inside = _members((line_template.plain(json.dumps(k)), v) for k, v in parts.items())
    return "{{" + inside + "}}"


def _members(parts: Iterable[tuple[str, str]]) -> str:
    return ",".join(f"{name}:{value}" for name, value in parts)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _level(level: str, seen: object) -> str:
    """A level as the log writes them: in its case, or as a number."""
    if isinstance(seen, int):
        return str(_NUMBERS.get(level.upper(), _NUMBERS["ERROR"]))
    if isinstance(seen, str) and seen.islower():
        level = level.lower()
    return _text(level)


def marked(content: str, marker: str) -> str:
    """A template of a line with a field added at its end, given as NAME=VALUE; none if empty."""
    if not marker:
        return content
    name, _, value = marker.partition("=")
    if content.startswith("{{") and content.endswith("}}"):
        return f"{content[:-2]},{line_template.plain(json.dumps(name))}:{_text(value)}}}}}"
    return f"{content} {marker}"
