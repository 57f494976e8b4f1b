"""What all traffic has in common: how much of it, for how long, and from how many processes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from faultline.api.model import Model, NodeName
from faultline.api.quantities import Between, Duration, text

MOST_WORKERS = 64

Rate = Annotated[float, Field(ge=0, le=1_000_000)]
Users = Annotated[int, Field(ge=0, le=100_000)]


class Stage(Model):
    """A part of a load's curve: from what it was before, evenly up or down to `rate` or
    `concurrency`.
    """

    duration: Annotated[Duration, Between("0s", "7d")]
    """How long the way there takes; 0s is a jump."""
    rate: Rate | None = None
    """Requests per second at its end."""
    concurrency: Users | None = None
    """Users at its end."""


class TrafficJob(Model):
    """Pods that send, instead of the engine: a Job for each, in the namespace of the run."""

    image: str = ""
    """An image with Faultline; without it that of the operator."""
    replicas: Annotated[int, Field(ge=1, le=50)] = 1
    """How many; they share one schedule and one set of figures."""
    node_labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels of the nodes on which they run."""
    pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = ""
    """When the image is fetched; without it as Kubernetes does it."""


class TrafficBase(Model):
    """What all traffic has in common."""

    name: NodeName
    """How the experiment refers to it."""
    rate: Annotated[Rate, Field(gt=0)] | None = None
    """Requests per second, sent on time whatever comes back (open model). Of a scenario, its
    beginnings per second."""
    concurrency: Annotated[Users, Field(ge=1)] | None = None
    """Users, each of whom sends the next request when the answer has come (closed model)."""
    timeout: Annotated[Duration, Between("1ms", "10m")] = text("10s")
    """When an answer is given up and counted as an error."""
    warmup: Annotated[Duration, Between("0s", "1h")] = text("1s")
    """How long it runs before it counts."""
    duration: Annotated[Duration, Between("100ms", "7d")] | None = None
    """How long at most; without it, as long as the experiment."""
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    """Processes that send. One uses one core; they share one schedule and one set of figures."""
    job: TrafficJob | None = None
    """In a cluster: who sends, if it is not the operator itself."""

    def where(self) -> str:
        """What it is sent to, in a few words for people; nothing secret."""
        return ""


class PacedTraffic(TrafficBase):
    """Traffic of our own drivers: they keep the schedule, and measure from it."""

    stages: list[Stage] = Field(default_factory=list[Stage])
    """How `rate` or `concurrency` changes, one stage after the other; the last value stays."""
    think: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """How long a user of the closed model pauses before the next turn."""
    think_most: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """With it, each pause is drawn evenly between `think` and this."""

    @model_validator(mode="after")
    def _one_model(self) -> PacedTraffic:
        if (self.rate is None) == (self.concurrency is None):
            raise ValueError(
                "expected exactly one of rate (open model) and concurrency (closed model)"
            )
        own = "rate" if self.rate is not None else "concurrency"
        for number, stage in enumerate(self.stages):
            given = [name for name in ("rate", "concurrency") if getattr(stage, name) is not None]
            if given != [own]:
                raise ValueError(f"expected {own} alone in stages.{number}, as in the load itself")
        if self.think_most and self.think_most < self.think:
            raise ValueError("expected thinkMost to be at least think")
        return self
