"""A command that is run once when a fault is undone: it starts again what the fault has ended.

It is run at most once. Its note is renamed before it begins; if whoever ran it is killed then,
nobody can know how far it came, and a person is asked. What it writes is kept: in the record if
it ends soon, in a file if it stays.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import ClassVar, Final

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import Refused
from faultline.kernel import netns, syscalls
from faultline.kernel.netlink import Netlink

_TAIL: Final = 2000  # characters of output that the record keeps


class Restart(Kind):
    """spec: {command: argument list with the program's full path, wait: seconds, environment}."""

    name: ClassVar[str] = "restart"

    def takes(self, spec: Data) -> float:
        return float(spec["wait"])

    def capture(self, spec: Data, ctx: Context) -> Data:
        program = spec["command"][0]
        if not os.access(program, os.X_OK) or not os.path.isfile(program):
            raise Refused(f"{program} is not a program that can be run")
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if not ctx.run:
            return Presence.ABSENT
        with marks.folder(ctx) as folder:
            return Presence.OURS if sidecar.exists(folder, ctx) else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        command: tuple[str, ...] = tuple(spec["command"])
        running = own_name(ctx, "running")
        with marks.folder(ctx) as folder:
            if folder.remove(running):
                sidecar.remove(folder, ctx)
                detail = "whoever ran the command was killed: it may have run or not"
                return Outcome(Undone.LEFT, detail, (command,))
            if not sidecar.exists(folder, ctx):
                return Outcome(Undone.ABSENT, "the command has been run")
            if folder.stat(own_name(ctx, "json")) is None:  # killed before anything was done
                sidecar.remove(folder, ctx)
                return Outcome(Undone.ABSENT, "the fault had not begun")
            folder.rename(own_name(ctx, "json"), running)
            try:
                with _network_of(ctx):
                    return self._run(spec, folder, own_name(ctx, "log"))
            finally:
                folder.remove(running)

    def _run(self, spec: Data, folder: Folder, log: str) -> Outcome:
        command: tuple[str, ...] = tuple(spec["command"])
        folder.remove(log)
        out = folder.open_file(log, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            nothing = os.open(os.devnull, os.O_RDONLY)
            try:
                pid = _spawn(command, spec["environment"], nothing, out)
            except OSError as error:
                folder.remove(log)
                return Outcome(Undone.LEFT, f"{command[0]}: {error.strerror}", (command,))
            finally:
                os.close(nothing)
            status = _wait(pid, spec["wait"])
            said = os.pread(out, _TAIL, max(0, os.fstat(out).st_size - _TAIL))
        finally:
            os.close(out)
        text = said.decode(errors="replace").strip()
        said_so = f": {text}" if text else ""
        if status is None:
            where = folder.join(log)
            return Outcome(
                Undone.UNDONE, f"the command runs as pid {pid}, its output is in {where}"
            )
        folder.remove(log)
        if status:
            return Outcome(Undone.LEFT, f"the command ended with {status}{said_so}", (command,))
        return Outcome(Undone.UNDONE, f"the command has ended well{said_so}")

    def describe(self, spec: Data) -> tuple[str, str]:
        return "nothing now", f"run once: {' '.join(spec['command'])}"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return (tuple(spec["command"]),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


@contextmanager
def _network_of(ctx: Context) -> Generator[None]:
    """Inside the fault's network namespace, where a server of it has to listen again.

    A keeper was started in the namespace of the first fault that it kept. Where it may not enter
    another, the command runs in its own.
    """
    with ExitStack() as stack:
        if ctx.netlink is not None:
            with suppress(PermissionError):
                there = netns.of_socket(ctx.netlink.fileno())
                stack.callback(os.close, there)
                stack.enter_context(netns.entered(there))
        yield


def _spawn(command: tuple[str, ...], environment: dict[str, str], nothing: int, out: int) -> int:
    """Start a program in a session of its own, without a fork of this process and its threads."""
    actions = [
        (os.POSIX_SPAWN_DUP2, nothing, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, out, 2),
    ]
    return os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM, signal.SIGINT),
    )


def _wait(pid: int, patience: float) -> int | None:
    """The exit status, negative for a signal; None if it goes on after `patience` seconds."""
    pidfd = os.pidfd_open(pid)
    try:
        syscalls.pidfd_wait(pidfd, patience)
    finally:
        os.close(pidfd)
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None
