"""The change that takes away what the kernel swaps to, and gives it back with the same priorities.

That swap is off carries no mark, so a note of what was on lies in the store's run folder.
Source: swapon(2), proc_swaps(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import ApplyFailed, Unsupported
from faultline.kernel import swap
from faultline.kernel.netlink import Netlink
from faultline.kernel.swap import Area


def _known(prior: Data) -> list[Area]:
    return [Area(**each) for each in prior["areas"]]


class SwapOff(Kind):
    """spec: {}. All of the host's swap is meant."""

    name: ClassVar[str] = "swap_off"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({"the swap of this host"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        found = swap.areas()
        if not found:
            raise Unsupported("this host has no swap")
        return {"areas": [asdict(each) for each in found]}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        # Of the path alone: an open device would stay busy.
        return [os.open(each.path, os.O_PATH | os.O_CLOEXEC) for each in _known(prior)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        for each in _known(prior):
            try:
                each.off()
            except OSError as error:
                if error.errno == errno.EPERM:
                    raise Unsupported("swap is turned off by root alone") from error
                raise ApplyFailed(
                    f"{each.path} stays in use: {error.strerror}",
                    hint="what is swapped out must fit into memory",
                ) from error
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        on = {each.path for each in swap.areas()}
        missing = [each for each in _known(prior) if each.path not in on]
        if not missing:
            return Presence.ABSENT
        # One that was removed, or is used for something else by now, cannot come back.
        there = any(each.formatted() for each in missing)
        return Presence.OURS if there else Presence.GONE

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(prior, ctx)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, prior: Data, ctx: Context) -> Outcome:
        on = {each.path for each in swap.areas()}
        known = _known(prior)
        missing = [(nth, each) for nth, each in enumerate(known) if each.path not in on]
        if not missing:
            return Outcome(Undone.ABSENT, "everything is swapped to as before")
        gone: list[str] = []
        for nth, each in missing:
            held = ctx.handed[nth] if nth < len(ctx.handed) else None
            try:
                each.on("" if held is None else f"/proc/self/fd/{held}")
            except OSError as error:
                if error.errno == errno.EBUSY:  # somebody else did it just now
                    continue
                if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EINVAL):
                    raise
                gone.append(f"{each.path} ({error.strerror})")
        if gone:
            detail = f"cannot be swapped to any more: {', '.join(gone)}"
            return Outcome(Undone.KEPT if len(gone) < len(missing) else Undone.GONE, detail)
        names = ", ".join(each.path for _, each in missing)
        return Outcome(Undone.UNDONE, f"swapped to again: {names}")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            "turn off all swap of this host: what is swapped out is read back into memory",
            "turn on what was on before, with the same priorities",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        on = {each.path for each in swap.areas()}
        return tuple(
            ("swapon", *(("-p", str(each.priority)) if each.priority >= 0 else ()), each.path)
            for each in _known(prior)
            if each.path not in on
        )

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))
