"""A load tool as the engine drives it: start, look while it runs, stop."""

from __future__ import annotations

import signal
import threading
import time
from typing import Self

from faultline.api.traffic import TrafficFigures, TrafficSecond, TrafficStatus
from faultline.api.traffic_external import ExternalTraffic
from faultline.errors import ApplyFailed, ObserveFailed
from faultline.kernel.clock import now
from faultline.traffic.external.course import Course
from faultline.traffic.external.formats import reader_for
from faultline.traffic.external.reader import Reader
from faultline.traffic.external.tool import Tool

_SECOND = 10**9
_LONGEST = 8 * 86400 * _SECOND  # bounded even where neither document nor engine names a bound
_PATIENCE = 5.0  # seconds to wait for a sign that it sends; some tools give none
_AT_ONCE = 0.5  # seconds in which a tool that cannot work at all has ended
_GRACE = 5 * _SECOND  # after its time-out, until it is ended without us


class ExternalRun:
    """One load. Its figures may be read from any thread, also after the end."""

    def __init__(self, spec: ExternalTraffic, *, most: int = 0) -> None:
        """`most`: the longest it may run, ns."""
        self.spec = spec
        bounds = [int(spec.warmup) + int(spec.duration)] if spec.duration is not None else []
        self._most = min([*bounds, most or _LONGEST])
        self._lock = threading.Lock()  # of the reader and its course
        self._ending = threading.Lock()  # two must not stop it at once
        self._tool: Tool | None = None
        self._reader: Reader = reader_for(spec, 0.0)
        self._course = Course(0.0, 0.0)
        self._understood = False
        self._closed = False
        self._timer: threading.Timer | None = None
        self._asked = False  # to end before its time
        self._late = False
        self._ended: float | None = None

    @property
    def pids(self) -> list[int]:
        """The process of the tool."""
        return [self._tool.pid] if self._tool else []

    @property
    def running(self) -> bool:
        """Whether the tool is there."""
        return self._tool is not None and not self._tool.ended.is_set()

    @property
    def failure(self) -> str:
        """Why it ended in another way than it should, with figures missing; '' if it did not."""
        tool = self._tool
        if tool is None or self._asked or not tool.ended.is_set():
            return ""
        name = self.spec.where()
        if not self._good(tool.code):
            return f"{name} {_how(tool.code)}{self._words()}"
        with self._lock:
            self._read()
        if not self._understood:
            return f"nothing that {name} said was understood as {self.spec.format}{self._words()}"
        return ""

    def _good(self, code: int | None) -> bool:
        wanted = self.spec.code
        return wanted == "any" or (code in self._reader.good if wanted is None else code == wanted)

    def _words(self) -> str:
        """Its last lines, those of its complaints if it has any."""
        assert self._tool is not None
        last = self._tool.last["err"] or self._tool.last["out"]
        return ": " + " / ".join(list(last)[-3:]) if last else ""

    def start(self) -> Self:
        """Start it, and wait a little for a sign that it sends; raises ApplyFailed."""
        grace = int(self.spec.timeout) + _GRACE
        try:
            self._tool = Tool(self.spec, now() + self._most + grace)
        except ApplyFailed as error:
            message = f"traffic {self.spec.name}: {error.message}"
            raise ApplyFailed(message, hint=error.hint) from error
        self._reader = reader_for(self.spec, self._tool.started)
        self._course = Course(self._tool.started, self.spec.warmup.seconds)
        self._tool.listen(self._line)
        self._await(self._tool)
        if why := self.failure:
            self.stop()
            raise ApplyFailed(f"traffic {self.spec.name}: {why}")
        if self._most < _LONGEST:
            self._timer = threading.Timer(self._most / _SECOND, self._out_of_time)
            self._timer.daemon = True
            self._timer.start()
        return self

    def _await(self, tool: Tool) -> None:
        until = time.monotonic() + (_PATIENCE if self._reader.says_begun else _AT_ONCE)
        while time.monotonic() < until and not tool.ended.wait(0.02):
            if self._reader.begun:
                return

    def _line(self, text: str, at: float) -> None:
        with self._lock:
            for piece in self._reader.line(text, at):
                self._course.add(piece)
                self._understood = True

    def _out_of_time(self) -> None:
        self.finish(self.spec.timeout.seconds)

    def _read(self) -> Course:
        """What was read so far; the lock must be held."""
        if self._tool and self._tool.ended.is_set() and not self._closed:
            self._closed = True
            self._course.close()
            self._understood |= self._reader.report() is not None
        return self._course

    def snapshot(self, seconds: float = 5.0) -> TrafficFigures:
        """The last complete seconds, warm-up or not; none of them if the tool has told of none.

        Raises ObserveFailed if it has failed.
        """
        if why := self.failure:
            raise ObserveFailed(f"traffic {self.spec.name}: {why}")
        with self._lock:
            return self._read().live(time.time(), max(1, round(seconds)))

    def seconds(self, after: float = 0.0) -> list[TrafficSecond]:
        """The complete seconds that began later than `after`, unix time."""
        with self._lock:
            return [each for each in self._read().seconds if each.at > after]

    def totals(self) -> TrafficFigures:
        """All of it after warm-up."""
        with self._lock:
            found = self._read().totals(self._reader.report())
        if self._ended is not None and not found.seconds and not self.failure:
            return found.model_copy(update={"text": "it was stopped before it told any figures"})
        return found

    def status(self) -> TrafficStatus:
        """All that is known, as it is kept in a Run."""
        totals = self.totals()
        late = "it did not end when it was asked to, and was killed" if self._late else ""
        text = self.failure or late
        with self._lock:
            return TrafficStatus(
                name=self.spec.name,
                started=self._tool.started if self._tool else None,
                ended=self._ended,
                seconds=list(self._course.seconds),
                totals=totals,
                text=text,
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the tool has ended by itself; False after `timeout` seconds."""
        return self._tool is None or self._tool.ended.wait(timeout)

    def finish(self, within: float) -> TrafficStatus:
        """Ask it to end and to print its report, wait up to `within` seconds, then stop."""
        with self._ending:
            if self.running and self._ended is None and self._tool:
                self._asked = True
                self._tool.signal(self._reader.ends_by)
                self._late = not self._tool.ended.wait(within)
        return self.stop()

    def stop(self) -> TrafficStatus:
        """Stop at once, leave no process, and give the result. Idempotent."""
        if self._tool and self._ended is None:
            self._asked |= self.running
            self._tool.hurry()  # before the lock: who waits there for its end need not wait long
        with self._ending:
            if self._ended is None:
                if self._timer:
                    self._timer.cancel()
                if self._tool:
                    self._tool.kill()
                self._ended = time.time()
        return self.status()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _how(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "was killed"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
