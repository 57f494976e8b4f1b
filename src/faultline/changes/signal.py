"""Signals to processes by identity: one that has no undo, and the stop, which has.

A process is its pid together with its start time, held by a pidfd while the signal is sent
(pidfd_send_signal(2)); a number alone is given to somebody else as soon as it is free.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import Refused, TargetGone, Unsupported
from faultline.kernel import clock, procfs
from faultline.kernel.netlink import Netlink

_PATIENCE = 1.0  # seconds until a continued process no longer reads as stopped


def _identity(spec: Data) -> procfs.ProcessId:
    return procfs.ProcessId(spec["pid"], spec["start"])


def _who(spec: Data) -> str:
    return f"{spec['name']} (pid {spec['pid']})"


def _look(spec: Data) -> procfs.Process | None:
    """The process, if it is still this one and no zombie."""
    if not _identity(spec).alive():
        return None
    try:
        return procfs.process(spec["pid"])
    except ProcessLookupError:
        return None


def _capture(spec: Data) -> Data:
    found = _look(spec)
    if found is None:
        raise TargetGone(f"{_who(spec)} has ended")
    try:
        os.kill(spec["pid"], 0)
    except PermissionError as error:
        raise Unsupported(f"{_who(spec)} is not yours to signal", hint="try as root") from error
    return {"state": found.state, "boot": clock.boot_id()}


class Signalled(Kind):
    """spec: {pid, start, name, signal, several}. Nothing lasts that could be undone.

    One of `several` may have ended already because another one was hit.
    """

    name: ClassVar[str] = "signalled"
    instant: ClassVar[bool] = True

    def capture(self, spec: Data, ctx: Context) -> Data:
        return _capture(spec)

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        if not _identity(spec).send(spec["signal"]):
            if spec.get("several"):
                return {}
            raise TargetGone(f"{_who(spec)} ended before the signal was sent")
        return {"sent": clock.now()}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        return Outcome(Undone.ABSENT, "a signal that was sent cannot be taken back")

    def describe(self, spec: Data) -> tuple[str, str]:
        return f"send {signal.Signals(spec['signal']).name} to {_who(spec)}", "nothing to undo"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return ()


class Stopped(Kind):
    """spec: {pid, start, name}. Undo continues it if it is still this process and still stopped."""

    name: ClassVar[str] = "stopped"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"stop:{spec['pid']}:{spec['start']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        prior = _capture(spec)
        if prior["state"] in "Tt":
            raise Refused(f"{_who(spec)} is stopped already, by somebody else")
        return prior

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        if not _identity(spec).send(signal.SIGSTOP):
            raise TargetGone(f"{_who(spec)} ended before it was stopped")
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        found = _look(spec) if prior.get("boot", clock.boot_id()) == clock.boot_id() else None
        if found is None:
            return Presence.GONE
        return Presence.OURS if found.state == "T" else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data) -> Outcome:
        found = _look(spec) if prior.get("boot", clock.boot_id()) == clock.boot_id() else None
        if found is None:
            return Outcome(Undone.GONE, f"{_who(spec)} has ended")
        if found.state != "T":
            return Outcome(Undone.ABSENT, f"{_who(spec)} is not stopped")
        _identity(spec).send(signal.SIGCONT)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            found = _look(spec)
            if found is None or found.state != "T":
                return Outcome(Undone.UNDONE, f"{_who(spec)} goes on")
            time.sleep(0.002)
        detail = f"{_who(spec)} is still stopped after SIGCONT"
        return Outcome(Undone.FAILED, detail, (("kill", "-CONT", str(spec["pid"])),))

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"stop {_who(spec)} by SIGSTOP",
            "continue it by SIGCONT if it is still this process and still stopped",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return (("kill", "-CONT", str(spec["pid"])),) if _look(spec) else ()

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))
