"""What the keepers cost: memory with faults armed, and processor time while nothing is due.

    python -m benchmarks.keepers

Both keepers of a store; the figure is the larger of the two, because each must fit by itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.figure import Figure, Measured, NotHere, alone
from benchmarks.ground import Ground, isolated
from faultline.changes import keepers, launch
from faultline.kernel import memory

ARMED = (1, 10, 50)
IDLE = 10.0  # seconds
SETTLE = 0.5
AIM = "under 15 MiB"


def pids(ground: Ground) -> list[int]:
    """The processes of both keepers."""
    found: list[int] = []
    for role in launch.ROLES:
        connection = keepers.connect(ground.injector.store, role)
        if connection is None:
            raise NotHere(f"keeper {role} does not run")
        with connection:
            found.append(keepers.ask(connection, {"op": "status"})["pid"])
    return found


def sizes(ground: Ground, name: str, aim: str) -> Measured:
    """Resident and proportional memory of the larger keeper."""
    time.sleep(SETTLE)
    held = [memory.process_memory(pid) for pid in pids(ground)]
    for what, values in (
        ("resident", [each.resident for each in held]),
        ("proportional", [each.proportional for each in held]),
    ):
        inside = [value / (1 << 20) for value in values]
        spread = " and ".join(f"{value:.1f}" for value in inside)
        yield Figure(f"keeper, {name}: {what} memory", max(inside), "MiB", aim, spread, 2)


def used(pid: int) -> int:
    """Nanoseconds of processor time that all threads of a process have had (schedstat)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def _all(ground: Ground) -> Measured:
    ground.warm()
    yield from sizes(ground, "nothing armed", AIM)
    made = 0
    for count in ARMED:
        while made < count:
            file = ground.folder / f"file{made}"
            file.write_text("content\n")
            params = {"path": str(file), "permission": "0600"}
            ground.injector.inject(ground.order("file.chmod", **params))
            made += 1
        yield from sizes(ground, f"{count} file faults armed", AIM)
    yield from _idle(ground, made)
    ground.injector.recover_all()
    for _ in range(ARMED[1]):
        params = {"interface": "lo", "percent": "1%", "destination": "127.0.0.9"}
        ground.injector.inject(ground.order("network.loss", **params))
    yield from sizes(ground, f"{ARMED[1]} network faults armed", AIM)


def _idle(ground: Ground, armed: int) -> Measured:
    before = [used(pid) for pid in pids(ground)]
    begun = time.monotonic()
    time.sleep(IDLE)
    took = time.monotonic() - begun
    shares = [
        (used(pid) - then) / 1e7 / took for pid, then in zip(pids(ground), before, strict=True)
    ]
    spread = " and ".join(f"{share:.3f}" for share in shares)
    name = f"keeper, {armed} faults armed, nothing due: processor over {IDLE:.0f} s"
    yield Figure(name, max(shares), "%", "under 0.1 %", spread, 2)


def measure() -> Measured:
    """Memory with 0, 1, 10 and 50 faults, and processor time of waiting."""
    yield from isolated(_all)


if __name__ == "__main__":
    sys.exit(alone(measure))
