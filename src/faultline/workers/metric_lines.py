"""Pages of figures in the text format of Prometheus, and rules that show other figures: pure.

A rule names series as a query does, `http_errors_total{code=~"5..",job="shop"}`, and says what is
shown: `= 5`, `*= 10`, `+= 3`, or `+= 2/s`, which grows. Only the figure of a line that is hit is
replaced; every other byte of the page stays. What is no line of a series is left alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL: Final = re.compile(
    r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(,?)'
)
_HEAD: Final = re.compile(rf"\s*({_NAME})\s*(\{{)?")
_TAIL: Final = re.compile(r"\s*(\*=|\+=|=)\s*([-+]?[\w.+-]+?)(/s)?\s*")
_VALUE: Final = re.compile(r"\s*([^\s#]+)")
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; a label that is not there is empty."""

    label: str
    operator: str  # = != =~ !~
    value: str

    def fits(self, labels: dict[str, str]) -> bool:
        found = labels.get(self.label, "")
        regular = self.operator.endswith("~")
        same = bool(re.fullmatch(self.value, found)) if regular else found == self.value
        return same != self.operator.startswith("!")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which series, and what is shown of them."""

    text: str
    name: str
    matchers: tuple[Matcher, ...]
    operator: str  # = *= +=
    number: float
    growing: bool = False  # the number is added every second

    def fits(self, name: str, labels: dict[str, str]) -> bool:
        return name == self.name and all(each.fits(labels) for each in self.matchers)

    def shown(self, true: float, part: float, seconds: float) -> float:
        """The figure in place of `true`, after so many seconds, with `part` (0 to 1) of the ramp
        behind.
        """
        match self.operator:
            case "=":
                return self.number if part >= 1 or math.isnan(true) else _mix(self, true, part)
            case "*=":
                return true * (1 + (self.number - 1) * part)
            case _:
                return true + self.number * (seconds if self.growing else part)

    @property
    def added(self) -> str | None:
        """The series that is shown where there is none; None where it is not known exactly."""
        if self.operator != "=" or any(each.operator != "=" for each in self.matchers):
            return None
        labels = ",".join(f'{each.label}="{_escape(each.value)}"' for each in self.matchers)
        return f"{self.name}{{{labels}}}" if labels else self.name


def _mix(rule: Rule, true: float, part: float) -> float:
    return true + (rule.number - true) * part


def parse_rule(text: str) -> Rule:
    """A rule as people write it; raises ValueError."""
    head = _HEAD.match(text)
    if head is None:
        raise ValueError('expected a series and a figure, such as http_errors{code="500"} *= 10')
    labels, at = (), head.end()
    if head[2]:
        labels, at = _matchers(text, at)
    tail = _TAIL.fullmatch(text, at)
    if tail is None:
        raise ValueError(f"expected '= 5', '*= 10', '+= 3' or '+= 2/s' after the series in {text}")
    if tail[3] and tail[1] != "+=":
        raise ValueError("expected += before a number per second")
    for each in labels:
        if each.operator.endswith("~"):
            _compiled(each.value)
    return Rule(text, head[1], labels, tail[1], float(tail[2]), bool(tail[3]))


def _compiled(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression: {pattern}: {error}") from error


def _matchers(text: str, at: int) -> tuple[tuple[Matcher, ...], int]:
    """What stands between braces, and the position behind them."""
    found: list[Matcher] = []
    while (label := _LABEL.match(text, at)) is not None:
        found.append(Matcher(label[1], label[2], _plain(label[3])))
        at = label.end()
        if not label[4]:
            break
    end = re.compile(r"\s*\}").match(text, at)
    if end is None:
        raise ValueError(f'expected {{label="value",...}} in {text}')
    return tuple(found), end.end()


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@dataclass(frozen=True, slots=True)
class Sample:
    """A line of a series: its identity as it is written, its parts, and where its figure stands."""

    series: str
    name: str
    labels: dict[str, str]
    value: float
    span: tuple[int, int]


def sample(line: str) -> Sample | None:
    """Read one line; None for a comment, an empty line, and what is written in another way."""
    head = _HEAD.match(line)
    if head is None:
        return None
    at, labels = head.end(), dict[str, str]()
    if head[2]:
        try:
            found, at = _matchers(line, at)
        except ValueError:
            return None
        if any(each.operator != "=" for each in found):
            return None
        labels = {each.label: each.value for each in found}
    value = _VALUE.match(line, at)
    if value is None:
        return None
    try:
        number = float(value[1])
    except ValueError:
        return None
    return Sample(line[:at].strip(), head[1], labels, number, value.span(1))


@dataclass(slots=True)
class Page:
    """A page as it is shown, and how many series were changed and added."""

    text: str
    changed: int = 0
    added: int = 0


def shown(page: str, rules: Sequence[Rule], part: float, seconds: float) -> Page:
    """The page with the figures of the rules in place of its own; the first that fits counts."""
    lines = page.split("\n")
    hit: set[int] = set()
    names = {rule.name for rule in rules}
    made = Page("")
    for index, line in enumerate(lines):
        if line.startswith("#") or _first(line) not in names:
            continue
        found = sample(line)
        for number, rule in enumerate(rules):
            if found is not None and rule.fits(found.name, found.labels):
                hit.add(number)
                begin, end = found.span
                value = number_text(rule.shown(found.value, part, seconds))
                lines[index] = line[:begin] + value + line[end:]
                made.changed += 1
                break
    more = [
        f"{rule.added} {number_text(rule.shown(0.0, part, seconds))}"
        for number, rule in enumerate(rules)
        if number not in hit and rule.added is not None
    ]
    made.added = len(more)
    if more and lines[-1]:
        lines.append("")
    made.text = "\n".join([*lines[:-1], *more, ""]) if more else "\n".join(lines)
    return made


def _first(line: str) -> str:
    head = _HEAD.match(line)
    return head[1] if head else ""


def number_text(value: float) -> str:
    """A figure as the format writes it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
