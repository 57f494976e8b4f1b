"""What all probes have in common: when they measure, and what is expected of them."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from faultline.api.expectation import Expect, Unit
from faultline.api.model import Model, NodeName
from faultline.api.quantities import Between, Duration, text
from faultline.errors import InvalidParameter

Mode = Literal["start", "end", "edge", "continuous", "during"]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression; {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression of Python, searched for anywhere in the text."""

Port = Annotated[int, Field(ge=1, le=65535)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


class ProbeBase(Model):
    """What all probes have in common."""

    unit: ClassVar[Unit] = "s"
    figure: ClassVar[str] = "latency"

    name: NodeName
    """How the experiment refers to it."""
    interval: Annotated[Duration, Between("50ms", "1h")] = text("1s")
    """How often it measures."""
    timeout: Annotated[Duration, Between("10ms", "10m")] = text("5s")
    """How long one measurement may take; a guard never waits longer than its interval."""
    mode: Mode = "continuous"
    """When it counts: `start` (before the faults), `end` (after recovery), `edge` (both),
    `continuous` (from the start to the end), `during` (measured throughout, judged only while
    the faults are in effect)."""
    count: Annotated[int, Field(ge=1, le=10000)] | None = None
    """At the start and at the end: the largest number of measurements. Without it, until the
    time-out of the phase."""
    success_count: Annotated[int, Field(ge=1, le=1000)] = 1
    """At the start and at the end: how many good measurements in a row it takes to hold."""
    failure_count: Annotated[int, Field(ge=1, le=1000)] = 1
    """While measuring throughout: how many bad measurements in a row it takes to fail."""
    blind_count: Annotated[int, Field(ge=1, le=1000)] = 3
    """While measuring throughout: how many measurements in a row may be missing or impossible
    before its answer is `not measured`. A guard that cannot be measured counts as failed."""
    expect: Expect | None = None
    """What its value should be. Without it, the conditions of its type alone decide."""

    def value_unit(self) -> Unit:
        """The unit of this probe's value."""
        return self.unit

    @model_validator(mode="after")
    def _interval_has_the_right_unit(self) -> ProbeBase:
        if self.expect is not None and self.expect.interval is not None:
            try:
                self.expect.bounds(self.value_unit())
            except InvalidParameter as error:
                raise ValueError(f"expected {error.expected}; {error.given!r} is not") from error
        return self
