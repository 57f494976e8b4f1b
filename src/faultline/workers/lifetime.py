"""The end of a worker: SIGTERM, its deadline, its parent's death, or the end of the target whose
control groups or namespaces it uses, for it and for its children.

Signals are blocked and waited for, so that they arrive between two steps and never inside one. The
kernel's own timer, which ends a worker that hangs, is armed for each child too: fork does not
inherit it (timer_create(2)).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from faultline.errors import TargetGone
from faultline.kernel import cgroup, clock, procfs, syscalls
from faultline.kernel.cgroup import Group
from faultline.kernel.procfs import ProcessId

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_LOOK = 0.2  # seconds between two looks at the target: what it leaves must not be kept busy
_LOOK_INTO_GROUP = 10**9  # nanoseconds between two looks at who is in a group
_MARK = "faultline:"  # what the last argument of a worker begins with


class _Target:
    """What this process may not outlive, one for a whole worker: a process, held by its pidfd, or
    everybody in a control group but workers of ours.
    """

    fd: int | None = None
    groups: ClassVar[list[Group]] = []
    _next = 0

    @classmethod
    def known(cls) -> bool:
        return cls.fd is not None or bool(cls.groups)

    @classmethod
    def ended(cls) -> bool:
        if cls.fd is not None:
            return syscalls.pidfd_wait(cls.fd, 0)
        if not cls.groups or clock.now() < cls._next:
            return False
        cls._next = clock.now() + _LOOK_INTO_GROUP
        return not any(_lives_in(group) for group in cls.groups)


def _lives_in(group: Group) -> bool:
    """Whether anybody is in the group, or below it, who is no worker of ours."""
    for each in group.walk():
        try:
            members = each.pids()
        except FileNotFoundError:  # it went meanwhile
            continue
        except OSError:  # of threads: not ours to say who is in there
            return True
        if not all(_is_ours(pid) for pid in members):
            return True
    return False


def _is_ours(pid: int) -> bool:
    """Whether it is a worker, or has ended; 0 stands for one that we cannot see."""
    try:
        return pid > 0 and any(each.startswith(_MARK) for each in procfs.process(pid).cmdline)
    except ProcessLookupError:
        return True


def tie(target: dict[str, Any] | None) -> None:
    """Let every `Lifetime` of this process end with the target: {pid, start}, or {group: path} as
    in /proc/PID/cgroup; None: with nobody.

    Raises TargetGone if it has ended already.
    """
    if target is None:
        return
    if "group" in target:
        every = (Group(each, target["group"]) for each in cgroup.layout().hierarchies)
        _Target.groups = [each for each in every if each.exists()]
        return
    try:
        _Target.fd = ProcessId(target["pid"], target["start"]).open()
    except ProcessLookupError as error:
        raise TargetGone(f"the target has ended (pid {target['pid']})") from error


class Lifetime:
    """How long this process may live; made once, before any child."""

    def __init__(self, deadline: int) -> None:
        self._deadline = deadline  # nanoseconds of CLOCK_BOOTTIME
        self._asked = False
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def over(self) -> bool:
        """Whether it is time to end; costs two system calls."""
        return self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; True as soon as it is time to end."""
        until = clock.now() + round(seconds * 1e9)
        while not self._asked:
            left = (min(until, self._deadline) - clock.now()) / 1e9
            nap = min(left, _LOOK) if _Target.known() else left
            found = signal.sigtimedwait(_ENDING, max(0.0, nap))
            now = clock.now()
            self._asked = found is not None or now >= self._deadline or _Target.ended()
            if now >= until:
                break
        return self._asked

    def fork(self, name: str, work: Callable[[], int]) -> int:
        """Run `work` in a child that dies with this process, on SIGTERM and at the deadline.

        Returns the child's pid. The child never returns; its exit status is what `work` returned,
        or the errno of an OSError.
        """
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        status = errno.ENOTRECOVERABLE  # for what is no OSError
        try:
            self.adopt(parent)
            syscalls.set_name(name)
            status = work()
        except OSError as error:
            status = error.errno or errno.EIO
        finally:
            os._exit(status)

    def adopt(self, parent: int) -> None:
        """Make this freshly forked process end with `parent`, on SIGTERM and at the deadline."""
        syscalls.set_parent_death_signal(signal.SIGKILL)
        syscalls.arm_kill_timer(self._deadline)
        for signum in _ENDING:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        if os.getppid() != parent:  # it died before we were tied to it
            os._exit(0)
        _let_go(0, 1, 2)  # the spawner waits for the end of these pipes


def become(user: int, group: int) -> None:
    """Be that user with no other group, in a child that was just adopted.

    A change of credentials clears the signal for the parent's death (prctl(2)): it is asked for
    again.
    """
    parent = os.getppid()
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    syscalls.set_dumpable(False)
    syscalls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _let_go(*descriptors: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in descriptors:
        os.dup2(nothing, fd)
    os.close(nothing)


def reap(children: Collection[int]) -> dict[int, int]:
    """Those of our children that have ended: exit status, negative for a signal."""
    found: dict[int, int] = {}
    for pid in children:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended, status = pid, 0
        if ended:
            found[pid] = os.waitstatus_to_exitcode(status)
    return found


def end_children(children: Collection[int]) -> None:
    """SIGKILL children of this process and wait for them, so that none is left as a zombie."""
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for pid in children:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue
