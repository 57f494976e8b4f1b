"""Schedules as documents: which experiment runs when, and what is done about overlap, freezes and
what was missed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from faultline.api.calendar import CalendarUse, Zone, instant
from faultline.api.model import Model, Resource, Shorthand, StatusModel
from faultline.api.quantities import Between, Duration

LABEL = "schedule"
"""The label of a run that names the schedule which made it."""
OCCURRENCE = "occurrence"
"""The label of a run with the occurrence that it is for, as ISO 8601 in UTC."""
RESUMED = "faultline.dev/resumed"
"""The annotation of a schedule that is set when it is resumed: it counts from then on."""
LONGEST_NAME = 200
_SECOND = 10**9

DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""What some lines of five fields are also called (crontab(5))."""


def cron_line(text: str) -> str:
    """A line with its fields; raises ValueError with what is wrong."""
    if text.startswith("@every"):
        raise ValueError("expected `every: DURATION` in place of @every")
    line = DESCRIPTORS.get(text.strip().lower(), text)
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise ValueError("cron needs cronsim: pip install 'faultline[experiments]'") from error
    try:
        if next(CronSim(line, datetime(2024, 1, 1)), None) is None:  # noqa: DTZ001 (a wall clock)
            raise ValueError("expected a line that comes at some time")
    except CronSimError as error:
        raise ValueError(
            f"expected 5 fields (minute hour day month weekday), or 6 with seconds before: {error}"
        ) from error
    return line


def _cron(value: str | list[str]) -> str | list[str]:
    if isinstance(value, str):
        cron_line(value)
        return value
    if not value:
        raise ValueError("expected at least one line")
    for line in value:
        try:
            cron_line(line)
        except ValueError as error:
            raise ValueError(f"{line!r}: {error}") from error
    return value


def _instant(text: str) -> str:
    instant(text)
    return text


def _whole_seconds(value: Duration) -> Duration:
    if value % _SECOND:
        raise ValueError("expected whole seconds")
    return value


class When(Model):
    """When a schedule comes: exactly one of `cron`, `every` and `at`."""

    cron: Annotated[str | list[str], AfterValidator(_cron)] | None = None
    """One or several lines of 5 fields (minute, hour, day of month, month, day of week), or of 6
    with the seconds before them; also `@hourly`, `@daily` and their like. Read on the clocks of
    `timeZone`."""
    every: Annotated[Duration, Between("1s", "366d"), AfterValidator(_whole_seconds)] | None = None
    """A fixed interval of time that passes, whatever clocks show."""
    anchor: Annotated[str, AfterValidator(_instant)] | None = None
    """With `every`: an instant that it is counted from, which is the first occurrence. Without it
    the first comes one interval after the schedule was made."""
    at: Annotated[str, AfterValidator(_instant)] | None = None
    """Once, as ISO 8601; without a zone it is read on the clocks of `timeZone`."""

    @model_validator(mode="after")
    def _one(self) -> When:
        if [self.cron, self.every, self.at].count(None) != 2:
            raise ValueError("expected exactly one of cron, every, at")
        if self.anchor is not None and self.every is None:
            raise ValueError("expected `anchor` only with `every`")
        return self

    @property
    def lines(self) -> list[str]:
        """The lines of `cron`, complete."""
        given = [self.cron] if isinstance(self.cron, str) else self.cron or []
        return [cron_line(line) for line in given]


class ExperimentUse(Shorthand):
    """The experiment of a schedule: one of the store by its name, or its spec in place."""

    shorthand = "name"

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=200)]
    """The name of an Experiment in the store; with `spec` what its runs are called after. A text in
    place of the mapping is the name, or the file of an experiment, which `apply` puts in place."""
    spec: dict[str, Any] | None = None
    """The experiment itself, in which `${name}` stands for a parameter."""
    folder: str = ""
    """Where the files that it names are sought; `apply` puts the folder of its own file here."""


class HistoryLimits(Model):
    """How many runs that have ended are kept."""

    succeeded: Annotated[int, Between(0, 1000)] = 3
    """Of those whose verdict is `held`."""
    failed: Annotated[int, Between(0, 1000)] = 5
    """Of all others."""


class ScheduleSpec(Model):
    """Which experiment runs when."""

    experiment: ExperimentUse
    """What runs."""
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Values of the experiment's parameters."""
    when: When
    """When."""
    time_zone: Zone = "UTC"
    """The IANA zone whose clocks are meant."""
    calendars: list[CalendarUse] = Field(default_factory=list[CalendarUse])
    """Freeze windows and working hours. All of them must allow an occurrence."""
    on_freeze: Literal["skip", "delay"] = "skip"
    """What becomes of an occurrence that no calendar allows: left out, or, the last one of a
    freeze, moved to its end."""
    jitter: Annotated[Duration, Between("0s", "7d")] | None = None
    """Each occurrence comes up to so much later, but before the next one and before a freeze. How
    much is drawn from `seed` and the occurrence, so it is the same however often it is asked."""
    seed: str = ""
    """What the jitter is drawn from; by default the name of the schedule."""
    concurrency: Literal["forbid", "replace", "allow"] = "forbid"
    """What happens when a run is still active: the new one is left out; the old one is aborted and
    the new one begins when it has ended; both run."""
    missed: Literal["skip", "once", "all"] = "skip"
    """What was due while no engine looked: left out; only the latest is run; all are, oldest
    first."""
    missed_limit: Annotated[int, Between(1, 100)] = 10
    """With `missed: all`: at most so many, the latest ones."""
    starting_deadline: Annotated[Duration, Between("1s", "366d")] | None = None
    """How late an occurrence may start at all. With `missed: skip`, how late counts as on time; by
    default 15 s."""
    history: HistoryLimits = Field(default_factory=HistoryLimits)
    """How many of its runs are kept."""
    paused: bool = False
    """While paused nothing is started, and nothing is made up for afterwards."""


class Due(StatusModel):
    """An occurrence that is to be run."""

    occurrence: int
    """The instant of the calendar that it stands for, seconds since 1970."""
    at: float
    """When it should have begun, as far as the calendar tells."""
    run: str
    """The name of its run."""
    why: str = ""
    """Why it is late or waits."""


class Past(StatusModel):
    """An occurrence that was run, or could not be."""

    occurrence: int | None = None
    """The instant of the calendar, seconds since 1970; none: somebody triggered it."""
    run: str
    outcome: str = "active"
    """`active`, its verdict, or `not made`."""
    reason: str = ""
    ended: float | None = None
    kept: bool = True
    """Whether the run is still in the store."""


class Note(StatusModel):
    """Why an occurrence was not run."""

    occurrence: int
    text: str


class ScheduleStatus(StatusModel):
    """Where a schedule stands. Written by the engine alone."""

    counts_from: str = ""
    """The parts of the spec by which it counts; when they change it counts from then on."""
    seen: int | None = None
    """The latest occurrence that was decided on, or from when it counts; seconds since 1970."""
    last: int | None = None
    """The latest occurrence that was run."""
    next: float | None = None
    """When the next run begins, as far as the calendar tells."""
    active: list[str] = Field(default_factory=list[str])
    """Its runs that have not ended."""
    creating: list[Due] = Field(default_factory=list[Due])
    """Decided to be run; each is made once."""
    backlog: list[Due] = Field(default_factory=list[Due])
    """Waiting for a run to end, or for a freeze to."""
    started: int = 0
    """Runs that were made."""
    missed: int = 0
    """Occurrences that no engine looked at in time."""
    skipped: int = 0
    """Occurrences that were not run, missed ones included."""
    notes: list[Note] = Field(default_factory=list[Note])
    """Why, for the latest of them."""
    history: list[Past] = Field(default_factory=list[Past])
    """Its runs, newest first."""
    text: str = ""
    """The same in one sentence."""


class Schedule(Resource):
    """An experiment that runs by the calendar: `faultline schedule apply FILE`."""

    plural: ClassVar[str] = "schedules"

    kind: Literal["Schedule"] = "Schedule"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: ScheduleSpec
    """What is wanted."""
    status: ScheduleStatus = Field(default_factory=ScheduleStatus)
    """Where it stands."""

    @model_validator(mode="after")
    def _short_name(self) -> Schedule:
        if len(self.metadata.name) > LONGEST_NAME:
            raise ValueError(f"metadata.name: expected at most {LONGEST_NAME} characters")
        return self
