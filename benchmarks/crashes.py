"""How many kills of the injecting process are survived without residue.

    python -m benchmarks.crashes [KILLS] [SEED]

SIGKILL at a random one of the points between the first word to the journal and the commit, over
faults that are quick to make and different in kind; then recovery, and a comparison of network,
files, mounts, processes and firewall with what was before.
"""

from __future__ import annotations

import random
import sys

from benchmarks.figure import Figure, Measured, Missing, NotHere, alone, row
from benchmarks.ground import compiled
from faultline.injection import registry
from faultline.testing import conformance

SECOND_KERNEL = True
KILLS = 60
FAULTS = (
    "file.add",
    "file.chmod",
    "file.delete",
    "file.move",
    "file.replace",
    "file.truncate",
    "network.loss",
    "network.occupy",
    "network.partition",
    "network.delay",
    "process.stop",
    "cpu.burn",
)


def measure(kills: int = KILLS, seed: int | None = None) -> Measured:
    """So many kills; each is clean or is told as a figure that is missing, with what was left."""
    chosen = random.randrange(1 << 30) if seed is None else seed
    faults = [fault for fault in FAULTS if fault in registry.everything()]
    if not faults:
        raise NotHere("no fault is installed")
    compiled()
    clean = 0
    for number in range(kills):
        fault = faults[number % len(faults)]
        complaints = conformance.check_killed_injector(fault, 1, chosen + number)
        clean += not complaints
        if complaints:
            yield Missing(f"kill of {fault}, seed {chosen + number}", "; ".join(complaints))
    spread = f"{kills} kills, {clean} clean, {len(faults)} faults, seed {chosen}"
    yield Figure(
        "crashes survived without residue", 100 * clean / kills, "%", "100 %", spread, kills
    )


def main() -> int:
    given = [int(word) for word in sys.argv[1:3]]
    if not given:
        return alone(measure)
    for one in measure(*given):
        sys.stdout.write(row(one) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
