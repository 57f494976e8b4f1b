"""How full the kernel's tables of tasks and of open files are, and where they end.

Source: proc_loadavg(5), proc_sys_kernel(5), proc_sys_fs(5).
"""

from __future__ import annotations

from pathlib import Path

from faultline.kernel import procfs

_KERNEL = Path("/proc/sys/kernel")
_FILES = Path("/proc/sys/fs")


def tasks() -> int:
    """How many tasks, each thread one, the host has now."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])


def task_limit() -> int:
    """How many it can have: threads-max or, where that is lower, as many as there are numbers."""
    return min(int((_KERNEL / name).read_text()) for name in ("threads-max", "pid_max"))


def tasks_of(user: int) -> int:
    """How many tasks are counted against the limit of a user: by real user id."""
    found = 0
    for pid in procfs.pids():
        status = procfs.status(pid)
        if status.get("Uid", "").split()[:1] == [str(user)]:
            found += int(status.get("Threads", "1"))
    return found


def files() -> int:
    """How many open files the host has now."""
    return int((_FILES / "file-nr").read_text().split()[0])


def file_limit() -> int:
    """How many it can have; root goes beyond."""
    return int((_FILES / "file-max").read_text())


def files_per_process() -> int:
    """The most that root can allow one process."""
    return int((_FILES / "nr_open").read_text())
