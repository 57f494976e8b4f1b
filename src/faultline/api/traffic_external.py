"""Traffic of another load tool."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from faultline.api.quantities import Between, Duration, text
from faultline.api.traffic_base import TrafficBase
from faultline.api.traffic_parts import Texts

Format = Literal[
    "wrk",
    "hey",
    "pgbench",
    "redis-benchmark",
    "sysbench",
    "jmeter",
    "k6",
    "locust",
    "regex",
    "json-lines",
]

Figure = Literal["rate", "ok", "errors", "p50", "p90", "p95", "p99", "max", "mean", "at"]
"""What a line may tell: `rate` (answers per second, good and bad), `ok` and `errors` (good and bad
answers per second), times, and `at`, the end of the time that it speaks of."""

FIGURES = frozenset(Figure.__args__)
_COUNTS = {"rate", "ok", "errors"}


class ExternalTraffic(TrafficBase):
    """Another load tool: started as an argument list, its output read as figures second by second.
    How much it sends is said by its own arguments.
    """

    type: Literal["external"]
    """Another tool."""
    command: Annotated[list[str], Field(min_length=1, max_length=1000)]
    """The program and its arguments; no shell."""
    format: Format
    """How its output is to be read."""
    results: str = ""
    """A file of figures that it writes (below `cwd`), read as it grows: a JTL of JMeter, the
    `--out json=` of k6, the `_stats_history.csv` of Locust. Without it, what it prints."""
    pattern: Annotated[str, Field(max_length=4000)] = ""
    """With `regex`: a regular expression whose named groups are figures (rate, ok, errors, p50,
    p90, p95, p99, max, mean, at); each line that has it is one interval."""
    fields: dict[Figure, str] = Field(default_factory=dict[Figure, str])
    """With `json-lines`: where each figure lies in the object, as `stats.latency.p95`. Without it,
    figures are fields of the same name."""
    unit: Literal["s", "ms", "us", "ns"] = "ms"
    """With `regex` and `json-lines`: the unit of the times."""
    interval: Annotated[Duration, Between("10ms", "1h")] = text("1s")
    """With `regex` and `json-lines`: how long a time each line speaks of."""
    env: Texts = Field(default_factory=Texts)
    """Variables added to a small clean environment: texts, or where a secret lies."""
    cwd: str = ""
    """Its working folder; without it, a new one that is removed at the end."""
    user: str = ""
    """Whom to run it as; without it, as the caller."""
    code: int | Literal["any"] | None = None
    """The exit code that is good. Without it 0, and those by which k6 and Locust tell that
    requests failed."""
    timeout: Annotated[Duration, Between("1ms", "10m")] = text("10s")
    """How long it is given to print its report when the traffic stops; then it is killed."""
    warmup: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """How long it runs before it counts. With a warm-up the totals are summed up from its seconds;
    without one they are those of its own report."""

    def where(self) -> str:
        return PurePath(self.command[0]).name

    @model_validator(mode="after")
    def _what_it_sends_is_its_own(self) -> ExternalTraffic:
        given = {
            name for name in ("rate", "concurrency", "workers") if name in self.model_fields_set
        }
        if given:
            raise ValueError(
                f"expected no {' or '.join(sorted(given))}: the arguments of the tool say how much"
            )
        if any("\0" in word for word in self.command):
            raise ValueError("expected no NUL character in command")
        return self

    @model_validator(mode="after")
    def _figures_can_be_read(self) -> ExternalTraffic:
        if bool(self.pattern) != (self.format == "regex"):
            raise ValueError("expected pattern with format regex, and only with it")
        if self.fields and self.format != "json-lines":
            raise ValueError("expected fields only with format json-lines")
        if self.pattern:
            _check_groups(self.pattern)
        if self.fields and not _COUNTS & set(self.fields):
            raise ValueError("expected rate, ok or errors among fields")
        return self


def _check_groups(pattern: str) -> None:
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"expected pattern to be a regular expression: {error}") from error
    if unknown := sorted(groups - FIGURES):
        raise ValueError(f"expected groups of {', '.join(sorted(FIGURES))}; not {unknown[0]}")
    if not groups & _COUNTS:
        raise ValueError("expected a group named rate, ok or errors in pattern")
