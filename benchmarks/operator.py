"""The operator: one Fault on many hosts, with a real API server and simulated agents.

python -m benchmarks.operator
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.figure import Figure, Measured, alone
from benchmarks.standing import FAULTS, NAMESPACE, Standing, standing

HOSTS = int(os.environ.get("FAULTLINE_BENCH_HOSTS", "500"))
EACH = int(os.environ.get("FAULTLINE_BENCH_TARGETS", "20"))


def measure() -> Measured:
    """Time to all effective and to all recovered; what the operator uses of everything."""
    with standing(HOSTS, EACH) as there:
        yield from _one_fault(there)


def _one_fault(there: Standing) -> Measured:
    targets, agents = HOSTS * EACH, there.agents
    operator, server = there.operator.pid, there.server
    idle = _bytes(operator, "VmRSS:")
    before = _processor(server), _processor(os.getpid())
    begun = time.monotonic()
    there.delay("many")
    status = there.until(
        FAULTS, "many", lambda s: s.get("counts", {}).get("effective", 0) >= targets, NAMESPACE
    )
    effective = time.monotonic() - begun
    begun = time.monotonic()
    there.client.delete(FAULTS, "many", NAMESPACE)
    there.until(FAULTS, "many", lambda s: not s, NAMESPACE)
    recovered = time.monotonic() - begun
    left = agents.suffering()
    processor, most = _processor(operator), _bytes(operator, "VmHWM:")
    others = [_processor(pid) for pid in (server, os.getpid())]
    used = [now - then for now, then in zip(others, before, strict=True)]
    spent = there.ended()
    of = f"{targets} targets on {HOSTS} simulated hosts"
    note = f"{of}; {status.get('effect')}; two cores with server, agents and operator"
    yield Figure("operator: from apply to all effective", effective, "s", spread=note)
    note = f"{left} left in place" if left else "nothing left in place"
    yield Figure("operator: from delete to all recovered and gone", recovered, "s", spread=note)
    note = f"with {targets} pods watched; {idle / 2**20:.0f} MiB before the fault"
    yield Figure("operator: memory, at most", most / 2**20, "MiB", "under 300 MiB", spread=note)
    yield Figure("operator: requests per target", spent / targets, "", "under 2",
                 spread=f"{spent} in all, lists, watches and its lease with them")  # fmt: skip
    yield Figure("operator: requests per target, with those of the agents",
                 (spent + agents.requests) / targets, "", "under 2",
                 spread=f"{agents.requests} of agents, their leases apart")  # fmt: skip
    yield Figure("operator: processor for one fault, from begin to end", processor, "s",
                 spread=f"API server {used[0]:.0f} s, agents {used[1]:.0f} s")  # fmt: skip


def _bytes(pid: int, name: str) -> int:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line[0] == name), 0)


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    alone(measure)
