"""pgbench (with `-P 1`), sysbench (with `--report-interval=1`) and redis-benchmark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from faultline.api.traffic_external import ExternalTraffic
from faultline.traffic.external.pieces import Period, Piece, Report, Times, fold
from faultline.traffic.external.reader import NUMBER, Reader, percentile_name, times_of

_EPOCH = 1e9  # a greater number of seconds is a unix time
_REST = 0.5  # seconds: redis-benchmark speaks four times a second, unless it has to wait


class Pgbench(Reader):
    """Transactions. `failed` ones and those that `--latency-limit` has skipped are errors."""

    _PROGRESS: Final = re.compile(
        rf"^progress: ([\d.]+) s, {NUMBER} tps, lat {NUMBER} ms stddev {NUMBER}"
        r"(?:, (\d+) failed)?(?:, lag [\d.]+ ms)?(?:, (\d+) skipped)?"
    )
    _FIGURE: Final = re.compile(
        r"^(number of transactions actually processed|number of failed transactions|"
        r"number of transactions skipped|latency average|tps)(?::| =) ([\d.]+)"
    )

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._last: float | None = None
        self._zero = 0.0
        self._said: dict[str, float] = {}

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if found := self._PROGRESS.match(text):
            self.begun = True
            return [self._period(found, at)]
        if found := self._FIGURE.match(text):
            self._said[found[1]] = float(found[2])
        return ()

    def _period(self, found: re.Match[str], at: float) -> Period:
        said = float(found[1])
        if self._last is None:
            stamped = said > _EPOCH  # --progress-timestamp
            self._zero = self.moment(0.0) if stamped else at - said
            self._last = said - self.spec.interval.seconds if stamped else 0.0
        begin, self._last = self._last, said
        failed, skipped = (float(each or 0) for each in found.group(5, 6))
        kinds = {"failed": failed, "skipped": skipped}
        return Period(
            begin + self._zero,
            said + self._zero,
            ok=float(found[2]) * (said - begin),
            errors=failed + skipped,
            times=Times.in_unit(1e-3, mean=float(found[3])) if float(found[2]) else Times(),
            kinds={kind: count for kind, count in kinds.items() if count},
        )

    def report(self) -> Report | None:
        done = self._said.get("number of transactions actually processed")
        if done is None or "tps" not in self._said:  # the last line
            return None
        ok = int(done)
        kinds = {
            "failed": int(self._said.get("number of failed transactions", 0)),
            "skipped": int(self._said.get("number of transactions skipped", 0)),
        }
        return Report(
            ok=ok,
            errors=sum(kinds.values()),
            seconds=ok / self._said["tps"] if self._said["tps"] > 0 else 0.0,
            times=Times.in_unit(1e-3, mean=self._said.get("latency average")),
            kinds={kind: count for kind, count in kinds.items() if count},
        )


class Sysbench(Reader):
    """Events or transactions. Ignored errors and reconnects are errors."""

    _BEGUN: Final = re.compile(r"^Threads started!")
    _PROGRESS: Final = re.compile(
        rf"^\[ (\d+)s \] thds: \d+ (?:tps|eps): {NUMBER}.*? lat \(ms,(\d+)%\): {NUMBER}"
        rf"(?: err/s: {NUMBER})?(?: reconn/s: {NUMBER})?"
    )
    _FIGURE: Final = re.compile(
        r"^\s+(total time|total number of events|ignored errors|reconnects|avg|max|"
        r"\d+th percentile):\s+([\d.]+)"
    )

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._last = 0.0
        self._zero: float | None = None
        self._said: dict[str, float] = {}

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if self._BEGUN.match(text):
            self.begun = True
            self._zero = at
        elif found := self._PROGRESS.match(text):
            return [self._period(found, at)]
        elif found := self._FIGURE.match(text):
            self._said[found[1]] = float(found[2])
        return ()

    def _period(self, found: re.Match[str], at: float) -> Period:
        said = float(found[1])
        if self._zero is None:
            self._zero = at - said
        begin, self._last = self._last, said
        length = said - begin
        lost = {"error": float(found[5] or 0) * length, "reconnect": float(found[6] or 0) * length}
        name, value = percentile_name(float(found[3])), float(found[4])
        return Period(
            begin + self._zero,
            said + self._zero,
            ok=float(found[2]) * length,
            errors=sum(lost.values()),
            times=Times.in_unit(1e-3, **{name: value}) if name and value else Times(),
            kinds={kind: count for kind, count in lost.items() if count},
        )

    def report(self) -> Report | None:
        if "total number of events" not in self._said:
            return None
        named = (("error", "ignored errors"), ("reconnect", "reconnects"))
        kinds = {kind: int(count) for kind, word in named if (count := self._said.get(word))}
        ok = int(self._said["total number of events"])
        return Report(
            ok=ok,
            errors=sum(kinds.values()),
            seconds=self._said.get("total time", 0.0),
            times=times_of(dict(self._said), 1e-3) if ok else Times(),
            kinds=kinds,
        )


@dataclass(slots=True)
class _Test:
    """One of the tests that redis-benchmark does one after the other."""

    requests: int = 0
    seconds: float = 0.0
    times: Times = field(default_factory=Times)


class RedisBenchmark(Reader):
    """Commands, over all tests. redis-benchmark does not count errors: it ends at a lost server."""

    _PROGRESS: Final = re.compile(
        rf"^\s*(\S.*?): rps={NUMBER} \(overall: {NUMBER}\) avg_msec={NUMBER}"
    )
    _NAME: Final = re.compile(r"^====== (.+) ======$")
    _REQUESTS: Final = re.compile(r"^\s+(\d+) requests completed in ([\d.]+) seconds")
    _VALUES: Final = re.compile(r"^(?:\s+\d+\.?\d*)+$")
    _HEADER: Final = re.compile(r"^\s+avg\s+min\s+p50\s+p95\s+p99\s+max$")

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._test: str = ""
        self._last = 0.0
        self._tests: list[_Test] = []
        self._header: list[str] = []

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if found := self._PROGRESS.match(text):
            return self._progress(found, at)
        if self._NAME.match(text):
            self._tests.append(_Test())
        elif self._tests and (found := self._REQUESTS.match(text)):
            self._tests[-1].requests = int(found[1])
            self._tests[-1].seconds = float(found[2])
        elif self._HEADER.match(text):
            self._header = text.split()
        elif self._header and self._tests and self._VALUES.match(text):
            values = dict(zip(self._header, map(float, text.split()), strict=False))
            self._tests[-1].times = times_of(values, 1e-3)
            self._header = []
        return ()

    def _progress(self, found: re.Match[str], at: float) -> Sequence[Piece]:
        new = not self.begun or found[1] != self._test
        self.begun, self._test = True, found[1]
        begin, self._last = self._last, at
        rate, mean = float(found[2]), float(found[4])
        if new or at <= begin or not 0.0 <= rate < float("inf"):
            return ()
        if not rate and at - begin < _REST:  # the first of a test, before there was anything
            return ()
        return [Period(begin, at, ok=rate * (at - begin), times=Times.in_unit(1e-3, mean=mean))]

    def report(self) -> Report | None:
        done = [test for test in self._tests if test.requests]
        if not done:
            return None
        return Report(
            ok=sum(test.requests for test in done),
            seconds=sum(test.seconds for test in done),
            times=fold([(test.requests, test.times) for test in done]),
        )
