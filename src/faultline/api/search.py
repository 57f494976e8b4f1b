"""Searching the worst value of a fault's parameter that is still borne: what is asked for, what was
tried, what was found.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from faultline import units
from faultline.api.model import Model, NodeName, StatusModel
from faultline.api.quantities import Between, Duration, Percent, text
from faultline.errors import InvalidParameter

Value = str | int | float
"""A value of the parameter as a document writes it."""

_KINDS = (units.Duration, units.ByteRate, units.Size, units.Rate, units.Percent)
Kind = type[units.Duration | units.ByteRate | units.Size | units.Rate | units.Percent]


def kind_of(value: Value) -> Kind | None:
    """The kind of a quantity; None for a plain number. Raises InvalidParameter."""
    if not isinstance(value, str):
        if isinstance(value, bool):
            raise InvalidParameter("value", value, "a number, or a quantity with its unit")
        return None
    for kind in _KINDS:
        try:
            kind.parse(value)
        except InvalidParameter:
            continue
        return kind
    raise InvalidParameter("value", value, "a number, or a quantity with its unit")


def number_of(value: Value) -> float:
    """A value as a number in the unit of its kind; raises InvalidParameter."""
    kind = kind_of(value)
    return float(value if kind is None else kind.parse(value))


class Repeats(Model):
    """How often one value is tried."""

    min: Annotated[int, Field(ge=1, le=1000)] = 1
    """Answers that a value gets at least, once it is tried."""
    max: Annotated[int, Field(ge=1, le=10000)] | None = None
    """And at most. Without it, eight times as many as a value needs that always holds or always
    breaks: with a confidence of 90%, 32."""

    @field_validator("max")
    @classmethod
    def _not_less(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < info.data.get("min", 1):
            raise ValueError("expected at least min")
        return value


class ErrorBudget(Model):
    """What the search may break in all. No trial is begun that could break it."""

    trials: Annotated[int, Field(ge=1, le=100000)] | None = None
    """How many trials may break."""
    time: Annotated[Duration, Between("1s", "30d")] | None = None
    """For how long the probes may be broken; a trial that breaks counts with all of its hold."""


class SearchSpec(Model):
    """Where and how to search."""

    parameter: Annotated[str, Field(pattern=r"^(params\.)?[A-Za-z][A-Za-z0-9_]*$")]
    """The parameter of the fault: `latency`, or `params.latency`."""
    low: Value
    """The smallest value that may be tried: a quantity with its unit, or a number. Where both ends
    are whole numbers, all values are."""
    high: Value
    """The largest."""
    tolerance: Value = "5%"
    """How narrow the interval has to be: a quantity like the values, or a share of the value
    (`5%`). Where the values are percentages themselves, percentage points."""
    scale: Literal["linear", "log"] = "linear"
    """How values are spaced: `log` where the range covers several powers of ten."""
    worse: Literal["larger", "smaller"] = "larger"
    """Which values are harder to bear: of a rate limit, the smaller."""
    probes: Annotated[list[NodeName], Field(min_length=1)]
    """Names of the probes that must hold; a trial has held when all of them have."""
    hold: Annotated[Duration, Between("100ms", "1d")] = text("10s")
    """How long the fault stays in a trial, once its effect is measured."""
    warmup: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """How long the fault is there before the probes count."""
    cooldown: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """How long to wait without the fault before the next trial."""
    repeats: Repeats = Field(default_factory=Repeats)
    """How often one value is tried."""
    share: Annotated[Percent, Between("5%", "95%")] = text("50%")
    """A value is borne when at least this share of all trials at it would hold. A larger share than
    half takes many more trials."""
    confidence: Annotated[Percent, Between("50%", "99.9%")] = text("90%")
    """How surely the threshold is in the interval that is found."""
    max_trials: Annotated[int, Field(ge=1, le=10000)] = 100
    """How many trials at most, those without an answer too."""
    max_time: Annotated[Duration, Between("1s", "30d")] | None = None
    """How long at most; no trial is begun that would not end in time."""
    error_budget: ErrorBudget = Field(default_factory=ErrorBudget)
    """What the search may break in all."""
    unanswered: Annotated[int, Field(ge=1, le=100)] = 3
    """After so many trials in a row that were not measured, or not effective, the search gives
    up."""
    margin: Annotated[Percent, Between("0%", "90%")] = text("10%")
    """How far below the value that is borne the regression experiment is pinned."""
    seed: int | None = None
    """Decides between trials that promise as much: the same seed and the same outcomes make the
    same search. Without it, it is drawn from the seed of the run."""

    @field_validator("low", "high")
    @classmethod
    def _a_value(cls, value: Value, info: ValidationInfo) -> Value:
        try:
            kind, number = kind_of(value), number_of(value)
        except InvalidParameter as error:
            raise ValueError(f"expected {error.expected}") from error
        low: Value | None = info.data.get("low")
        if info.field_name == "high" and low is not None:
            if kind_of(low) is not kind:
                raise ValueError("expected a value of the same kind as low")
            if number <= number_of(low):
                raise ValueError("expected more than low")
        return value

    @field_validator("tolerance")
    @classmethod
    def _a_width(cls, value: Value, info: ValidationInfo) -> Value:
        low: Value | None = info.data.get("low")
        if low is None:
            return value  # what is wrong is said there
        try:
            fits = kind_of(value) in (kind_of(low), units.Percent)
        except InvalidParameter:
            fits = False
        if not fits or number_of(value) <= 0:
            raise ValueError("expected a quantity like the values, or a share such as 5%")
        return value

    @field_validator("scale")
    @classmethod
    def _above_nought(cls, value: str, info: ValidationInfo) -> str:
        low: Value | None = info.data.get("low")
        if value == "log" and low is not None and number_of(low) <= 0:
            raise ValueError("expected linear: a logarithmic scale has no nought")
        return value

    @model_validator(mode="after")
    def _no_probe_twice(self) -> SearchSpec:
        if len(set(self.probes)) < len(self.probes):
            raise ValueError("expected every probe once")
        return self

    @property
    def parameter_name(self) -> str:
        """The parameter without `params.`."""
        return self.parameter.removeprefix("params.")

    @property
    def relative(self) -> bool:
        """Whether the tolerance is a share of the value."""
        return kind_of(self.tolerance) is units.Percent and kind_of(self.low) is not units.Percent

    def value(self, number: float) -> Value:
        """A number as the document writes it: `120ms`, 7, 0.25."""
        kind = kind_of(self.low)
        if kind is units.Percent:
            return str(units.Percent(number))
        if kind is not None:
            return str(kind(round(number)))
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(number) if whole else float(number)

    def shown(self, number: float) -> str:
        """The same for people, rounded where it is an estimate."""
        kind = kind_of(self.low)
        if kind is None:
            return f"{number:.4g}"
        if issubclass(kind, units.Percent):
            return f"{number:.4g}%"
        return kind(round(number)).short

    def params_with(self, params: dict[str, Any], value: Value) -> dict[str, Any]:
        """The parameters of the fault with this value of the one that is searched."""
        return {**params, self.parameter_name: value}


class SearchTrial(StatusModel):
    """One trial that was made."""

    value: Value
    """The value of the parameter."""
    repeat: int
    """The how-manieth at this value."""
    outcome: Literal["held", "broke", "no answer"]
    """Whether the probes held; `no answer` says that they were not measured, or the fault had no
    effect."""
    seconds: float = 0.0
    """What it took in all."""
    broken: float | None = None
    """For how many seconds the probes were broken; without it, all of the hold, if it broke."""
    text: str = ""
    """Why, for people."""


class SearchPoint(StatusModel):
    """What was seen at one value."""

    value: Value
    held: int
    broke: int
    no_answer: int = 0
    share: float | None = None
    """Of the trials with an answer, how many held."""
    low: float = 0.0
    """Interval of that share at this value alone (Clopper and Pearson), with the confidence of the
    search."""
    high: float = 1.0
    fitted: float | None = None
    """The share by the nearest curve that never rises towards worse values."""


class SearchResult(StatusModel):
    """What a search found."""

    why: str
    """Why it ended."""
    answer: Literal["found", "all borne", "none borne", "open", "contradicted", "not measured"]
    """`found`: the interval is as narrow as asked. `all borne`, `none borne`: the threshold is
    outside of the range. `open`: it ended early, the interval says what is known."""
    borne: Value | None = None
    """The worst value that is known to be borne."""
    not_borne: Value | None = None
    """The mildest value that is known not to be borne."""
    estimate: str = ""
    """Where between the two the threshold probably is."""
    confidence: float
    """How surely it is between the two."""
    monotone: bool = True
    """False: the trials contradict that worse values are borne less."""
    pinned: Value | None = None
    """The value for a regression experiment: below what is borne by the margin."""
    text: str
    """All this in sentences."""
    curve: list[SearchPoint] = Field(default_factory=list[SearchPoint])
    """What was seen at each value, the mildest first."""
    trials: int = 0
    broke: int = 0
    no_answer: int = 0
    seconds: float = 0.0
    """What all trials took."""
    broken_seconds: float = 0.0
    """For how long the probes were broken in all."""


class SearchState(StatusModel):
    """What has been tried and found."""

    spec: SearchSpec | None = None
    """What is searched."""
    trials: list[SearchTrial] = Field(default_factory=list[SearchTrial])
    """What was tried, in order."""
    result: SearchResult | None = None
    """What was found, once it has ended."""
