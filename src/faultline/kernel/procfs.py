"""Processes by identity: found in /proc, held by pidfd, never trusted by number alone.

A pid is used again as soon as its process has been waited for, so whatever is remembered about a
process is its pid together with its start time (proc_pid_stat(5), field 22). Signals go through a
descriptor that was checked against that start time.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from faultline.kernel import syscalls

PROC = Path("/proc")
_COMM_LENGTH = 15  # the kernel cuts a name there (TASK_COMM_LEN)
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process of this boot: its pid and its start time in clock ticks since boot."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The identity of the process that has this pid now; raises ProcessLookupError."""
        return cls(pid, _read_stat(pid).start)

    @classmethod
    def current(cls) -> Self:
        return cls.of(os.getpid())

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        try:
            stat = _read_stat(self.pid)
        except ProcessLookupError:
            return False
        return stat.start == self.start and stat.state not in "ZX"

    def open(self) -> int:
        """A pidfd for this very process, to be closed by the caller; raises ProcessLookupError."""
        fd = os.pidfd_open(self.pid)
        try:
            # Checked after opening: the descriptor pins the process that has the pid now.
            if _read_stat(self.pid).start != self.start:
                raise ProcessLookupError(f"process {self.pid} is another one than before")
        except OSError:
            os.close(fd)
            raise
        return fd

    def open_root(self) -> int:
        """A descriptor of this very process's root directory; raises ProcessLookupError.

        Paths below it are walked by openat2(2) with RESOLVE_IN_ROOT only: a link that is followed
        through /proc/PID/root leads out of it.
        """
        pinned = self.open()
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            fd = os.open(PROC / str(self.pid) / "root", flags)
            if self.alive():
                return fd
            os.close(fd)
        except FileNotFoundError:  # it has ended: its entry is empty
            pass
        finally:
            os.close(pinned)
        raise ProcessLookupError(f"process {self.pid} has ended")

    def send(self, signum: int) -> bool:
        """Send a signal to this very process; False if it is gone. Raises PermissionError."""
        try:
            fd = self.open()
        except ProcessLookupError:
            return False
        try:
            signal.pidfd_send_signal(fd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, our child or not; False after `timeout` seconds."""
        try:
            fd = self.open()
        except ProcessLookupError:
            return True
        try:
            return syscalls.pidfd_wait(fd, timeout)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc told about a process at one instant."""

    id: ProcessId
    name: str  # cut at 15 bytes by the kernel
    state: str  # one letter: R S D T t Z X I
    ppid: int
    uid: int  # effective
    cmdline: tuple[str, ...]  # empty: a kernel thread or a zombie

    @property
    def pid(self) -> int:
        return self.id.pid

    @property
    def program(self) -> str:
        """The last part of the first argument; '' for kernel threads."""
        return os.path.basename(self.cmdline[0]) if self.cmdline else ""


@dataclass(frozen=True, slots=True)
class _Stat:
    """Fields of /proc/PID/stat (proc_pid_stat(5))."""

    name: str
    state: str
    ppid: int
    start: int


def _parse_stat(text: str) -> _Stat:
    # The name stands in brackets and may itself hold brackets and blanks.
    left, _, right = text.rpartition(")")
    fields = right.split()
    return _Stat(left.partition("(")[2], fields[0], int(fields[1]), int(fields[19]))


def _read_stat(pid: int) -> _Stat:
    try:
        return _parse_stat((PROC / str(pid) / "stat").read_text(errors="surrogateescape"))
    except FileNotFoundError as error:
        raise ProcessLookupError(f"no process {pid}") from error


def _split(data: bytes) -> tuple[str, ...]:
    # A program that writes its own title leaves a run of zero bytes behind it.
    text = data.rstrip(b"\0")
    return tuple(os.fsdecode(part) for part in text.split(b"\0")) if text else ()


def process(pid: int) -> Process:
    """Read one process; raises ProcessLookupError when there is none (or it ended meanwhile)."""
    folder = PROC / str(pid)
    stat = _read_stat(pid)
    try:
        cmdline = _split((folder / "cmdline").read_bytes())
        uid = folder.stat().st_uid
        status = (folder / "status").read_text(errors="surrogateescape")
    except _GONE as error:
        raise ProcessLookupError(f"no process {pid}") from error
    # The folder's owner is root for processes that are not dumpable; the status file is exact.
    found = re.search(r"^Uid:\s+\d+\s+(\d+)", status, re.MULTILINE)
    effective = int(found[1]) if found else uid
    return Process(ProcessId(pid, stat.start), stat.name, stat.state, stat.ppid, effective, cmdline)


def pids() -> list[int]:
    """The pids of all processes that this procfs shows."""
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def processes() -> Iterator[Process]:
    """All processes, one after the other; those that end meanwhile are left out."""
    for pid in pids():
        try:
            yield process(pid)
        except ProcessLookupError:
            continue


def ancestors(pid: int | None = None) -> list[int]:
    """The pids of parent, grandparent and so on up to init; the nearest first."""
    found: list[int] = []
    current = os.getpid() if pid is None else pid
    while True:
        try:
            current = _read_stat(current).ppid
        except ProcessLookupError:
            return found
        if current == 0 or current in found:
            return found
        found.append(current)


def children(pid: int) -> list[Process]:
    """The processes whose parent is `pid` now."""
    return [each for each in processes() if each.ppid == pid]


def descendants(pid: int) -> list[Process]:
    """This process and all that it started and that they started, as far as they have parents."""
    found = {each.pid: each for each in processes()}
    members = [pid] if pid in found else []
    for member in members:  # grows as it is walked
        members += [each.pid for each in found.values() if each.ppid == member]
    return [found[member] for member in members]


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status (proc_pid_status(5)); {} when the process is gone."""
    try:
        text = (PROC / str(pid) / "status").read_text(errors="surrogateescape")
    except _GONE:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def inner_pid(pid: int) -> int:
    """The number that a process has in its own pid namespace; 0 when it is gone."""
    return int((status(pid).get("NSpid", "").split() or [0])[-1])


def in_group(pid: int, group: str) -> bool:
    """Whether a process is in the control group or below it, in any hierarchy."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    except _GONE:
        return False
    return any(f"{line.split(':', 2)[2]}/".startswith(f"{group}/") for line in lines)


def ourselves() -> frozenset[int]:
    """This process and its ancestors: their command lines quote what the user searches for."""
    return frozenset([os.getpid(), *ancestors()])


def find_by_name(name: str, exclude: Collection[int] = ()) -> list[Process]:
    """Processes with exactly this name; beyond 15 bytes the program's file name must agree too."""
    short = os.fsdecode(os.fsencode(name)[:_COMM_LENGTH])
    return [
        each
        for each in processes()
        if each.pid not in exclude
        and each.name == short
        and (short == name or name in (each.program, os.path.basename(executable(each.pid))))
    ]


def find_by_cmdline(
    pattern: str | re.Pattern[str], exclude: Collection[int] | None = None
) -> list[Process]:
    """Processes whose arguments, joined by blanks, match the regular expression somewhere.

    Kernel threads have none and never match. Left out are `exclude` or, by default, `ourselves()`.
    """
    compiled = re.compile(pattern)
    skipped = ourselves() if exclude is None else exclude
    return [
        each
        for each in processes()
        if each.cmdline and each.pid not in skipped and compiled.search(" ".join(each.cmdline))
    ]


def find_marked(text: str) -> list[Process]:
    """Processes with an argument that holds `text` as a whole `:`-bounded part, such as our marks.

    `faultline:u1` finds `faultline:u1:0` but not `faultline:u12:0`. This process is left out.
    An undo asks this several times, so only of those that may be it more is read than one file.
    """
    wanted = re.compile(rf"(?:^|[^\w:.-]){re.escape(text)}(?![\w.-])")
    needle, own = os.fsencode(text), os.getpid()
    found: list[Process] = []
    for pid in pids():
        if pid == own or needle not in _arguments(pid):
            continue
        with suppress(ProcessLookupError):
            each = process(pid)
            if any(wanted.search(argument) for argument in each.cmdline):
                found.append(each)
    return found


def _arguments(pid: int) -> bytes:
    """The command line as it lies in memory; nothing when the process is gone."""
    try:
        fd = os.open(f"{PROC}/{pid}/cmdline", os.O_RDONLY | os.O_CLOEXEC)
    except _GONE:
        return b""
    try:
        read = b""
        while chunk := os.read(fd, 4096):
            read += chunk
        return read
    except _GONE:
        return b""
    finally:
        os.close(fd)


def environment(pid: int) -> dict[str, str]:
    """The environment that the process began with; {} when it is not ours to read."""
    try:
        entries = _split((PROC / str(pid) / "environ").read_bytes())
    except (*_GONE, PermissionError):
        return {}
    return {name: value for name, eq, value in (e.partition("=") for e in entries) if eq}


def find_by_environment(name: str, value: str | None = None) -> list[Process]:
    """Processes that began with this variable (and this value, if given) in their environment."""
    found: list[Process] = []
    for each in processes():
        variables = environment(each.pid)
        if name in variables and value in (None, variables[name]):
            found.append(each)
    return found


def executable(pid: int) -> str:
    """The path of the running program; '' for kernel threads and what is not ours to see."""
    try:
        return os.readlink(PROC / str(pid) / "exe").removesuffix(" (deleted)")
    except (*_GONE, PermissionError):
        return ""


def thread_states(members: Iterable[int] | None = None) -> Counter[str]:
    """How many threads stand in each state, of all processes or of the given pids.

    'D' is uninterruptible sleep: with 'R' it is what the load average counts.
    """
    states: Counter[str] = Counter()
    for pid in pids() if members is None else members:
        try:
            for thread in os.listdir(PROC / str(pid) / "task"):
                stat = (PROC / str(pid) / "task" / thread / "stat").read_text(
                    errors="surrogateescape"
                )
                states[_parse_stat(stat).state] += 1
        except _GONE:
            continue
    return states


def threads(pid: int) -> list[ProcessId]:
    """The threads of a process, each by its number and start time; [] when it is gone."""
    found: list[ProcessId] = []
    with suppress(*_GONE):
        for name in os.listdir(PROC / str(pid) / "task"):
            with suppress(ProcessLookupError):
                found.append(ProcessId(int(name), _read_stat(int(name)).start))
    return sorted(found, key=lambda each: each.pid)


def descriptors(pid: int) -> dict[int, str]:
    """What each open descriptor refers to; {} when the process is gone or not ours to see."""
    folder = PROC / str(pid) / "fd"
    found: dict[int, str] = {}
    try:
        for name in os.listdir(folder):
            try:
                found[int(name)] = os.readlink(folder / name)
            except FileNotFoundError:
                continue
    except (*_GONE, PermissionError):
        return found
    return found
