"""What a probe's value should be: an interval or an expression, absolute or against the value
before the fault.

Judging is pure. The expression language is CEL (https://cel.dev), imported when the first
expression is met: its import takes longer than most commands of ours.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import model_validator

from faultline import units
from faultline.api.model import Shorthand
from faultline.errors import InvalidParameter, ObserveFailed

Unit = Literal["", "s", "ratio", "B"]
"""What a value counts: a plain number, seconds, a share from 0 to 1, bytes."""

VARIABLES = ("value", "result", "initial")

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")


class Interval(NamedTuple):
    """Bounds in SI units, both included."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


class Verdict(NamedTuple):
    """One judgement of one value: `ok` is None if the value could not be judged."""

    ok: bool | None
    text: str


class Expect(Shorthand):
    """What is expected of a probe's value: `interval` or `cel`, exactly one. Text alone is an
    interval.
    """

    shorthand = "interval"
    plain = ("string", "number")

    interval: str | None = None
    """Bounds, both included: `a,b`, `a,` (at least), `,b` (at most) or `a` (exactly). Times,
    sizes and shares need their unit: `,300ms`, `10MiB,`, `,1%`."""
    cel: str | None = None
    """A CEL expression that gives true or false, over `value` (a number), `result` (what the
    probe saw, by name) and `initial` (the value before the fault): `value < 2.0 * initial &&
    result.code == 200`."""
    relative: Literal["difference", "percent"] | None = None
    """Judge the interval not over the value but over its change since before the fault:
    `difference` in the unit of the value, `percent` in hundredths of the value before
    (`-10%,25%`)."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Expect:
        if (self.interval is None) == (self.cel is None):
            raise ValueError("expected exactly one of interval and cel")
        if self.cel is not None and self.relative:
            raise ValueError("expected relative only with an interval; an expression has `initial`")
        if self.cel is not None:
            problem = cel_problem(self.cel, VARIABLES)
            if problem:
                raise ValueError(problem)
        return self

    def bounds(self, unit: Unit) -> Interval:
        """The interval in SI units; raises InvalidParameter where a unit is missing or wrong."""
        return read_interval(self.interval or "", "percent" if self.relative == "percent" else unit)


@lru_cache(maxsize=1024)
def read_interval(text: str, unit: Unit | Literal["percent"]) -> Interval:
    """Read `a,b` | `a,` | `,b` | `a`; raises InvalidParameter naming what is wrong."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not any(parts):
        raise InvalidParameter(
            "interval", text, "'a,b', 'a,' (at least), ',b' (at most) or 'a' (exactly)"
        )
    low = _bound(parts[0], unit) if parts[0] else -math.inf
    high = low if len(parts) == 1 else _bound(parts[1], unit) if parts[1] else math.inf
    if low > high:
        raise InvalidParameter("interval", text, "a lower bound that is not above the upper one")
    return Interval(low, high)


def _bound(text: str, unit: Unit | Literal["percent"]) -> float:
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if unit == "":
        if not _NUMBER.fullmatch(text):
            raise InvalidParameter("interval", text, "a plain number: this value has no unit")
        return float(text)
    if unit == "s":
        return sign * units.Duration.parse(rest, "interval").seconds
    if unit == "B":
        return sign * float(units.Size.parse(rest, "interval"))
    if unit == "ratio" and _NUMBER.fullmatch(text):
        raise InvalidParameter("interval", text, "a percentage with its sign, such as 1%")
    percent = float(units.Percent.parse(rest, "interval"))
    return sign * (percent / 100 if unit == "ratio" else percent)


def judge(
    expect: Expect | None,
    unit: Unit,
    value: float | None,
    result: dict[str, Any],
    initial: float | None,
) -> Verdict:
    """Whether the value is as expected. Without an expectation the answer is yes."""
    if expect is None:
        return Verdict(True, "")
    if expect.cel is not None:
        return _judge_cel(expect.cel, value, result, initial)
    if value is None or math.isnan(value):
        return Verdict(None, "no value")
    bounds = expect.bounds(unit)
    if expect.relative is None:
        return Verdict(bounds.holds(value), f"expected {expect.interval}")
    if initial is None:
        return Verdict(None, "no value from before the fault to compare with")
    if expect.relative == "difference":
        return Verdict(bounds.holds(value - initial), f"expected a change of {expect.interval}")
    if initial == 0:
        return Verdict(None, "the value before the fault was 0: a change in percent is undefined")
    change = (value - initial) / abs(initial) * 100
    return Verdict(bounds.holds(change), f"changed by {change:+.1f}%, expected {expect.interval}")


def _judge_cel(
    text: str, value: float | None, result: dict[str, Any], initial: float | None
) -> Verdict:
    try:
        answer = evaluate(text, {"value": value, "result": result, "initial": initial})
    except ObserveFailed as error:
        return Verdict(None, error.message)
    if not isinstance(answer, bool):
        return Verdict(None, f"`{text}` gave {answer!r}, not true or false")
    return Verdict(answer, f"expected {text}")


def cel_problem(text: str, variables: tuple[str, ...]) -> str:
    """Why an expression is not accepted: it does not parse, or names what does not exist. Empty if
    it is.
    """
    from celpy.celparser import CELParseError

    try:
        names = _names(text)
    except CELParseError as error:
        where = f" at line {error.line}, column {error.column}" if error.line else ""
        return f"expected a CEL expression; {text!r} does not parse{where}"
    unknown = sorted(names - set(variables))
    return (
        f"expected only {', '.join(variables)}; {unknown[0]!r} is not known here" if unknown else ""
    )


def evaluate(text: str, values: dict[str, Any]) -> object:
    """The value of an expression as plain Python; raises ObserveFailed when it has none (a missing
    field).
    """
    from celpy.adapter import json_to_cel
    from celpy.celtypes import BoolType
    from celpy.evaluation import CELEvalError

    try:
        answer: object = _program(text).evaluate(
            {name: json_to_cel(value) for name, value in values.items()}
        )
    except CELEvalError as error:
        reason = str(error.args[0]) if error.args else "unknown"
        raise ObserveFailed(
            f"`{text}` has no value: {reason.split(' (in activation')[0]}"
        ) from error
    return bool(answer) if isinstance(answer, BoolType) else answer


@lru_cache(maxsize=256)
def _program(text: str) -> Any:
    from celpy import Environment

    environment: Any = Environment()  # its types are open
    return environment.program(environment.compile(text))


@lru_cache(maxsize=256)
def _names(text: str) -> frozenset[str]:
    """The free names of an expression, functions included; names bound by a macro are not free."""
    from celpy import Environment

    environment: Any = Environment()
    return frozenset(_free(environment.compile(text), frozenset()))


_MACROS = frozenset({"all", "exists", "exists_one", "filter", "map", "reduce", "min"})
_CASTS = frozenset({"double", "int", "uint", "string", "bool", "bytes", "list", "map", "dyn"})
_KNOWN = _CASTS | {"size", "has", "duration", "timestamp", "type", "matches"}


def _free(node: Any, bound: frozenset[str]) -> set[str]:
    if not hasattr(node, "data"):
        return set()
    children: list[Any] = node.children
    if node.data == "ident":
        name = str(children[0])
        return set() if name in bound else {name}
    if node.data == "ident_arg":
        name = str(children[0])
        free = set[str]() if name in _KNOWN else {f"{name}()"}
        return free.union(*(_free(child, bound) for child in children[1:]))
    if node.data == "member_dot_arg" and str(children[1]) in _MACROS and len(children) > 2:
        variable, *rest = children[2].children
        inner = bound | _free(variable, frozenset())
        return _free(children[0], bound).union(*(_free(child, inner) for child in rest))
    return set[str]().union(*(_free(child, bound) for child in children))
