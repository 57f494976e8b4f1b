"""Traffic as the engine drives it: start, look while it runs, stop.

Starting takes as long as an interpreter with a client library needs to load (half a second);
sending begins when every generator is ready. Stopped or finished, it leaves no process.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, Self

from faultline.api.traffic import (
    ExternalTraffic,
    OurTraffic,
    TrafficFigures,
    TrafficSecond,
    TrafficSpec,
    TrafficStatus,
)
from faultline.errors import ApplyFailed, ObserveFailed, Unsupported
from faultline.kernel.clock import now
from faultline.traffic.load import load_of
from faultline.traffic.model import SECOND, Load, Tick
from faultline.traffic.running import Running
from faultline.traffic.series import Series
from faultline.traffic.worker import Worker
from faultline.units import Duration

_READY_WITHIN = 30.0
_LEAD = SECOND // 20  # from "go" to the first request


class Generating(Protocol):
    """One generator at work, wherever it is."""

    @property
    def pid(self) -> int: ...

    @property
    def ready(self) -> threading.Event: ...

    @property
    def ended(self) -> threading.Event: ...

    @property
    def ticks(self) -> Sequence[Tick]: ...

    def tell(self, line: bytes) -> None: ...

    def stop(self) -> None: ...

    def failure(self) -> str: ...


class TrafficRun:
    """One load. Its figures may be read from any thread, also after the end."""

    def __init__(
        self,
        spec: OurTraffic,
        *,
        most: int = 0,
        workers: int = 0,
        seed: int | None = None,
        load: Load | None = None,
        begin: Callable[[Load], Generating] | None = None,
    ) -> None:
        """`most`: the longest it may send, ns; `workers`: generator processes, one core each;
        without it as many as the document says. What it chooses is drawn from `seed`. `load` is
        what the generators are told, where that does not follow from the document; `begin` begins
        one of them, where that is no process beside us.
        """
        self.spec = spec
        drawn = secrets.randbits(48) if seed is None else seed
        load = replace(load or load_of(spec, most), seed=drawn)
        self._shares = load.shares(workers or spec.workers)
        self._workers: list[Generating] = []
        self._begin = begin or Worker
        self._series = Series(int(spec.warmup), closed=spec.rate is None)
        self._lock = threading.Lock()  # of the series
        self._begun = 0  # CLOCK_BOOTTIME and unix time of the first second
        self._started = 0.0
        self._ended: float | None = None
        self._failure = ""

    @property
    def pids(self) -> list[int]:
        """The generator processes."""
        return [worker.pid for worker in self._workers]

    @property
    def running(self) -> bool:
        """Whether any generator still sends or waits for answers."""
        return any(not worker.ended.is_set() for worker in self._workers)

    @property
    def failure(self) -> str:
        """Why a generator ended before its time, with figures missing; '' if none did."""
        if self._ended is not None:
            return self._failure
        return next((why for worker in self._workers if (why := worker.failure())), "")

    def start(self) -> Self:
        """Start the generators and let them send; raises ApplyFailed if one cannot."""
        self._workers = [self._begin(share) for share in self._shares]
        deadline = time.monotonic() + _READY_WITHIN
        for worker in self._workers:
            in_time = worker.ready.wait(max(0.0, deadline - time.monotonic()))
            if not in_time or worker.ended.is_set():
                self.stop()
                why = self.failure or f"the generator was not ready after {_READY_WITHIN:g} s"
                lacks = "ModuleNotFoundError" in why
                hint = "pip install 'faultline[all]'" if lacks else ""
                raise ApplyFailed(f"traffic {self.spec.name}: {why}", hint=hint)
        self._begun = now() + _LEAD
        self._started = time.time() + _LEAD / SECOND
        for worker in self._workers:
            worker.tell(b"go %d\n" % self._begun)
        return self

    def _take_over(self) -> Series:
        """The series with all that was said until now; the lock must be held."""
        ended = [worker.ended.is_set() for worker in self._workers]
        said = [list(worker.ticks) for worker in self._workers]
        going = (ticks for ticks, over in zip(said, ended, strict=True) if not over)
        complete = min((ticks[-1].index if ticks else -1 for ticks in going), default=sys.maxsize)
        self._series.extend(said, complete, self._started)
        return self._series

    def snapshot(self, seconds: float = 5.0) -> TrafficFigures:
        """The last complete seconds, warm-up or not; what is unanswered counts as it stands.

        Seconds are counted back from now: before the first is over, and when the load has ended or
        hangs, all counts are 0 and all times None. Raises ObserveFailed if a generator has died.
        """
        if self._failure or (self._ended is None and self.failure):
            raise ObserveFailed(f"traffic {self.spec.name}: {self.failure}")
        with self._lock:
            newest = (now() - self._begun) // SECOND - 1
            return self._take_over().live(newest, max(1, round(seconds)))

    def seconds(self, after: float = 0.0) -> list[TrafficSecond]:
        """The complete seconds that began later than `after`, unix time."""
        with self._lock:
            return [each for each in self._take_over().seconds if each.at > after]

    def totals(self) -> TrafficFigures:
        """All of it after warm-up."""
        with self._lock:
            return self._take_over().totals()

    def status(self) -> TrafficStatus:
        """All that is known, as it is kept in a Run."""
        with self._lock:
            series = self._take_over()
            left = series.unanswered if not self.running else 0
            return TrafficStatus(
                name=self.spec.name,
                started=self._started or None,
                ended=self._ended,
                seconds=list(series.seconds),
                totals=series.totals(),
                text=self.failure or (f"{left} requests were left unanswered" if left else ""),
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the load has ended by itself; False after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for worker in self._workers:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not worker.ended.wait(left):
                return False
        return True

    def finish(self, within: float) -> TrafficStatus:
        """Send no more, wait up to `within` seconds for answers under way, then stop."""
        if self._ended is None:
            for worker in self._workers:
                worker.tell(b"end\n")
            self.wait(within)
        return self.stop()

    def stop(self) -> TrafficStatus:
        """Stop at once, leave no process, and give the result. Idempotent."""
        if self._ended is None:
            self._failure = self.failure
            for worker in self._workers:
                worker.tell(b"stop\n")
            for worker in self._workers:
                worker.stop()
            self._ended = time.time()
        return self.status()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def run_of(spec: TrafficSpec, most: int = 0, seed: int | None = None) -> Running:
    """The load of a document, not yet started; `most`: the longest it may send, ns."""
    if isinstance(spec, ExternalTraffic):
        from faultline.traffic.external.run import ExternalRun

        return ExternalRun(spec, most=most)
    return TrafficRun(spec, most=most, seed=seed)


class Traffics:
    """The loads of one run of an experiment, by name."""

    def __init__(self, most: Duration | None = None) -> None:
        """`most`: the longest that any of them may send."""
        self._most = int(most or 0)
        self._runs: dict[str, Running] = {}

    def start(self, spec: TrafficSpec, seed: int | None = None) -> None:
        """Start one; what it chooses is drawn from `seed`. Raises ApplyFailed."""
        if spec.name in self._runs:
            self._runs[spec.name].stop()
        self._runs[spec.name] = self.made(spec, seed).start()

    def made(self, spec: TrafficSpec, seed: int | None) -> Running:
        """The load, not yet started; raises ApplyFailed, Unsupported."""
        if spec.job is not None:
            raise Unsupported(
                f"traffic {spec.name} is sent by a Job: that is for the operator of a cluster"
            )
        return run_of(spec, self._most, seed)

    def failure(self, name: str) -> str:
        """Why its generator ended before its time; '' if it did not."""
        return self._runs[name].failure if name in self._runs else ""

    def seconds(self, name: str, after: float) -> list[TrafficSecond]:
        """Its complete seconds that began later than `after` (unix time), oldest first."""
        return self._runs[name].seconds(after) if name in self._runs else []

    def figures(self, name: str, window: Duration | None = None) -> TrafficFigures | None:
        """The last `window` of it, or all after warm-up; None before there is any."""
        if name not in self._runs:
            return None
        run = self._runs[name]
        found = run.totals() if window is None else run.snapshot(window.seconds)
        return found if found.seconds else None

    def stop(self, name: str) -> TrafficFigures | None:
        """Send no more, wait for the answers under way, and give the totals; harmless twice."""
        if name not in self._runs:
            return None
        run = self._runs[name]
        return run.finish(run.spec.timeout.seconds + 1.0).totals

    def close(self) -> None:
        """Stop all of them at once. Idempotent."""
        for run in self._runs.values():
            run.stop()
