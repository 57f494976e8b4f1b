"""From go to measured effect, and from stop to measured absence.

    python -m benchmarks.effect

As a command, with keepers that are running and with keepers that must be started first, and inside
a process that has everything loaded. What was asked for as delay is taken off. Measured effect is
`observe`; measured absence is that no step leaves a residue, and for a delay that a packet of the
benchmark's own is not late.
"""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figure import Measured, Missing, alone, median, timed
from benchmarks.ground import Ground, isolated, tried
from faultline.injection.reading import Effect

SECOND_KERNEL = True
TIMES = 10
DELAY = 100  # ms


@dataclass(frozen=True)
class Case:
    """One fault with what its reading itself takes, in ms: that is part of what was asked."""

    fault: str
    params: dict[str, str] = field(default_factory=dict[str, str])
    asked: float = 0.0
    """ms that the fault was asked to delay, which no measurement can be quicker than."""
    times: int = TIMES
    aims: tuple[str, str] = ("", "")
    """For a command and for a warm process."""

    @property
    def name(self) -> str:
        return self.fault.replace(".", " ")


CASES = (
    Case(
        "network.delay",
        {"interface": "lo", "latency": f"{DELAY}ms"},
        DELAY,
        TIMES,
        ("under 250 ms", "under 20 ms"),
    ),
    Case("network.loss", {"interface": "lo", "percent": "30%"}),
    Case("cpu.burn", {"percent": "60%", "count": "1"}, 0.0, 3),
    Case("file.chmod", {"path": "@file", "permission": "0600"}),
)


def lateness() -> float:
    """Milliseconds that one packet of ours takes over loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.settimeout(5)

        def there() -> None:
            own.sendto(b"x", own.getsockname())
            own.recv(16)

        return timed(there)


def _absent(ground: Ground, case: Case, uid: str) -> None:
    """Raise unless nothing of the fault is left."""
    left = ground.injector.residue(uid)
    late = lateness() if case.fault == "network.delay" else 0.0
    if left or late > DELAY / 2:
        raise RuntimeError(f"{case.name} is not gone: {left}, a packet took {late:.1f} ms")


def in_process(ground: Ground, case: Case, params: dict[str, Any]) -> Measured:
    """With everything loaded and the keepers running."""
    begun: list[float] = []
    ended: list[float] = []
    for turn in range(case.times + 1):
        ground.warm()
        start = time.perf_counter()
        record = ground.injector.inject(ground.order(case.fault, **params))
        reading = ground.injector.observe(record.uid)
        effect = time.perf_counter()
        ground.injector.recover(record.uid)
        _absent(ground, case, record.uid)
        gone = time.perf_counter()
        if reading.effect is not Effect.EFFECTIVE:
            yield Missing(f"{case.name}, warm process", f"{reading.effect}: {reading.reason}")
            return
        if turn:  # the first one loads
            begun.append((effect - start) * 1000 - case.asked)
            ended.append((gone - effect) * 1000)
    less = ", asked delay taken off" if case.asked else ""
    yield median(f"{case.name}, warm process: go to effect{less}", begun, "ms", case.aims[1])
    yield median(f"{case.name}, warm process: stop to absence", ended, "ms", case.aims[1])


def as_command(ground: Ground, case: Case, params: dict[str, Any], warm: bool) -> Measured:
    """The same as two processes."""
    family, _, fault = case.fault.partition(".")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in params.items()]
    begun: list[float] = []
    ended: list[float] = []
    for turn in range(case.times):
        uid = f"bench-{fault}-{turn}-{int(warm)}"
        (ground.warm if warm else ground.cold)()
        start = time.perf_counter()
        done = ground.command("inject", family, fault, *flags, "--uid", uid, "-t", "10m")
        effect = time.perf_counter()
        undone = ground.command("recover", uid)
        _absent(ground, case, uid)
        gone = time.perf_counter()
        if done.returncode or undone.returncode:
            words = " ".join((done.stderr or done.stdout or undone.stderr).split())
            status = f"status {done.returncode} and {undone.returncode}"
            yield Missing(f"{case.name}, command, turn {turn}", f"{status}: {words}")
            continue
        begun.append((effect - start) * 1000 - case.asked)
        ended.append((gone - effect) * 1000)
    if not begun:
        return
    how = f"command, keepers {'running' if warm else 'not running'}"
    less = ", asked delay taken off" if case.asked else ""
    yield median(f"{case.name}, {how}: go to effect{less}", begun, "ms", case.aims[0])
    if warm:
        yield median(f"{case.name}, {how}: stop to absence", ended, "ms", case.aims[0])


def _all(ground: Ground) -> Measured:
    file = ground.folder / "file"
    file.write_text("content\n")
    for case in CASES:
        params = {k: v.replace("@file", str(file)) for k, v in case.params.items()}
        read = {k: int(v) if v.isdigit() and k == "count" else v for k, v in params.items()}
        yield from tried(case.name, lambda c=case, p=read: in_process(ground, c, p))
        for warm in (True, False):
            yield from tried(
                case.name, lambda c=case, p=params, w=warm: as_command(ground, c, p, w)
            )


def measure() -> Measured:
    """Medians over the turns; loopback of a network namespace of its own."""
    yield from isolated(_all)


if __name__ == "__main__":
    sys.exit(alone(measure))
