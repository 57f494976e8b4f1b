"""Hold memory so that a measured level of use stands, of the host or of a control group.

A child holds the memory, the parent only watches: when the out-of-memory killer takes the child,
the parent is there to say so. The child compares the measured use with what was asked several times
a second and takes or gives back the difference, so that the level is held while others come and go.
Anonymous memory is locked where that is allowed: otherwise the kernel would swap out just the pages
that nobody uses, which are ours. Page cache is a memory file without a name; it goes with the
process.

Order (spec), beside `deadline` and `stats`: kind     "anonymous" or "cache" percent  of the host's
memory or of the group's limit, or bytes    exactly that much of our own, whatever others use group
{version, folder} of the one whose limit is the whole; without it the host is meant join     folders
of control groups that the child works in rate     bytes per second to grow by; without it as fast
as possible protect  whether to ask that the out-of-memory killer spares us oom      go on beyond
the whole, and start again when killed
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from faultline.errors import InvalidParameter, Unsupported
from faultline.kernel import cgroup_limits, memory, syscalls
from faultline.kernel.cgroup import Group
from faultline.kernel.memory import MemoryUse
from faultline.workers.figures import Figures
from faultline.workers.join import group_from, join_groups
from faultline.workers.lifetime import Lifetime, end_children, reap

STEP: Final = 64 << 20  # what is taken between two looks: bounds how far a growth overshoots
_WATCH: Final = 0.25  # seconds between two looks once the level stands
_GROW: Final = 0.1  # the same while growing at a rate
_RESTART: Final = 1.0  # seconds until an out-of-memory fault begins again
_PAGE: Final = mmap.PAGESIZE
_SPARED: Final = -999  # as low as it goes without being exempt altogether
_UNBOUNDED: Final = 1 << 62


class Store(Protocol):
    """Memory that can be taken and given back."""

    @property
    def size(self) -> int: ...

    def grow(self, size: int) -> None: ...

    def shrink(self, size: int) -> None: ...


class Anonymous:
    """Private pages, touched at once."""

    def __init__(self) -> None:
        self._parts: list[mmap.mmap] = []
        self.size = 0
        try:
            syscalls.mlockall(syscalls.MlockAll.FUTURE)  # each new mapping is present and stays so
            self.locked = True
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EPERM, errno.EAGAIN):
                raise
            self.locked = False
        self._noise = b"" if self.locked else os.urandom(1 << 20)

    def grow(self, size: int) -> None:
        try:
            part = self._map(size)
        except OSError as error:
            if error.errno != errno.EAGAIN or not self.locked:
                raise
            # Beyond what this user may lock (RLIMIT_MEMLOCK): hold the rest unlocked.
            syscalls.munlockall()
            self.locked = False
            self._noise = os.urandom(1 << 20)
            part = self._map(size)
        if not self.locked:
            # Equal or empty pages would be merged or compressed to nothing when swapped.
            for offset in range(0, size, len(self._noise)):
                part[offset : offset + len(self._noise)] = self._noise[: size - offset]
        self._parts.append(part)
        self.size += size

    def _map(self, size: int) -> mmap.mmap:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        return mmap.mmap(-1, size, flags=flags)

    def shrink(self, size: int) -> None:
        left = min(size, self.size) // _PAGE * _PAGE
        while left:
            part = self._parts[-1]
            if len(part) > left:
                part.resize(len(part) - left)  # mremap(2): the rest stays where it is
                self.size -= left
                return
            left -= len(part)
            self.size -= len(part)
            self._parts.pop().close()


class Cache:
    """Pages of a memory file, which count as page cache (tmpfs)."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("faultline")
        self.size = 0

    def grow(self, size: int) -> None:
        syscalls.fallocate(self._fd, syscalls.Fallocate.ALLOCATE, self.size, size)
        self.size += size

    def shrink(self, size: int) -> None:
        self.size = max(0, self.size - size)
        os.ftruncate(self._fd, self.size)


@dataclass(frozen=True, slots=True)
class Target:
    """What level is to stand, and where it is measured."""

    percent: float | None
    size: int | None
    group: Group | None
    beyond: bool

    def use(self) -> MemoryUse:
        """Total and used, of the group or of the host."""
        if self.group is None:
            return memory.host_memory()
        use = cgroup_limits.memory_use(self.group)
        if use is not None:
            return use
        return MemoryUse(memory.host_memory().total, cgroup_limits.memory_working_set(self.group))

    def missing(self, held: int) -> int:
        """Bytes to take (or, negative, to give back) now."""
        if self.beyond:
            return _UNBOUNDED
        if self.size is not None:
            return self.size - held
        use = self.use()
        return int(use.total * (self.percent or 0) / 100) - use.used

    def slack(self) -> int:
        """Differences up to this are left alone: the use of a whole host is never still."""
        return 0 if self.size is not None else max(_PAGE * 64, self.use().total // 1000)


class Report:
    """What the child tells the parent, in memory that they share."""

    _CELL = struct.Struct("qqqq")  # held, locked, protected, standing

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._CELL.size)

    def tell(self, held: int, locked: bool, protected: bool, standing: bool) -> None:
        self._CELL.pack_into(self._memory, 0, held, locked, protected, standing)

    def told(self) -> tuple[int, bool, bool, bool]:
        held, locked, protected, standing = self._CELL.unpack_from(self._memory)
        return held, bool(locked), bool(protected), bool(standing)


def _protect(wanted: bool) -> bool:
    """Ask to be spared; whether it was granted. Some hosts refuse it even to root."""
    try:
        if wanted:
            memory.set_oom_score_adj(_SPARED)
    except PermissionError:
        return False
    return wanted


class Holder:
    """The child: takes memory and holds the level."""

    def __init__(self, spec: dict[str, Any], target: Target, report: Report) -> None:
        self._target = target
        self._report = report
        self._rate = int(spec.get("rate") or 0)
        self._protected = _protect(bool(spec.get("protect")))
        join_groups(spec.get("join", []))
        self._store: Store = Cache() if spec["kind"] == "cache" else Anonymous()

    def run(self) -> int:
        """Hold the level, for ever. ENOMEM where the kernel refuses instead of killing."""
        slack = self._target.slack()
        allowance = float(self._rate) * _GROW
        while True:
            missing = self._target.missing(self._store.size)
            standing = abs(missing) <= slack
            if missing > slack or (missing > 0 and slack == 0):
                self._take(missing, allowance)
            elif missing < 0 and not standing:
                self._store.shrink(min(self._store.size, -missing))
                standing = self._store.size == 0  # others use more than was asked
            told = standing or bool(self._rate)
            locked = isinstance(self._store, Anonymous) and self._store.locked
            self._report.tell(self._store.size, locked, self._protected, told)
            if standing:
                time.sleep(_WATCH)
            elif self._rate:
                time.sleep(_GROW)

    def _take(self, missing: int, allowance: float) -> None:
        step = min(missing, STEP, int(allowance) if self._rate else STEP)
        size = max(_PAGE, -(-step // _PAGE) * _PAGE)
        try:
            self._store.grow(size)
        except OSError as error:
            # Beyond the limit the kernel may refuse (strict overcommit, a full tmpfs): stay there.
            if not self._target.beyond or error.errno not in (errno.ENOMEM, errno.ENOSPC):
                raise
            time.sleep(_WATCH)


def oom_kills(group: Group | None) -> int:
    """How often the out-of-memory killer has struck, in the group or on the host; -1: not known."""
    if group is not None:
        return cgroup_limits.oom_kills(group)
    return cgroup_limits.count_of((memory.PROC / "vmstat").read_text(), "oom_kill")


def _target(spec: dict[str, Any]) -> Target:
    percent, size = spec.get("percent"), spec.get("bytes")
    beyond = bool(spec.get("oom"))
    if spec["kind"] not in ("anonymous", "cache"):
        raise InvalidParameter("kind", spec["kind"], "anonymous or cache")
    if not beyond and (percent is None) == (size is None):
        raise InvalidParameter("percent", percent, "either percent or bytes")
    if percent is not None and not 0 < float(percent) <= 100:
        raise InvalidParameter("percent", percent, "more than 0 and up to 100")
    if size is not None and int(size) < _PAGE:
        raise InvalidParameter("bytes", size, f"at least a page of {_PAGE} bytes")
    group = group_from(spec["group"]) if spec.get("group") else None
    if group and percent is not None and cgroup_limits.memory_limit(group) is None:
        raise Unsupported(
            "the target has no memory limit to take a percentage of", hint="give bytes instead"
        )
    return Target(
        None if percent is None else float(percent),
        None if size is None else -(-int(size) // _PAGE) * _PAGE,
        group,
        beyond,
    )


class Filler:
    """The parent: keeps a holder alive and tells what happens to it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._target = _target(spec)
        self._lifetime = Lifetime(spec["deadline"])
        self._figures = Figures(spec.get("stats", ""))
        self._report = Report()
        self._before = oom_kills(self._target.group)
        self._killed = 0

    def _figure(self) -> dict[str, Any]:
        held, locked, protected, _ = self._report.told()
        use = self._target.use()
        kills = oom_kills(self._target.group)
        return {
            "held": held,
            "total": use.total,
            "used": use.used,
            "percent": round(use.percent, 3),
            "above": held == 0 and not self._killed,
            "locked": locked,
            "protected": protected,
            "killed": self._killed,
            "oom_kills": kills - self._before if kills >= 0 else None,
            "oom_before": self._before if self._before >= 0 else None,
        }

    def run(self, ready: Callable[[dict[str, Any]], None]) -> int:
        """Fill until it is time to end; `ready` is told when the level stands or growth began."""
        told, child = False, self._lifetime.fork("fl-fill-memory", self._hold)
        try:
            while not self._lifetime.wait(_WATCH if told else 0.02):
                for status in reap([child]).values():
                    self._ended(status)
                    if self._lifetime.wait(_RESTART):
                        return 0
                    child = self._lifetime.fork("fl-fill-memory", self._hold)
                standing = self._report.told()[3]  # before the figures that are to show it
                now = self._figure()
                self._figures.publish(now)
                struck = self._killed > 0 or bool(now["oom_kills"])
                if not told and (struck if self._target.beyond else standing):
                    ready(now)
                    told = True
        finally:
            end_children([child])
        return 0

    def _hold(self) -> int:
        return Holder(self._spec, self._target, self._report).run()

    def _ended(self, status: int) -> None:
        """The holder is gone: by the killer, by somebody else, or because it could not go on."""
        if status > 0:
            raise OSError(status, f"memory could not be taken: {os.strerror(status)}")
        self._killed += 1
        held, locked, protected, _ = self._report.told()
        self._report.tell(0, locked, protected, held > 0)


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Fill as ordered until the deadline or SIGTERM."""
    return Filler(spec).run(ready)
