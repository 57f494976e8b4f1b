"""The change that lets all processes of a control group stand still, groups below it included.

It is the kernel's, so neither pausing nor going on needs a runtime that answers. A runtime that is
told to pause such a container refuses, since it looks at the same switch; one that is told to go on
ends the fault, and undo finds nothing to do.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import Refused, TargetGone
from faultline.kernel.freezer import Freezer
from faultline.kernel.netlink import Netlink

_PATIENCE: Final = 2.0  # seconds until tasks in the middle of a call have stopped
_GONE: Final = (errno.ENOENT, errno.ENODEV)


class CgroupFrozen(Kind):
    """spec: {folder: of the group, version, what: whom people know it as}."""

    name: ClassVar[str] = "cgroup_frozen"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"standing still of {spec['folder']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        with _open(spec) as freezer:
            if freezer.told() or freezer.still():
                raise Refused(
                    f"{spec['what']} stands still already: somebody else has paused it",
                    hint="let it go on first, by the runtime that paused it",
                )
        return {}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        try:
            return Freezer.open(spec["folder"], spec["version"]).descriptors
        except FileNotFoundError:
            raise TargetGone(f"{spec['what']} has ended") from None

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        with _open(spec) as freezer:
            freezer.freeze()
            until = time.monotonic() + _PATIENCE
            while not freezer.still() and time.monotonic() < until:
                time.sleep(0.002)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with _reached(spec, ctx) as freezer:
                return Presence.OURS if freezer.told() else Presence.ABSENT
        except TargetGone:
            return Presence.GONE

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        try:
            outcome = self._undo(spec, ctx)
        except TargetGone as error:
            outcome = Outcome(Undone.GONE, error.message)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, ctx: Context) -> Outcome:
        with _reached(spec, ctx) as freezer:
            if not freezer.told():
                return Outcome(Undone.ABSENT, f"{spec['what']} goes on already")
            freezer.thaw()
            if freezer.told():
                return Outcome(Undone.FAILED, f"{spec['what']} still stands still")
        return Outcome(Undone.UNDONE, f"{spec['what']} goes on")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"freeze the control group {spec['folder']} of {spec['what']}",
            "thaw it, if it is still frozen",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        file = "freezer.state" if spec["version"] == 1 else "cgroup.freeze"
        value = "THAWED" if spec["version"] == 1 else "0"
        return (("sh", "-c", f"echo {value} > {spec['folder']}/{file}"),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


@contextmanager
def _open(spec: Data) -> Generator[Freezer]:
    """The group by its path, for the block; raises TargetGone."""
    with _translated(spec):
        freezer = Freezer.open(spec["folder"], spec["version"])
        try:
            yield freezer
        finally:
            freezer.close()


@contextmanager
def _reached(spec: Data, ctx: Context) -> Generator[Freezer]:
    """The group by the descriptors from before the fault, or by its path; raises TargetGone."""
    if not ctx.handed:
        with _open(spec) as freezer:
            yield freezer
        return
    with _translated(spec):
        yield Freezer(spec["version"], *ctx.handed)


@contextmanager
def _translated(spec: Data) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise
        raise TargetGone(f"{spec['what']} has ended") from None
