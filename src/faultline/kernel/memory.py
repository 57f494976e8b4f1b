"""How much memory there is and is in use, of the host and of a process, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from faultline.kernel.procfs import PROC


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A total (or limit) and how much of it is used, in bytes.

    Of the host, used is what /proc/meminfo calls not available: page cache that can be dropped at
    once is not in it. Of a cgroup, used is its charge without the inactive page cache.
    """

    total: int
    used: int

    @property
    def available(self) -> int:
        return max(0, self.total - self.used)

    @property
    def percent(self) -> float:
        return 100 * self.used / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What a process holds: resident, its fair part of shared pages, swapped, locked; bytes."""

    resident: int
    proportional: int
    swapped: int
    locked: int


def parse_meminfo(text: str) -> dict[str, int]:
    """Fields of /proc/meminfo by name; those in kB become bytes."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def meminfo() -> dict[str, int]:
    """/proc/meminfo by name, in bytes (proc_meminfo(5))."""
    return parse_meminfo((PROC / "meminfo").read_text())


def host_memory() -> MemoryUse:
    """Memory of the whole host."""
    fields = meminfo()
    available = fields.get("MemAvailable", fields["MemFree"])  # MemAvailable: Linux 3.14
    return MemoryUse(fields["MemTotal"], fields["MemTotal"] - available)


def process_memory(pid: int) -> ProcessMemory:
    """What the process holds (proc_pid_smaps_rollup); raises ProcessLookupError,
    PermissionError.
    """
    try:
        fields = parse_meminfo((PROC / str(pid) / "smaps_rollup").read_text())
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error
    return ProcessMemory(
        fields.get("Rss", 0), fields.get("Pss", 0), fields.get("Swap", 0), fields.get("Locked", 0)
    )


def oom_score_adj(pid: int | None = None) -> int:
    """The out-of-memory killer's bias for a process, -1000 (never) to 1000 (first)."""
    return int((PROC / ("self" if pid is None else str(pid)) / "oom_score_adj").read_text())


def set_oom_score_adj(value: int) -> None:
    """Set our own bias; lowering it needs CAP_SYS_RESOURCE (PermissionError).

    Written unbuffered, so that a refusal is raised here and not lost at close.
    """
    with open(PROC / "self" / "oom_score_adj", "wb", buffering=0) as file:
        file.write(b"%d" % value)
