"""What the guest of test_reboot does at each of its boots: FOLDER holds the image of its disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from faultline.changes import frozen, keepers
from faultline.changes.model import State
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.recovery import Recovery
from faultline.kernel import clock
from faultline.units import Duration

POINT = Path("/mnt/faultline-reboot")  # in the guest's memory; the disk on it is not
STORES = ("by-the-unit", "by-the-next-start")
TEXT = "mode = calm\nlevel = 3\n"
SIZE = 8 << 20


def _look(name: str) -> dict[str, Any]:
    place = POINT / f"place-{name}"
    with Recovery(POINT / name) as recovery:
        records = recovery.query()
    return {
        "boot": clock.boot_id(),
        "text": (place / "app.conf").read_text(),
        "mode": (place / "app.conf").stat().st_mode & 0o777,
        "names": sorted(each.name for each in place.iterdir()),
        "free": os.statvfs(POINT).f_bavail * os.statvfs(POINT).f_frsize,
        "ends": {each.fault: str(each.end) for each in records},
    }


def _inject(name: str) -> None:
    place = POINT / f"place-{name}"
    place.mkdir()
    (place / "app.conf").write_text(TEXT)
    (place / "app.conf").chmod(0o640)
    hour, file = Duration.parse("1h"), str(place / "app.conf")
    with Injector(POINT / name) as injector:
        for fault, params in (
            ("file.replace", {"path": file, "find": "calm", "replacement": "wild"}),
            ("disk.fill", {"folder": str(place), "bytes": "8MiB"}),
            ("network.loss", {"interface": "lo", "percent": "10%"}),
        ):  # fmt: skip
            injector.inject(Order(fault, params, hour))


def _first(folder: Path) -> dict[str, Any]:
    before = os.statvfs(POINT).f_bavail * os.statvfs(POINT).f_frsize
    for name in STORES:
        _inject(name)
    told = {"free before": before, **{name: _look(name) for name in STORES}}
    (folder / "first.json").write_text(json.dumps(told))
    os.sync()
    Path("/proc/sysrq-trigger").write_text("b")
    time.sleep(60)
    return told


def _second(folder: Path) -> dict[str, Any]:
    found = {name: _look(name) for name in STORES}
    unit, start = STORES
    (code,) = (POINT / unit / "code").iterdir()
    ran = subprocess.run(
        frozen.command(str(code), "changes.at_boot", str(POINT / unit)),
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    with Recovery(POINT / start) as recovery:
        recovery.adopt()
        until = time.monotonic() + 30
        while recovery.journal.any_open() and time.monotonic() < until:
            time.sleep(0.1)
        states = [each.state is State.ENDED for each in recovery.query()]
        keepers.dismiss(recovery.store)
    return {
        "found": found,
        "unit": [ran.returncode, ran.stdout, ran.stderr],
        "ended": states,
        **{name: _look(name) for name in STORES},
    }


def main() -> None:
    folder = Path(sys.argv[1])
    POINT.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", folder / "image", POINT], check=True)
    POINT.chmod(0o700)
    boot = os.environ["GUEST_BOOT"]
    told = _first(folder) if boot == "0" else _second(folder)
    (folder / "second.json").write_text(json.dumps(told))
    subprocess.run(["umount", "--lazy", POINT], check=True)


if __name__ == "__main__":
    main()
