"""The clock that deadlines are kept on.

CLOCK_BOOTTIME counts from boot, goes on while the machine sleeps and is not moved when somebody
sets the time of day, which is itself one of the faults. With the boot id a time on it names one
instant.
"""

from __future__ import annotations

import os
import select
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from faultline.kernel import syscalls


def now() -> int:
    """Nanoseconds of CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """The random identity of this boot (proc_sys_kernel(5)); it changes with every reboot, which no
    process outlives.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def namespace_offset() -> int:
    """Nanoseconds that a time namespace adds to our CLOCK_BOOTTIME (time_namespaces(7)).

    The kernel's own users of the clock, such as eBPF programs, see `now() - namespace_offset()`.
    """
    try:
        text = Path("/proc/self/timens_offsets").read_text()
    except FileNotFoundError:  # a kernel without time namespaces
        return 0
    for line in text.splitlines():
        name, seconds, nanoseconds = line.split()
        if name in ("boottime", str(syscalls.CLOCK_BOOTTIME)):
            return int(seconds) * 10**9 + int(nanoseconds)
    return 0


class BootTimer:
    """A descriptor that becomes readable at an instant of CLOCK_BOOTTIME; for `select` and
    `poll`.
    """

    def __init__(self, deadline: int = 0) -> None:
        self._fd = syscalls.timerfd_create()
        if deadline:
            self.set(deadline)

    def fileno(self) -> int:
        return self._fd

    def set(self, deadline: int, interval: int = 0) -> None:
        """Expire at `deadline` (0: never), then every `interval` nanoseconds (0: once)."""
        syscalls.timerfd_set(self._fd, deadline, interval)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has expired; False when `timeout` seconds passed before that."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        if not poller.poll(None if timeout is None else max(0, round(timeout * 1000))):
            return False
        os.read(self._fd, 8)
        return True

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def sleep_until(deadline: int) -> None:
    """Sleep until `deadline`, nanoseconds of CLOCK_BOOTTIME; setting the time of day changes
    nothing.

    Signal handlers run meanwhile; an exception from one ends the sleep.
    """
    if deadline <= now():
        return
    with BootTimer(deadline) as timer:
        timer.wait()
