"""wrk (also wrk2) and hey: both speak at their end; `hey -o csv` tells of each request."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import Final

from faultline.api.traffic_external import ExternalTraffic
from faultline.traffic.external.pieces import Piece, Report, Sample, kind_of
from faultline.traffic.external.reader import Reader, duration, times_of


class Wrk(Reader):
    """The report of wrk. Without `--latency` it has no percentiles."""

    ends_by = signal.SIGINT
    says_begun = False  # its first line waits in a buffer until its end

    _LATENCY: Final = re.compile(r"^\s+Latency\s+(\S+)\s+\S+\s+(\S+)\s+\S+$")
    _PERCENTILE: Final = re.compile(r"^\s+(\d+\.?\d*)%\s+(\S+)$")
    _REQUESTS: Final = re.compile(r"^\s+(\d+) requests in ([^,\s]+),")
    _SOCKETS: Final = re.compile(
        r"^\s+Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)"
    )
    _BAD: Final = re.compile(r"^\s+Non-2xx or 3xx responses: (\d+)")

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._named: dict[str, float | None] = {}
        self._kinds: dict[str, int] = {}
        self._requests: tuple[int, float] | None = None

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if found := self._LATENCY.match(text):
            self._named |= {"avg": duration(found[1]), "max": duration(found[2])}
        elif found := self._PERCENTILE.match(text):
            self._named[f"{found[1]}%"] = duration(found[2])
        elif found := self._REQUESTS.match(text):
            self._requests = int(found[1]), duration(found[2]) or 0.0
        elif found := self._SOCKETS.match(text):
            names = ("connect", "read", "write", "timeout")
            counts = (int(each) for each in found.groups())
            self._kinds |= {k: n for k, n in zip(names, counts, strict=True) if n}
        elif found := self._BAD.match(text):
            self._kinds["status"] = int(found[1])
        return ()

    def report(self) -> Report | None:
        if self._requests is None:
            return None
        requests, seconds = self._requests
        return Report(
            ok=requests - self._kinds.get("status", 0),
            errors=sum(self._kinds.values()),
            seconds=seconds,
            times=times_of(self._named, 1.0),
            kinds=self._kinds,
        )


class Hey(Reader):
    """The report of hey, or its `-o csv`: one line for each request, all at the end."""

    ends_by = signal.SIGINT
    says_begun = False

    _TOTAL: Final = re.compile(r"^\s+(Total|Slowest|Average):\s+([\d.]+) secs")
    _PERCENTILE: Final = re.compile(r"^\s+(\d+)%+ in ([\d.]+) secs")
    _STATUS: Final = re.compile(r"^\s+\[(\d{3})\]\s+(\d+) responses")
    _ERROR: Final = re.compile(r"^\s+\[(\d+)\]\s+(\S.*)")
    _ROW: Final = re.compile(r"^(\d+\.\d+)(?:,\d+\.\d+){5},(\d{3}),(\d+\.\d+)$")
    _LAST: Final = "Status code distribution:"
    _ERRORS: Final = "Error distribution:"

    def __init__(self, spec: ExternalTraffic, started: float) -> None:
        super().__init__(spec, started)
        self._named: dict[str, float | None] = {}
        self._seconds = 0.0
        self._kinds: dict[str, int] = {}
        self._ok = 0
        self._section = ""
        self._complete = False

    def line(self, text: str, at: float) -> Sequence[Piece]:
        if row := self._ROW.match(text):
            took, status, offset = float(row[1]), int(row[2]), float(row[3])
            return [Sample(offset + took, took, "" if status < 400 else f"status {status}")]
        if text.strip().endswith(":") and not text.startswith(" "):
            self._section = text.strip()
            self._complete |= self._section == self._LAST
        elif found := self._TOTAL.match(text):
            if found[1] == "Total":
                self._seconds = float(found[2])
            else:
                word = "max" if found[1] == "Slowest" else "avg"
                self._named[word] = float(found[2])
        elif found := self._PERCENTILE.match(text):
            self._named[f"{found[1]}%"] = float(found[2])
        elif self._section == self._ERRORS and (found := self._ERROR.match(text)):
            self._count(kind_of(found[2]), int(found[1]))
        elif found := self._STATUS.match(text):
            if int(found[1]) < 400:
                self._ok += int(found[2])
            else:
                self._count(f"status {found[1]}", int(found[2]))
        return ()

    def _count(self, kind: str, number: int) -> None:
        self._kinds[kind] = self._kinds.get(kind, 0) + number

    def report(self) -> Report | None:
        if not self._complete:
            return None
        answered = self._ok or any(kind.startswith("status") for kind in self._kinds)
        return Report(
            ok=self._ok,
            errors=sum(self._kinds.values()),
            seconds=self._seconds,
            times=times_of(self._named if answered else {}, 1.0),
            kinds=self._kinds,
        )
