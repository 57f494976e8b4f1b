"""The change that ends the host. There is nothing to undo afterwards: the next boot says so.

The record is on disk before the host ends. The boot unit or the next start of anything of ours
finds it open, with another boot id, closes it and notes when the host was back.
"""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

from faultline.changes.kind import Context, Data, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.worker import GRACE, READY, end_marked, start
from faultline.errors import Refused, Unsupported
from faultline.kernel import clock, power, procfs

_LEEWAY = 5_000_000_000  # ns between the end of the host and the deadline, at least


class HostEnd(Kind):
    """spec: {what: panic | reboot | poweroff, how: sysrq | syscall, delay: seconds, sync: bool}."""

    name: ClassVar[str] = "host_end"
    survives_reboot: ClassVar[bool] = True  # so that somebody says when the host was back
    instant: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({"the end of this host"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        check(spec)
        if clock.now() + round(spec["delay"] * 1e9) + _LEEWAY > ctx.deadline:
            raise Refused(
                "the fault would be over before the host ends",
                hint=f"let it last {spec['delay'] + _LEEWAY / 1e9:g} s or more: --duration",
            )
        return {"boot": clock.boot_id()}

    def loads(self, spec: Data) -> str:
        return "end_host"

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        order: dict[str, Any] = {
            "module": "end_host",
            "deadline": ctx.deadline,
            "spec": {**spec, "deadline": ctx.deadline},
        }
        return {"ready": start(ctx.code, ctx.mark, order, READY)}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.OURS if procfs.find_marked(ctx.mark) else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        if prior.get("boot", clock.boot_id()) != clock.boot_id():
            booted = time.time() - clock.now() / 1e9
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(booted))
            return Outcome(Undone.ABSENT, f"the host ended and was back at {when}")
        ended = end_marked(ctx.mark, GRACE)
        if ended.end is Undone.UNDONE:
            return Outcome(Undone.UNDONE, "taken back before the host ended")
        return ended

    def describe(self, spec: Data) -> tuple[str, str]:
        means = {"sysrq": "the kernel's trigger", "syscall": "reboot(2)"}[spec["how"]]
        first = "after writing out what is not on disk" if spec["sync"] else "with nothing saved"
        does = {"panic": "panic the kernel", "reboot": "restart", "poweroff": "power off"}
        return (
            f"{does[spec['what']]} by {means}, {spec['delay']:g} s from then, {first}",
            "nothing once the host has ended; before, the process that waits is ended",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        pids = [str(each.pid) for each in procfs.find_marked(ctx.mark)]
        return (("kill", "-9", *pids),) if pids else ()


def check(spec: Data) -> None:
    """Raise Unsupported where this process cannot end the machine."""
    if not power.owns_machine():
        raise Unsupported(
            "a process in a pid namespace cannot end the machine",
            hint="call it on the host itself",
        )
    if spec["how"] == "sysrq" or spec["sync"]:
        try:
            trigger = power.open_trigger()
        except FileNotFoundError:
            raise Unsupported(
                f"this kernel has no {power.TRIGGER} (CONFIG_MAGIC_SYSRQ)",
                hint="" if spec["what"] == "panic" else "by the system call: --mode syscall",
            ) from None
        except PermissionError:
            raise Unsupported(f"{power.TRIGGER} can be written by root only") from None
        os.close(trigger)
