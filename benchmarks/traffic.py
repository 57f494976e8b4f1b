"""What the load generator itself can do: its top rate on one core, and its own lag at fixed rates.

    python -m benchmarks.traffic

Against the demo service on loopback. On a machine with two cores generator and service each have
one; other work on the machine shows in the lag, so it is kept with the load average.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import faultline
from benchmarks.figure import Figure, Measured, alone, median
from faultline.api.traffic import HttpTraffic
from faultline.traffic.run import TrafficRun

SOURCE = Path(faultline.__file__).parents[1]


@contextmanager
def service() -> Generator[str]:
    """The demo service for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "faultline.demo.service"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


def load(url: str, seconds: float, **load: float) -> Measured:
    """One load of so many seconds after one of warm-up: what was reached, and how late we were."""
    spec = HttpTraffic.model_validate(
        {"type": "http", "name": "bench", "url": url, "duration": f"{seconds:g}s", **load}
    )
    with TrafficRun(spec) as run:
        run.wait(seconds + 30)
        totals, series = run.totals(), run.seconds()
    lags = [second.lag * 1e3 for second in series if second.sent]
    name = "traffic, " + ", ".join(f"{key} {value:g}" for key, value in load.items())
    p50, p95 = ((value or 0) * 1e3 for value in (totals.p50, totals.p95))
    spread = f"{totals.errors} errors, p50 {p50:.2f} ms, p95 {p95:.2f} ms"
    yield Figure(f"{name}: sent", totals.sent / totals.seconds, "1/s", "", spread, totals.sent)
    yield median(f"{name}: own lag, worst of each second", lags, "ms")


def measure(seconds: float = 5.0) -> Measured:
    """Fixed rates, which show the lag, and a closed loop, which shows the top rate."""
    with service() as url:
        for rate in (50.0, 200.0, 1000.0):
            yield from load(f"{url}/work", seconds, rate=rate)
        yield from load(f"{url}/health", seconds, concurrency=32)


if __name__ == "__main__":
    sys.exit(alone(measure))
