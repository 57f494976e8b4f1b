"""The changes that end a container by its runtime, and start it again.

What is stopped is started again at the deadline if it is still there and nobody has started it
meanwhile; what is removed is lost.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

from faultline.changes import marks, runtimes, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import ApplyFailed, TargetGone, Unsupported
from faultline.kernel import clock, netns, procfs
from faultline.kernel.netlink import Netlink
from faultline.kernel.procfs import ProcessId

_ABOUT: Final = 2.0  # seconds beyond its grace until a container that was asked to end has ended
_NOTED = 5.0  # seconds in which a daemon notes that a container has ended


def _process(spec: Data) -> ProcessId:
    return ProcessId(spec["pid"], spec["start"])


def _gone(spec: Data) -> TargetGone:
    return TargetGone(f"{spec['name']} has ended (pid {spec['pid']})")


@contextmanager
def _outside(spec: Data) -> Generator[None]:
    """In the network that the container was started from: Podman makes its network anew with it.

    That of its parent, the process that watches over it; the caller is in the container's own.
    """
    try:
        there = os.open(f"/proc/{procfs.process(spec['pid']).ppid}/ns/net", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        raise _gone(spec) from None
    try:
        with netns.entered(there):
            yield
    finally:
        os.close(there)


def _capture(spec: Data) -> Data:
    if not _process(spec).alive():
        raise _gone(spec)
    try:
        known = runtimes.of(spec).first()
    except OSError as error:
        raise Unsupported(
            f"{spec['runtime']} cannot be asked: {_why(error)}",
            hint="container kill and container pause work without it",
        ) from error
    if known != spec["pid"]:
        raise _gone(spec)
    return {"boot": clock.boot_id()}


def _why(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"


class ContainerStopped(Kind):
    """spec: {container, pid, start, name, runtime, socket | tool, grace: seconds, again: bool}.

    With `again` it is started at once; undo only sees to it that it runs.
    """

    name: ClassVar[str] = "container_stopped"
    survives_reboot: ClassVar[bool] = True

    def takes(self, spec: Data) -> float:
        return runtimes.SLOW + float(spec["grace"])

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"the life of container {spec['container']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        return _capture(spec)

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        runtime, process = runtimes.of(spec), _process(spec)
        with _outside(spec):
            try:
                runtime.stop(process, spec["grace"])
                if not process.wait(runtimes.SLOW):
                    raise ApplyFailed(f"{spec['name']} does not end")
                if spec["again"]:
                    runtime.start()
            except ConnectionError as error:
                raise ApplyFailed(str(error)) from error
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if _process(spec).alive() or not _begun(prior, ctx):
            return Presence.ABSENT
        first = runtimes.of(spec).first()
        if first is None:
            return Presence.GONE
        return Presence.ABSENT if first else Presence.OURS

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior, ctx)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data, ctx: Context) -> Outcome:
        # Whoever asked for its end may have been killed, and its runtime be about to end it.
        if not _begun(prior, ctx) or not _process(spec).wait(spec["grace"] + _ABOUT):
            return Outcome(Undone.ABSENT, f"{spec['name']} was not ended")
        runtime = runtimes.of(spec)
        first = runtime.first()
        until = time.monotonic() + _NOTED
        while first == spec["pid"] and time.monotonic() < until:
            time.sleep(0.05)  # a daemon hears of the end a moment after it
            first = runtime.first()
        if first is None:
            return Outcome(Undone.GONE, f"{spec['name']} has been removed")
        if first:
            return Outcome(Undone.ABSENT, f"{spec['name']} runs already (pid {first})")
        runtime.start()
        first = runtime.first()
        if not first or runtimes.alive(first) is None:
            detail = f"{spec['name']} was started and does not run: it may have ended by itself"
            return Outcome(Undone.LEFT, detail, runtime.typed())
        return Outcome(Undone.UNDONE, f"{spec['name']} runs again (pid {first})")

    def describe(self, spec: Data) -> tuple[str, str]:
        grace = f"after {spec['grace']:g} s by SIGKILL"
        then = ", and start it again" if spec["again"] else ""
        return (
            f"stop {spec['name']} by {spec['runtime']}, {grace}{then}",
            f"start it by {spec['runtime']} if it is there and does not run",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return runtimes.of(spec).typed()

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


def _begun(prior: Data, ctx: Context) -> bool:
    """Whether it may have been stopped by us: the note of it is lost with a reboot."""
    if not ctx.run or prior.get("boot", clock.boot_id()) != clock.boot_id():
        return True
    return bool(marks.noted(ctx))


class ContainerRemoved(Kind):
    """spec: {container, pid, start, name, runtime, socket | tool}. Nothing of it can come back."""

    name: ClassVar[str] = "container_removed"
    instant: ClassVar[bool] = True

    def capture(self, spec: Data, ctx: Context) -> Data:
        if spec["runtime"] != "cri-o":
            return _capture(spec)
        if not _process(spec).alive():
            raise _gone(spec)
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with _outside(spec):
            try:
                runtimes.of(spec).remove()
            except ConnectionError as error:
                raise ApplyFailed(str(error)) from error
        if not _process(spec).wait(runtimes.SLOW):
            raise ApplyFailed(f"{spec['name']} does not end")
        return {"removed": clock.now()}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        return Outcome(Undone.ABSENT, "a container that was removed cannot be brought back")

    def describe(self, spec: Data) -> tuple[str, str]:
        return f"end and remove {spec['name']} by {spec['runtime']}", "nothing to undo"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return ()


class ProcessEnded(Kind):
    """spec: {pid, start, name, signal, grace: seconds}. Asked to end, then not asked; no undo."""

    name: ClassVar[str] = "process_ended"
    instant: ClassVar[bool] = True

    def capture(self, spec: Data, ctx: Context) -> Data:
        if not _process(spec).alive():
            raise _gone(spec)
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        runtimes.end(_process(spec), spec["signal"], spec["grace"])
        return {"ended": clock.now()}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        return Outcome(Undone.ABSENT, "a process that has ended cannot be brought back")

    def describe(self, spec: Data) -> tuple[str, str]:
        name = signal.Signals(spec["signal"]).name
        who = f"{spec['name']} (pid {spec['pid']})"
        does = f"send {name} to {who}, and SIGKILL if it is there after {spec['grace']:g} s"
        return does, "nothing to undo"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return ()
