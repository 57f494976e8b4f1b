"""What the load generator can do: requests per second of one core for each protocol, its own lag at
fixed rates, and the error of its latency figures against `wrk` on the same service.

    python -m benchmarks.traffic

On loopback. On a machine with two cores generator and service each have one; other work on the
machine shows in the lag, so it is kept with the load average.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faultline
from benchmarks.figure import Figure, Measured, Missing, alone, median
from faultline.api.traffic import HttpTraffic, RedisTraffic, TcpTraffic, TrafficFigures
from faultline.traffic.run import TrafficRun

ROOT = Path(faultline.__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
TYPES = {"http": HttpTraffic, "redis": RedisTraffic, "tcp": TcpTraffic}
USERS = 16


@contextmanager
def service() -> Generator[str]:
    """The service for as long as the block lasts."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.traffic_service"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    with process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@contextmanager
def redis() -> Generator[int]:
    """A Redis that keeps nothing."""
    with tempfile.TemporaryDirectory() as folder:
        port = 20000 + os.getpid() % 20000
        words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL) as process:
            time.sleep(0.5)
            yield port
            process.kill()


def processor(pids: list[int]) -> float:
    """Seconds of processor time that processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def run(seconds: float, **fields: Any) -> tuple[TrafficFigures, list[float], float]:
    """One load after a second of warm-up: its totals, its own lags, its processor time per
    request.
    """
    kind = fields.get("type", "http")
    given = {"type": kind, "name": "bench", "duration": f"{seconds:g}s", **fields}
    with TrafficRun(TYPES[kind].model_validate(given)) as load:
        time.sleep(1.0)
        before = processor(load.pids), sum(each.sent for each in load.seconds())
        time.sleep(seconds - 0.5)
        used = processor(load.pids) - before[0]
        load.wait(seconds + 30)
        totals, series = load.totals(), load.seconds()
    sent = totals.sent / totals.seconds * (seconds - 0.5)
    return totals, [each.lag * 1e3 for each in series if each.sent], used / max(sent, 1.0)


def most(name: str, seconds: float, **fields: Any) -> Measured:
    """What one core can send, by the processor time of users who never pause.

    The rate that is reached beside it depends on what else the machine does.
    """
    totals, _, each = run(seconds, concurrency=32, **fields)
    reached = totals.ok / totals.seconds
    spread = f"{each * 1e6:.0f} us each; {reached:.0f} 1/s reached, {totals.errors} errors"
    yield Figure(f"traffic, {name}: requests of a core", 1 / each, "1/s", "", spread, totals.sent)


def lag(url: str, rate: float, seconds: float) -> Measured:
    """How late it is by its own fault at a fixed rate."""
    totals, lags, _ = run(seconds, url=f"{url}/fast", rate=rate)
    p50, p99 = ((value or 0) * 1e3 for value in (totals.p50, totals.p99))
    spread = f"{totals.errors} errors, p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    name = f"traffic, http, rate {rate:g}"
    yield Figure(f"{name}: sent", totals.sent / totals.seconds, "1/s", "", spread, totals.sent)
    yield median(f"{name}: own lag, worst of each second", lags, "ms")


def wrk(url: str, seconds: float) -> dict[str, float]:
    """What wrk says of the same: requests per second, and percentiles in seconds."""
    words = ["wrk", "-t1", f"-c{USERS}", f"-d{seconds:g}s", "--latency", url]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = {
        f"p{percent}": float(value) * UNITS[unit]
        for percent, value, unit in re.findall(r"(50|90|99)%\s+([\d.]+)(us|ms|s)", said)
    }
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    return {**found, "rate": float(rate[1]) if rate else 0.0}


def against_wrk(url: str, seconds: float) -> Measured:
    """The same users on the same service whose times are known: by us, by wrk, in turn."""
    if not shutil.which("wrk"):
        yield Missing("traffic: error of latency figures against wrk", "no wrk here")
        return
    ours: list[TrafficFigures] = []
    theirs: list[dict[str, float]] = []
    for _ in range(3):
        theirs.append(wrk(f"{url}/slow", seconds))
        ours.append(run(seconds, url=f"{url}/slow", concurrency=USERS)[0])
    for name in ("p50", "p90", "p99"):
        pairs = [(getattr(a, name), b[name]) for a, b in zip(ours, theirs, strict=True)]
        told = ", ".join(f"{a * 1e3:.2f} / {b * 1e3:.2f}" for a, b in pairs)
        off = [(a - b) * 1e3 for a, b in pairs]
        figure = median(f"traffic, {USERS} users: {name} less that of wrk", off, "ms")
        yield Figure(figure.name, figure.value, "ms", "within 1 ms", f"ours / wrk: {told}", 3)
    rates = [a.ok / a.seconds / b["rate"] * 100 - 100 for a, b in zip(ours, theirs, strict=True)]
    yield median(f"traffic, {USERS} users: requests per second against wrk", rates, "%")
    top = wrk(f"{url}/fast", seconds)["rate"]
    yield Figure("traffic: what wrk gets out of the same service", top, "1/s")


def measure(seconds: float = 5.0) -> Measured:
    """Fixed rates, which show the lag; users who never pause, which show the most; wrk."""
    with service() as url:
        for rate in (50.0, 200.0, 1000.0):
            yield from lag(url, rate, seconds)
        yield from most("http", seconds, url=f"{url}/fast")
        steps = [{"path": "/fast", "pattern": "Hello"}, {"path": "/fast?from={{number}}"}]
        shop = {"baseUrl": url, "scenarios": [{"name": "visit", "steps": steps}]}
        yield from most("http scenario of two steps", seconds, **shop)
        port = int(url.rpartition(":")[2])
        asked = "GET /fast HTTP/1.1\r\n\r\n"
        tcp = {"type": "tcp", "host": "127.0.0.1", "port": port, "payload": asked}
        yield from most("tcp", seconds, **tcp, pattern="world\n")
        yield from against_wrk(url, seconds)
    if not shutil.which("redis-server"):
        yield Missing("traffic, redis: requests of a core", "no redis-server here")
        return
    with redis() as port:
        given: dict[str, Any] = {"type": "redis", "port": port, "commands": [["INCR", "a"]]}
        yield from most("redis", seconds, **given)
        yield from most("redis, 10 at once", seconds, **given, pipeline=10)


if __name__ == "__main__":
    sys.exit(alone(measure))
