"""What the guest of test_ends does at each of its boots: FOLDER holds the image of its disk.

Every boot closes what the one before left, tells what it found, and ends the guest in the next way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.recovery import Recovery
from faultline.kernel import clock
from faultline.units import Duration

POINT = Path("/mnt/faultline-ends")  # in the guest's memory; the disk on it is not
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reboot", {"mode": "sysrq", "delay": "0s"}),
    ("reboot", {"mode": "syscall", "sync": True}),
    ("panic", {"delay": "500ms"}),
    ("poweroff", {"mode": "syscall"}),
)


def _closed(state: Path) -> dict[str, Any]:
    """What the next start finds, and what becomes of it."""
    with Recovery(state) as recovery:
        found = [each.state for each in recovery.query()]
        recovery.adopt()
        until = time.monotonic() + 30
        while recovery.journal.any_open() and time.monotonic() < until:
            time.sleep(0.05)
        last = recovery.query()[0]
        keepers.dismiss(recovery.store)
    outcome = last.steps[0].outcome
    return {
        "boot": clock.boot_id(),
        "injected in": last.boot_id,
        "states": found,
        "fault": last.fault,
        "end": str(last.end),
        "detail": outcome.detail if outcome else "",
    }


def main() -> None:
    folder = Path(sys.argv[1])
    POINT.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", folder / "image", POINT], check=True)
    POINT.chmod(0o700)
    state = POINT / "state"
    done = len(list(folder.glob("told-*.json")))
    number = done + (folder / "begun").exists()
    if (folder / "begun").exists():
        (folder / f"told-{done}.json").write_text(json.dumps(_closed(state)))
    (folder / "begun").touch()
    if number == len(WAYS):
        return
    what, params = WAYS[number]
    with Injector(state) as injector:
        allow = frozenset({f"host-{what}"})
        injector.inject(Order(f"kernel.{what}", params, Duration.parse("1m"), "", allow))
        time.sleep(30)


if __name__ == "__main__":
    main()
