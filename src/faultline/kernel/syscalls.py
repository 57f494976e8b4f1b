"""System calls that the standard library does not offer, one typed function each.

They go through `syscall(2)` with the numbers of the architecture wherever the C library may be too
old or another one (musl) to have a wrapper. A failure is an `OSError` with errno and the call's
name or the path, like those of the `os` module. 64-bit Linux on x86-64, arm64 and riscv64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from faultline.kernel.calls import call

CLOCK_BOOTTIME: Final = 7
_TIMER_ABSTIME: Final = 1
_CLONE_VFORK: Final = 0x4000


class Prctl(IntFlag):
    """Options of prctl(2) that are used here."""

    SET_PDEATHSIG = 1
    GET_PDEATHSIG = 2
    GET_DUMPABLE = 3
    SET_DUMPABLE = 4
    SET_KEEPCAPS = 8
    SET_NAME = 15
    CAPBSET_DROP = 24
    SET_TIMERSLACK = 29
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVS = 38
    CAP_AMBIENT = 47


class Resolve(IntFlag):
    """How openat2(2) may walk a path."""

    NONE = 0
    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class MlockAll(IntFlag):
    """Flags of mlockall(2); ONFAULT locks pages when they are first used, without growing now."""

    CURRENT = 1
    FUTURE = 2
    ONFAULT = 4


class Fallocate(IntFlag):
    """Modes of fallocate(2)."""

    ALLOCATE = 0
    KEEP_SIZE = 0x01
    PUNCH_HOLE = 0x02
    COLLAPSE_RANGE = 0x08
    ZERO_RANGE = 0x10


class Rename(IntFlag):
    """Flags of renameat2(2)."""

    NONE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class Namespace(IntFlag):
    """Kinds of namespace, as in clone(2), setns(2) and unshare(2)."""

    TIME = 0x00000080
    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


def _timespec(nanoseconds: int) -> bytes:
    return struct.pack("qq", *divmod(nanoseconds, 10**9))


def arm_kill_timer(deadline: int, signum: int = signal.SIGKILL) -> int:
    """Have the kernel send `signum` to this process at `deadline`, nanoseconds of CLOCK_BOOTTIME.

    The kernel does it even when the process is stopped, hung or swapped out, and a deadline that
    has passed takes effect at once. Returns the timer's id for `disarm_kill_timer`. Timers are not
    inherited by fork and are lost by exec (timer_create(2)).
    """
    event = ctypes.create_string_buffer(struct.pack("qii", 0, signum, 0), 64)  # SIGEV_SIGNAL
    timer = ctypes.c_int(-1)
    call("timer_create", CLOCK_BOOTTIME, event, ctypes.byref(timer))
    # A zero value would disarm it; the first nanosecond after boot has passed for everybody.
    when = struct.pack("qq", 0, 0) + _timespec(max(deadline, 1))
    call("timer_settime", timer.value, _TIMER_ABSTIME, ctypes.create_string_buffer(when), 0)
    return timer.value


def disarm_kill_timer(timer: int) -> None:
    """Delete a timer of this process."""
    call("timer_delete", timer)


def timerfd_create() -> int:
    """A timer descriptor on CLOCK_BOOTTIME, close-on-exec (timerfd_create(2); `os` has it from
    3.13).
    """
    return call("timerfd_create", CLOCK_BOOTTIME, os.O_CLOEXEC)


def timerfd_set(fd: int, deadline: int, interval: int = 0) -> None:
    """Expire at `deadline` (absolute, nanoseconds; 0 disarms), then every `interval`
    nanoseconds.
    """
    value = ctypes.create_string_buffer(_timespec(interval) + _timespec(deadline))
    call("timerfd_settime", fd, _TIMER_ABSTIME, value, 0)


def prctl(option: Prctl, *args: int) -> None:
    """Set any other option of this process, such as `SET_NO_NEW_PRIVS` (prctl(2))."""
    call("prctl", option, *args, *([0] * (4 - len(args))))


def capset(capabilities: int) -> None:
    """Keep exactly these, bits by number: effective, permitted and inheritable (capset(2))."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    data = ctypes.create_string_buffer(struct.pack("6I", low, low, low, high, high, high), 24)
    call("capset", header, data)


def set_parent_death_signal(signum: int = signal.SIGKILL) -> None:
    """Get `signum` when the thread that forked this process ends.

    The caller compares `os.getppid()` afterwards: a parent that died before the call sends nothing.
    """
    call("prctl", Prctl.SET_PDEATHSIG, signum, 0, 0, 0)


def set_name(name: str) -> None:
    """Set this thread's name (its first 15 bytes), as `ps` shows it."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    call("prctl", Prctl.SET_NAME, buffer, 0, 0, 0)


def set_last_argument(text: str) -> None:
    """Write over the last argument of this process, as /proc/PID/cmdline shows it; what was there
    must be longer. Source: proc_pid_stat(5), arg_end.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open("/proc/self/cmdline", "rb") as file:
        room = len(file.read().removesuffix(b"\0").rpartition(b"\0")[2])
    data = text.encode()
    if len(data) > room:
        raise OSError(errno.ENOSPC, "there is no room for the mark")
    end = int(fields[46])  # the 49th; those in front of the brackets are two
    ctypes.memmove(end - room - 1, data + bytes(room - len(data)), room)


def set_dumpable(dumpable: bool) -> None:
    """Whether others of the same user may trace this process and read its memory."""
    call("prctl", Prctl.SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_child_subreaper(reaper: bool = True) -> None:
    """Become the parent of orphaned descendants, so that they can be waited for."""
    call("prctl", Prctl.SET_CHILD_SUBREAPER, int(reaper), 0, 0, 0)


def set_timer_slack(nanoseconds: int) -> None:
    """How late this thread's sleeps may end (default 50 microseconds)."""
    call("prctl", Prctl.SET_TIMERSLACK, nanoseconds, 0, 0, 0)


def mlockall(flags: MlockAll = MlockAll.CURRENT | MlockAll.FUTURE | MlockAll.ONFAULT) -> None:
    """Keep this process's pages in memory (ENOMEM above RLIMIT_MEMLOCK without CAP_IPC_LOCK)."""
    call("mlockall", int(flags))


def munlockall() -> None:
    """Let all pages be swapped again."""
    call("munlockall")


def openat2(
    dirfd: int, path: str, flags: int, resolve: Resolve = Resolve.NONE, mode: int = 0
) -> int:
    """Open `path` below `dirfd` under the rules of `resolve`; close-on-exec (openat2(2), Linux
    5.6).

    With `Resolve.IN_ROOT` the folder acts as the root: absolute links and '..' stay inside it.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, int(resolve))
    name = ctypes.create_string_buffer(os.fsencode(path))
    return call(
        "openat2", dirfd, name, ctypes.create_string_buffer(how, len(how)), len(how), about=path
    )


def setns(fd: int, kinds: Namespace | int = 0) -> None:
    """Enter the namespace of `fd`, or those of a pidfd named in `kinds` (`os` has it from 3.12)."""
    call("setns", fd, int(kinds))


def unshare(kinds: Namespace) -> None:
    """Leave the given namespaces for new ones (`os` has it from 3.12)."""
    call("unshare", int(kinds))


def syncfs(fd: int) -> None:
    """Write out everything of the file system that `fd` lies on (syncfs(2))."""
    call("syncfs", fd, unlocked=True)


def ioprio_get(tid: int) -> int:
    """The I/O priority of a thread: its class, shifted by 13, and its level (ioprio_get(2))."""
    return call("ioprio_get", 1, tid)


def ioprio_set(tid: int, value: int) -> None:
    """Set it, in the same form."""
    call("ioprio_set", 1, tid, value)


def swapon(path: str, flags: int) -> None:
    """Use a device or a file for swapping (swapon(2))."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    call("swapon", name, flags, about=path)


def swapoff(path: str) -> None:
    """Read everything back from it and use it no more; ENOMEM where that does not fit.

    Takes as long as the reading does; a signal that ends this process leaves it in use.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    call("swapoff", name, about=path, unlocked=True)


def umount(path: str, flags: int = 0) -> None:
    """Take a mount away from this mount namespace (umount2(2))."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    call("umount2", name, flags, about=path)


def reboot(command: int) -> None:
    """Restart or power off at once (reboot(2)); in a pid namespace it ends only that."""
    call("reboot", 0xFEE1DEAD, 672274793, command, 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of another process's descriptor (needs the right to trace it; Linux 5.6)."""
    return call("pidfd_getfd", pidfd, fd, 0)


def pidfd_wait(pidfd: int, timeout: float | None) -> bool:
    """Wait up to `timeout` seconds (None: for ever) until the process has ended; True if it has."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0, round(timeout * 1000))))


def fallocate(fd: int, mode: Fallocate, offset: int, length: int) -> None:
    """Allocate, punch or zero a range; EOPNOTSUPP where the file system cannot (fallocate(2)).

    Unlike `os.posix_fallocate` it never falls back to writing.
    """
    call("fallocate", fd, int(mode), offset, length, unlocked=True)


def renameat2(
    old_dirfd: int, old: str, new_dirfd: int, new: str, flags: Rename = Rename.NOREPLACE
) -> None:
    """Rename without replacing (EEXIST), or exchange two names in one step (renameat2(2))."""
    source = ctypes.create_string_buffer(os.fsencode(old))
    target = ctypes.create_string_buffer(os.fsencode(new))
    call("renameat2", old_dirfd, source, new_dirfd, target, int(flags), about=old)


@dataclass(frozen=True, slots=True)
class Statx:
    """What statx(2) adds to stat: birth time (0: unknown), mount id (0: unknown), attributes."""

    inode: int
    device: tuple[int, int]
    birth: int
    mount_id: int
    attributes: int
    direct_memory_alignment: int
    direct_offset_alignment: int


_STATX_BTIME: Final = 0x0800
_STATX_MNT_ID: Final = 0x1000
_STATX_DIOALIGN: Final = 0x2000
_AT_EMPTY_PATH: Final = 0x1000
_AT_SYMLINK_NOFOLLOW: Final = 0x100


def statx(dirfd: int, path: str = "") -> Statx:
    """Read the extended status of `path` (never followed when a link), or of `dirfd` itself if
    ''.
    """
    buffer = ctypes.create_string_buffer(256)
    name = ctypes.create_string_buffer(os.fsencode(path))
    flags = _AT_SYMLINK_NOFOLLOW | (0 if path else _AT_EMPTY_PATH)
    wanted = 0x7FF | _STATX_BTIME | _STATX_MNT_ID | _STATX_DIOALIGN
    call("statx", dirfd, name, flags, wanted, buffer, about=path)
    mask, _, attributes = struct.unpack_from("IIQ", buffer, 0)
    (inode,) = struct.unpack_from("Q", buffer, 32)
    seconds, nanoseconds = struct.unpack_from("qI", buffer, 80)
    major, minor, mount_id = struct.unpack_from("IIQ", buffer, 136)
    memory, offset = struct.unpack_from("II", buffer, 152)
    return Statx(
        inode=inode,
        device=(major, minor),
        birth=seconds * 10**9 + nanoseconds if mask & _STATX_BTIME else 0,
        mount_id=mount_id if mask & _STATX_MNT_ID else 0,
        attributes=attributes,
        direct_memory_alignment=memory if mask & _STATX_DIOALIGN else 0,
        direct_offset_alignment=offset if mask & _STATX_DIOALIGN else 0,
    )


def fork_and_wait() -> int:
    """Fork so that this process sleeps uninterruptibly until the child ends (clone(2),
    CLONE_VFORK).

    Returns 0 in the child and, once the child has ended or executed another program, its pid in the
    parent. Memory is copied as by fork, so the child may go on in Python. Only SIGKILL ends the
    sleep. Single-threaded callers only: no handler of `os.register_at_fork` runs.
    """
    return call("clone", _CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0)
