"""Error budgets: how much of what a service level objective forgives an experiment may spend."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from faultline.api.model import Model, NodeName, StatusModel
from faultline.api.quantities import Between, Duration, Percent, text

Indicator = Literal["answers", "errorRatio", "successRatio"]


class BurnRate(Model):
    """A burn rate over two windows, as alerts on objectives have them: the long one says that it
    matters, the short one that it still goes on.
    """

    rate: Annotated[float, Field(gt=0, le=100_000)]
    """How many times faster than evenly over the objective's window: at 1 the budget lasts exactly
    as long as the window, at 14.4 an hour spends 2 % of that of 30 days."""
    long: Annotated[Duration, Between("1s", "7d")]
    """The long window."""
    short: Annotated[Duration, Between("1s", "7d")]
    """The short window."""

    @model_validator(mode="after")
    def _shorter(self) -> BurnRate:
        if self.short > self.long:
            raise ValueError("expected short to be no longer than long")
        return self


class ErrorBudget(Model):
    """A guard: the experiment is aborted, and everything undone, once it has spent more of an error
    budget than it may. Time that could not be measured counts as spent.
    """

    name: NodeName
    """What it is called in the report."""
    probe: NodeName | None = None
    """The probe whose answers are counted."""
    traffic: NodeName | None = None
    """Instead of a probe: the traffic whose requests are counted."""
    indicator: Indicator = "answers"
    """What a measurement of the probe says (the service level indicator): `answers`: it is good or
    bad as a whole, for the time since the one before; `errorRatio`: its value is the share of bad
    events, from 0 to 1; `successRatio`: of good ones."""
    objective: Annotated[Percent, Between("1%", "99.9999%")]
    """The service level objective: the share that has to be good. What is missing to 100 % is the
    error budget."""
    window: Annotated[Duration, Between("1s", "366d")] = text("30d")
    """Over how long the objective counts."""
    spend: Annotated[Percent, Between("0%", "100%")]
    """The share of the whole window's budget that the experiment may spend."""
    burn_rates: Annotated[list[BurnRate], Field(max_length=8)] = Field(
        default_factory=list[BurnRate]
    )
    """Also abort when the budget is spent faster than this, over both windows of any of them."""

    @model_validator(mode="after")
    def _one_source(self) -> ErrorBudget:
        if (self.probe is None) == (self.traffic is None):
            raise ValueError("expected exactly one of probe and traffic")
        if self.traffic is not None and self.indicator != "answers":
            raise ValueError(
                "expected indicator only with a probe: requests are counted one by one"
            )
        return self

    @property
    def seconds(self) -> float:
        """The whole budget, in seconds of complete failure."""
        return (100.0 - float(self.objective)) / 100 * self.window.seconds


class BudgetPoint(StatusModel):
    """What was spent until an instant, in seconds of complete failure since the faults began."""

    entry: ClassVar[bool] = True

    at: float
    """Seconds since 1970."""
    boot_ns: int
    """CLOCK_BOOTTIME in nanoseconds."""
    bad: float
    """What was measured as bad."""
    unknown: float = 0.0
    """What could not be measured."""


class BudgetStatus(StatusModel):
    """An error budget of one run."""

    name: NodeName
    points: list[BudgetPoint] = Field(default_factory=list[BudgetPoint])
    """What was spent over time."""
    spent: float = 0.0
    """The share of the budget that was spent, as measured; 1 is all of it."""
    unknown: float = 0.0
    """The share that may have been spent besides, while nothing could be measured."""
    burn: float | None = None
    """The highest burn rate over the shortest window that is looked at (without any, over all of
    the time since the faults began)."""
    began_at: float | None = None
    """From when it counts: the first fault, seconds since 1970."""
    began_ns: int | None = None
    """The same, CLOCK_BOOTTIME."""
    until_ns: int | None = None
    """Until when it has been counted, CLOCK_BOOTTIME."""
    until: float | None = None
    """Of traffic: the beginning of the last second that was counted, seconds since 1970."""
    events: int = 0
    """Requests that were counted."""
    bad_events: int = 0
    """Those of them that failed."""
    exceeded_at: float | None = None
    """When more was spent than may be, seconds since 1970."""
    text: str = ""
    """How it stands, in one sentence."""
