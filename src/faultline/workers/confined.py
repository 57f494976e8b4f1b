"""Runs somebody else's program with as little as its manifest asks for.

Called as `python -I -S -c BOOT CODE faultline.workers.confined ORDER` in a session of its own; it
takes things from itself until the order's limits hold, and then becomes the program, by the
descriptor that was opened and checked before: whoever has replaced the file meanwhile gains
nothing. ORDER is JSON: {fd, argv, parent, limits: {user, group, capabilities, namespaces, memory,
time, files}}, with numbers of capabilities and namespaces as the kernel counts them.
Source: capabilities(7), prctl(2), setrlimit(2), unshare(2), execveat(2).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any, Final

from faultline.kernel import syscalls
from faultline.kernel.syscalls import Namespace, Prctl

_LAST_CAPABILITY: Final = "/proc/sys/kernel/cap_last_cap"
_AMBIENT_RAISE: Final = 2
FAILED: Final = 126  # the exit status of a program that could not be started, as of a shell
CALL: Final = "FAULTLINE_CALL"  # the variable that names the call, and the session that it runs in


def main() -> None:
    """Confine this process and execute; never returns."""
    order: dict[str, Any] = json.loads(sys.argv[-1])
    environment = {**os.environ}
    environment[CALL] = f"{environment.get(CALL, '')} {os.getsid(0)}"
    try:
        _confine(order["limits"], order["parent"])
        # By this name and not by the descriptor alone: a script would be named /dev/fd/N then,
        # which not every host has, and which perl(1) reads from where the last reader stopped.
        program = f"/proc/self/fd/{order['fd']}"
        os.execve(program, order["argv"], environment)  # noqa: S606 - a list of arguments
    except OSError as error:
        sys.stderr.write(f"{order['argv'][0]} could not be started: {error}\n")
    os._exit(FAILED)


def _confine(limits: dict[str, Any], parent: int) -> None:
    if limits["namespaces"]:
        syscalls.unshare(Namespace(limits["namespaces"]))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, limits["files"])
    _limit(resource.RLIMIT_CPU, max(1, int(limits["time"]) + 1))
    allowed: list[int] = limits["capabilities"]
    if os.geteuid() == 0:
        _drop(allowed)
        _become(limits["user"], limits["group"], keep=bool(allowed))
        syscalls.capset(sum(1 << each for each in allowed))
        for each in allowed:
            syscalls.prctl(Prctl.CAP_AMBIENT, _AMBIENT_RAISE, each)
    syscalls.prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    syscalls.set_dumpable(True)  # a change of the user has closed /proc/self to it
    os.umask(0o077)
    os.chdir("/")
    # Last, since a change of the user takes it away: a call must not outlive whoever made it.
    syscalls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(FAILED)
    _limit(resource.RLIMIT_AS, limits["memory"])


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (most, most))


def _drop(allowed: list[int]) -> None:
    """Take everything else from what this process, and whoever it executes, could ever have."""
    with open(_LAST_CAPABILITY, encoding="ascii") as file:
        last = int(file.read())
    for each in range(last + 1):
        if each not in allowed:
            syscalls.prctl(Prctl.CAPBSET_DROP, each)


def _become(user: int, group: int, *, keep: bool) -> None:
    if keep:
        syscalls.prctl(Prctl.SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
