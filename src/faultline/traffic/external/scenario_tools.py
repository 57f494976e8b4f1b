"""JMeter, k6 and Locust: what they print, and the files of figures that they write."""

from __future__ import annotations

import csv
import json
import re
import signal
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from faultline.api.traffic_external import ExternalTraffic
from faultline.traffic.external.pieces import Period, Piece, Report, Sample, Times, kind_of
from faultline.traffic.external.reader import NUMBER, Reader, duration, times_of

_STATUS = re.compile(r"^[1-5]\d\d$")


class Jmeter(Reader):
    """The lines of the Summariser, or a JTL as CSV with a line for each sample."""

    _BEGUN: Final = re.compile(r"^Starting (the|standalone) test")
    _SUMMARY: Final = re.compile(
        r"(?:^|\s)(\S+) ([+=])\s+(\d+) in\s+(?:(\d+):(\d\d):(\d\d)|([\d.]+)s)\s+=\s+[\d.,]+/s "
        r"Avg:\s*(-?\d+) Min:\s*(-?\d+) Max:\s*(-?\d+) Err:\s*(\d+)"
    )
    # The first fields that JMeter writes unless it is told otherwise; with a header, as that says.
    _FIELDS: Final = ("timeStamp", "elapsed", "label", "responseCode", "responseMessage",
                      "threadName", "dataType", "success")  # fmt: skip

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._fields: Sequence[str] = self._FIELDS
        self._last: float | None = None
        self._told = [0, 0]  # samples and errors of the periods so far
        self._report: Report | None = None

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if self._BEGUN.match(text):
            self.begun = True
        elif found := self._SUMMARY.search(text):
            self.begun = True
            return self._summary(found, at)
        elif text.startswith("timeStamp,"):
            self._fields = text.split(",")
        elif re.match(r"\d{13},\d+,", text):
            return self._sample(text)
        return ()

    def _summary(self, found: re.Match[str], at: float) -> Sequence[Piece]:
        count, errors = int(found[3]), int(found[11])
        seconds = float(found[7]) if found[7] else 0.0
        if found[4]:
            seconds = int(found[4]) * 3600 + int(found[5]) * 60 + int(found[6])
        times = (
            Times.in_unit(1e-3, mean=float(found[8]), max=float(found[10])) if count else Times()
        )
        kinds = {"failed": errors} if errors else {}
        if found[2] == "=":
            self._report = Report(count - errors, errors, seconds, times, kinds)
            if count <= self._told[0]:
                return ()
            # The first report has no line of its own for what is new: it is all new.
            count, errors = count - self._told[0], errors - self._told[1]
        self._told = [self._told[0] + count, self._told[1] + errors]
        begin = max(0.0, at - max(seconds, 0.1))
        if self._last is not None and at - self._last < seconds + 2.0:  # seconds are rounded
            begin = self._last
        self._last = at
        shares = {kind: float(number) for kind, number in kinds.items()}
        return [Period(begin, at, float(count - errors), float(errors), times, shares)]

    def _sample(self, text: str) -> Sequence[Piece]:
        row = dict(zip(self._fields, next(csv.reader([text])), strict=False))
        try:
            took = int(row["elapsed"]) / 1e3
            at = self.moment(int(row["timeStamp"]) / 1e3) + took  # the stamp is of the beginning
            good = row["success"] == "true"
        except (KeyError, ValueError):
            return ()
        code = row.get("responseCode", "")
        self.begun = True
        if good:
            return [Sample(at, took)]
        if _STATUS.match(code):
            return [Sample(at, took, f"status {code}" if int(code) >= 400 else "failed")]
        return [Sample(at, None, kind_of(row.get("responseMessage", "")))]

    def report(self) -> Report | None:
        return self._report


class K6(Reader):
    """The points of `--out json=FILE`, and the summary at the end."""

    ends_by = signal.SIGINT
    good = frozenset({0, 99})  # 99: a threshold was missed

    _BEGUN: Final = re.compile(r"^running \(")
    _REQUESTS: Final = re.compile(r"^\s*(?:✓|✗)?\s*http_reqs\.*:\s+(\d+)\s+([\d.]+)/s")
    _FAILED: Final = re.compile(
        r"^\s*(?:✓|✗)?\s*http_req_failed\.*:\s+[\d.]+%\s+(?:✓\s+)?(\d+)\s+(?:out of|✗)\s+\d+"
    )
    _DURATION: Final = re.compile(r"^\s*(?:✓|✗)?\s*http_req_duration\.*:\s+(.*=.*)")
    _METRICS: Final = ("http_req_duration", "grpc_req_duration")

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._requests: tuple[int, float] | None = None
        self._failed = 0
        self._named: dict[str, float | None] = {}

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if text.startswith("{"):
            return self._point(text)
        if self._BEGUN.match(text):
            self.begun = True
        elif found := self._REQUESTS.match(text):
            self._requests = int(found[1]), float(found[2])
        elif found := self._FAILED.match(text):
            self._failed = int(found[1])
        elif found := self._DURATION.match(text):
            pairs = (word.partition("=") for word in found[1].split())
            self._named = {name: duration(value) for name, _, value in pairs}
        return ()

    def _point(self, text: str) -> Sequence[Piece]:
        if '"Point"' not in text or "_req_duration" not in text:
            return ()  # most lines are of other metrics
        try:
            word: dict[str, Any] = json.loads(text)
            data: dict[str, Any] = word["data"]
            at = self.moment(datetime.fromisoformat(data["time"]).timestamp())
            took = float(data["value"]) / 1e3
            tags: dict[str, str] = data.get("tags") or {}
        except (ValueError, KeyError, TypeError):
            return ()
        if word.get("metric") not in self._METRICS:
            return ()
        self.begun = True
        status = tags.get("status", "")
        if tags.get("expected_response", "true") == "true" and not tags.get("error"):
            return [Sample(at, took)]
        if _STATUS.match(status):
            return [Sample(at, took, f"status {status}")]
        return [Sample(at, None, kind_of(tags.get("error", "")))]

    def report(self) -> Report | None:
        if self._requests is None:
            return None
        requests, rate = self._requests
        return Report(
            ok=requests - self._failed,
            errors=self._failed,
            seconds=requests / rate if rate else 0.0,
            times=times_of(self._named, 1.0) if requests else Times(),
            kinds={"failed": self._failed} if self._failed else {},
        )


class Locust(Reader):
    """The tables that Locust prints, or its `_stats_history.csv`, which has exact counts and means;
    the percentiles there are those of the last ten seconds.
    """

    good = frozenset({0, 1})  # 1: requests failed

    _BEGUN: Final = re.compile(r"All users spawned")
    _TABLE: Final = re.compile(
        r"^\s*Aggregated\s+(\d+)\s+(\d+)\(\S+\)\s+\|\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\|"
    )
    _HEADER: Final = re.compile(r"^Type\s+Name\s+50%")
    _ROW: Final = re.compile(rf"^\s*Aggregated((?:\s+{NUMBER})+)$")
    _ERROR: Final = re.compile(r"^(\d+)\s{2,}(\S.*)$")
    _HTTP: Final = re.compile(r"HTTPError\(\W*(\d{3})\b")

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._columns: list[str] = []
        self._percentiles: list[str] = []
        self._before: tuple[float, int, int, float] | None = None  # at, requests, errors, sum
        self._report: Report | None = None
        self._first: float | None = None
        self._named: dict[str, float | None] = {}
        self._kinds: dict[str, int] = {}

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if text.startswith("Timestamp,User Count,"):
            self._columns = text.split(",")
        elif self._columns and re.match(r"\d{9,11},", text):
            return self._history(dict(zip(self._columns, next(csv.reader([text])), strict=False)))
        elif found := self._TABLE.match(text):
            return self._table(found, at)
        elif self._HEADER.match(text):
            self._percentiles = [w for w in text.split()[2:] if w.endswith("%")]
        elif self._percentiles and (found := self._ROW.match(text)):
            values = map(float, found[1].split())
            self._named |= dict(zip(self._percentiles, values, strict=False))
        elif found := self._ERROR.match(text):
            status = self._HTTP.search(found[2])
            kind = f"status {status[1]}" if status else kind_of(found[2])
            self._kinds[kind] = self._kinds.get(kind, 0) + int(found[1])
        elif self._BEGUN.search(text):
            self.begun = True
        return ()

    def _table(self, found: re.Match[str], at: float) -> Sequence[Piece]:
        requests, errors = int(found[1]), int(found[2])
        self._named |= {"avg": float(found[3]), "max": float(found[5]), "med": float(found[6])}
        if self._first is None:
            self._first = at
        self._report = Report(requests - errors, errors, at - self._first)
        if self._columns:  # the file has the same, and better
            return ()
        return self._new(at, requests, errors, None)

    def _history(self, row: dict[str, str]) -> Sequence[Piece]:
        try:
            if row["Name"] != "Aggregated":
                return ()
            at = self.moment(float(row["Timestamp"]))
            requests, errors = int(row["Total Request Count"]), int(row["Total Failure Count"])
            mean = float(row["Total Average Response Time"])
        except (KeyError, ValueError):
            return ()
        named = {name: float(row[name]) for name in _PERCENT if row.get(name, "N/A") != "N/A"}
        return self._new(at, requests, errors, mean, named)

    def _new(
        self,
        at: float,
        requests: int,
        errors: int,
        mean: float | None,
        named: dict[str, float] | None = None,
    ) -> Sequence[Piece]:
        """What has come since the totals were told before."""
        self.begun = self.begun or requests > 0
        before = self._before
        if before is not None and at <= before[0]:
            return ()
        self._before = (at, requests, errors, (mean or 0.0) * requests)
        if before is None or not self.begun:
            return ()
        if requests < before[1]:  # it has begun to count anew
            before = (before[0], 0, 0, 0.0)
        count, failed = requests - before[1], errors - before[2]
        times: dict[str, float | None] = dict(named or {}) if count else {}
        if mean is not None and count:
            times["avg"] = max(0.0, (mean * requests - before[3]) / count)
        lost = {"failed": float(failed)} if failed else {}
        return [Period(before[0], at, count - failed, failed, times_of(times, 1e-3), lost)]

    def report(self) -> Report | None:
        if self._report is None or not self._named:
            return None
        return Report(
            self._report.ok,
            self._report.errors,
            self._report.seconds,
            times_of(self._named, 1e-3) if self._report.ok + self._report.errors else Times(),
            self._kinds,
        )


_PERCENT = ("50%", "90%", "95%", "99%")
