"""How every worker starts: a bare interpreter that the kernel ends on time.

Called as `python -I -S -c BOOT MARK` with a JSON order on standard input and one line of JSON
expected on standard output: `{"ready": ...}` once the effect is there, or `{"error": ...}`. The
kernel's own timer sends SIGKILL at the deadline (timer_create(2) on CLOCK_BOOTTIME), also to a
stopped or hung worker. An order that names a `target`, {pid, start}, ends with that process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from faultline.errors import FaultlineError
from faultline.kernel import syscalls
from faultline.workers import lifetime


def main() -> None:
    """Detach, arm the timer, run the worker that the order names; never returns."""
    order: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    if os.fork():
        os._exit(0)  # the spawner waits for this one; the worker is a child of nobody of ours
    os.setsid()
    os.chdir("/")
    syscalls.arm_kill_timer(order["deadline"])
    module = importlib.import_module(f"faultline.workers.{order['module']}")
    syscalls.set_name(f"fl-{order['module']}")
    try:
        lifetime.tie(order.get("target"))
        status = module.main(order["spec"], _ready)
    except (FaultlineError, OSError) as error:
        _say({"error": f"{type(error).__name__}: {error}"})
        status = 1
    sys.stdout.flush()
    os._exit(status)


def _ready(status: dict[str, Any]) -> None:
    """Tell the spawner that the effect is there, and let go of its pipe."""
    _say({"ready": status})
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _say(message: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        return  # the spawner is gone; the keepers will end us


if __name__ == "__main__":
    main()
