"""The change that fills a connection table: entries of ours that the kernel forgets by itself.

Each carries a mark made of the fault and its step, and expires at the deadline. The first one is
made alone and read back: only a kernel that keeps marks can take away ours and nobody else's.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import Conflict, TargetGone, Unsupported
from faultline.kernel import clock, conntrack, netns
from faultline.kernel.conntrack import Table
from faultline.kernel.netlink import Netlink


def mark_of(ctx: Context) -> int:
    """The mark of this step's entries; never 0, which is no mark."""
    return zlib.crc32(ctx.mark.encode()) or 1


class ConntrackFill(Kind):
    """spec: {leave: entries that may still be made, count: how many are added}."""

    name: ClassVar[str] = "conntrack_fill"

    def takes(self, spec: Data) -> float:
        return 5.0

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"the tracked connections of network {prior['cookie']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        limit = conntrack.limit()
        with Table.open() as table:
            try:
                taken = table.mark_of(0)
            except PermissionError as error:
                raise Unsupported("tracked connections cannot be made here: no rights") from error
            except OSError as error:
                raise Unsupported(f"the kernel offers no table: {error.strerror}") from error
            if taken is not None:
                raise Conflict("the connection table is filled already", holder="another fault")
            return {"limit": limit, "cookie": table.cookie()}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        with _table(ctx) as table:
            return [os.dup(table.fileno())]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        mark, left = mark_of(ctx), ctx.deadline - clock.now()
        seconds = max(1, -(-left // 10**9))
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        with Table.open() as table:
            try:
                table.add(0, mark, seconds)
            except OSError as error:
                if error.errno == errno.ENOMEM:
                    return {"full": True}  # others were first: what was asked for is there
                raise
            if table.mark_of(0) != mark:
                table.remove(0)
                raise Unsupported("this kernel keeps no marks of connections")
            # As many as fit now: the table has gone on since the plan was made.
            table.fill(spec["count"] if spec["leave"] else prior["limit"], mark, seconds)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with _table(ctx) as table:
                found = table.mark_of(0)
        except TargetGone:
            return Presence.GONE
        return Presence.OURS if found == mark_of(ctx) else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior, ctx)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data, ctx: Context) -> Outcome:
        here = self.presence(spec, prior, {}, ctx)
        if here is Presence.GONE:
            return Outcome(Undone.GONE, "the network namespace is gone")
        if here is Presence.ABSENT:
            return Outcome(Undone.ABSENT, "no entry carries the mark")
        with _table(ctx) as table:
            table.remove_marked(mark_of(ctx))
        return Outcome(Undone.UNDONE, "the entries of ours are removed")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"add {spec['count']} entries to the connection table, which leaves {spec['leave']}",
            "remove the entries with our mark; at the deadline they expire by themselves",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return (("conntrack", "-D", "--mark", str(mark_of(ctx))),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


def _table(ctx: Context) -> Table:
    """The table of the place's network, by a socket from before or through its route socket."""
    if ctx.handed:
        return Table.from_fd(os.dup(ctx.handed[0]))
    if ctx.netlink is None:
        raise TargetGone("the network namespace is gone")
    there = netns.of_socket(ctx.netlink.fileno())
    try:
        with netns.entered(there):
            return Table.open()
    finally:
        os.close(there)
