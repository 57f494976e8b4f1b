"""The parent of a load tool: `python -S -P -m faultline.traffic.external.leash PARENT SAYS`.

A tool may be a script that starts others, and a signal for the parent's death reaches one process
only. So this process, in a session of its own, starts the tool in a process group of its own, is
the parent of whatever the tool leaves behind (prctl(2), PR_SET_CHILD_SUBREAPER), and ends all of it
when the tool has ended, when it is told to, at the deadline, and when its own parent dies. If it is
killed itself, the kernel ends the tool (PR_SET_PDEATHSIG).

The first line of its input is the order as JSON: {argv, env, cwd, user: [uid, gid, groups] or
null, deadline: ns of CLOCK_BOOTTIME, own: a folder that is removed if our parent dies, or ''}.
Further lines are `signal NUMBER`, for the tool's process group, and `kill`. It answers on the
descriptor SAYS by lines of JSON: {"pid": N} or {"error": WHY}, and at the end {"ended": EXIT_CODE},
which is negative for a signal.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import shutil
import signal
import sys
from typing import Any, Final

from faultline.kernel import clock, procfs, syscalls

_BACKSTOP: Final = 5 * 10**9  # ns after the deadline until the kernel ends us too
_RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Leash:
    """The tool and what came of it."""

    def __init__(self, order: dict[str, Any], parent: int) -> None:
        self._deadline: int = order["deadline"]
        self._parent = os.pidfd_open(parent)
        self.pid = _start(order)
        self._tool = os.pidfd_open(self.pid)
        self._heard = b""

    def hold(self) -> int:
        """Until the tool has ended or has to end; its exit code, negative for a signal."""
        with selectors.DefaultSelector() as selector, clock.BootTimer(self._deadline) as timer:
            for fd in (0, self._tool, self._parent, timer.fileno()):
                selector.register(fd, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if ready - {0} or (0 in ready and self._hear()):
                    break
        self._kill()
        _, status = os.waitpid(self.pid, 0)
        _end_the_rest()
        return os.waitstatus_to_exitcode(status)

    def _hear(self) -> bool:
        """Do what was said; whether all has to end."""
        said = os.read(0, 4096)
        self._heard += said
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word != b"signal":
                return True
            _signal_group(self.pid, int(number))
        return not said

    def _kill(self) -> None:
        _signal_group(self.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)  # not waited for yet: the number is its
    except (ProcessLookupError, PermissionError):
        return


def _end_the_rest() -> None:
    """Kill what the tool has left, also what has gone into another session: it is ours now."""
    while True:
        for child in procfs.children(os.getpid()):
            child.id.send(signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _start(order: dict[str, Any]) -> int:
    """Start the tool; raises OSError as the child met it."""
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            failed = pipe.read()
        if failed:
            os.waitpid(pid, 0)
            number, _, name = failed.decode().partition(" ")
            raise OSError(int(number), os.strerror(int(number)), name)
        return pid
    doing = str(order["cwd"])
    try:
        os.setpgid(0, 0)
        for each in _RESTORED:
            signal.signal(each, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if order["user"]:
            user, group, groups = order["user"]
            os.setgroups(groups)
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        os.chdir(order["cwd"])
        doing = str(order["argv"][0])
        # After a change of the user, which takes it away.
        syscalls.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - a list of arguments
    except OSError as error:
        os.write(writer, f"{error.errno} {doing}".encode())
    os._exit(1)


def _say(says: int, word: dict[str, Any]) -> None:
    try:
        os.write(says, json.dumps(word).encode() + b"\n")
    except BrokenPipeError:
        return  # nobody listens any more, and the tool is ended for that reason


def main() -> None:
    """Hold one tool; never returns."""
    parent, says = map(int, sys.argv[1:])
    os.set_inheritable(says, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as told:
        order: dict[str, Any] = json.loads(told.readline())
    syscalls.set_name("fl-leash")
    syscalls.set_child_subreaper()
    syscalls.arm_kill_timer(order["deadline"] + _BACKSTOP)
    try:
        leash = Leash(order, parent)
    except OSError as error:
        _say(
            says, {"error": f"{error.filename}: {error.strerror}" if error.filename else str(error)}
        )
        os._exit(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # the tool's alone, or its reader would not see the end of it
    os.dup2(nothing, 2)
    _say(says, {"pid": leash.pid})
    _say(says, {"ended": leash.hold()})
    if order["own"] and os.getppid() != parent:
        # Whoever made the folder for the tool has died, and cannot remove it any more.
        shutil.rmtree(order["own"], ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
