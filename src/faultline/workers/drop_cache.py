"""Drop what the kernel keeps in memory because it may be read again, once or again and again.

Order (spec), beside `deadline` and `stats`: `mode`, 1 page cache, 2 names and inodes, 3 both;
`group`, {version, folder} of the one whose cache is meant, else the host's; `interval` in seconds
from one time to the next, 0 for once.
Source: the kernel's admin-guide/sysctl/vm (drop_caches), cgroup-v2 (memory.reclaim), cgroup-v1
(memory.force_empty).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Final

from faultline.kernel import cgroup_limits, memory
from faultline.kernel.cgroup import Group
from faultline.kernel.procfs import PROC
from faultline.workers.figures import Figures
from faultline.workers.join import group_from
from faultline.workers.lifetime import Lifetime

_HOST: Final = "/proc/sys/vm/drop_caches"
_REST: Final = 60.0  # seconds between two looks once there is nothing left to do


def cached(group: Group | None) -> int:
    """Bytes that could be dropped: page cache and, of the host, names and inodes."""
    if group is not None:
        return cgroup_limits.memory_file_cache(group)
    fields = memory.meminfo()
    pages = fields["Cached"] + fields["Buffers"] - fields.get("Shmem", 0)
    return pages + fields.get("SReclaimable", 0)


def host_drops() -> int:
    """How often somebody had the host's caches dropped; -1 where the kernel does not count it."""
    found = [
        int(line.split()[1])
        for line in (PROC / "vmstat").read_text().splitlines()
        if line.startswith(("drop_pagecache ", "drop_slab "))
    ]
    return sum(found) if found else -1


def drop(group: Group | None, mode: int) -> None:
    """Drop it once."""
    if group is None:
        _write(_HOST, str(mode))
    elif group.version == 1:
        _write(f"{group.folder}/memory.force_empty", "0")
    else:
        size = cached(group)
        try:
            _write(f"{group.folder}/memory.reclaim", f"{size} swappiness=0")
        except OSError as error:
            if error.errno != errno.EINVAL:  # an older kernel knows no such word
                raise
            _write(f"{group.folder}/memory.reclaim", str(size))


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EBUSY):  # less than all of it could be dropped
            raise
    finally:
        os.close(fd)


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Drop as ordered until the deadline or SIGTERM."""
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    group = group_from(spec["group"]) if spec.get("group") else None
    interval = float(spec.get("interval") or 0)
    told = {"counted_before": host_drops(), "before": cached(group), "times": 0}
    while True:
        if not told["times"] or interval:
            before = cached(group)
            drop(group, int(spec["mode"]))
            after = cached(group)
            told |= {"times": told["times"] + 1, "last": before, "after": after}
            figures.publish(told)
            if told["times"] == 1:
                ready(told)
        if lifetime.wait(interval or _REST):
            return 0
