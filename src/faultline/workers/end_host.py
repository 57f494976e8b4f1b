"""The worker that ends the host after a while: until then its fault can be taken back.

It opens the kernel's trigger before it says that it is ready, so that what is not possible is known
at once, and it acts by one write or one system call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faultline.kernel import power
from faultline.workers.lifetime import Lifetime


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """spec: {what: panic | reboot | poweroff, how: sysrq | syscall, delay: seconds, sync}."""
    lifetime = Lifetime(spec["deadline"])
    needed = spec["how"] == "sysrq" or spec["sync"]
    trigger = power.open_trigger() if needed else -1
    ready({})
    if lifetime.wait(spec["delay"]):
        return 0
    if spec["sync"]:
        power.pull(trigger, "sync")
        lifetime.wait(_WRITE_OUT)
    if spec["how"] == "sysrq":
        power.pull(trigger, spec["what"])
    else:
        power.call(spec["what"])
    lifetime.wait(_PATIENCE)  # a reboot by the kernel's trigger is work for another of its threads
    return 1


_WRITE_OUT = 2.0  # seconds for the kernel to write out what it holds; it does so by itself
_PATIENCE = 60.0
