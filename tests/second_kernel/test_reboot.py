"""What survives a reboot is recovered at boot, by the boot unit or by the next start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240  # seconds
STORES = ("by-the-unit", "by-the-next-start")
TEXT = "mode = calm\nlevel = 3\n"

pytestmark = [
    pytest.mark.needs_second_kernel, pytest.mark.beside, pytest.mark.timeout(LIMIT + 60),
]  # fmt: skip


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """What the guest saw with the faults in place, after its reboot, and after the recovery."""
    folder = ROOT / "build" / f"reboot-{os.getpid()}"
    folder.mkdir(parents=True)
    with (folder / "image").open("wb") as image:
        image.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", folder / "image"], check=True)
    guest = Path(__file__).with_name("reboot_guest.py")
    run = subprocess.run(
        [
            os.environ["FAULTLINE_SECOND_KERNEL"],
            *("--timeout", str(LIMIT), "--reboots", "1", "--"),
            *("env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, str(guest), str(folder)),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT + 30,
    )  # fmt: skip
    try:
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr
        yield {
            name: json.loads((folder / f"{name}.json").read_text()) for name in ("first", "second")
        }
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("store", STORES)
def test_the_faults_survived_the_reboot(store: str, told: dict[str, Any]) -> None:
    first, found = told["first"][store], told["second"]["found"][store]
    assert first["boot"] != found["boot"]
    assert first["text"] == found["text"] == TEXT.replace("calm", "wild")
    assert first["names"] == found["names"] != ["app.conf"]
    assert told["first"]["free before"] - found["free"] > 8 << 20


@pytest.mark.parametrize("store", STORES)
def test_everything_is_as_it_was(store: str, told: dict[str, Any]) -> None:
    after = told["second"][store]
    assert after["text"] == TEXT
    assert after["mode"] == 0o640
    assert after["names"] == ["app.conf"]
    assert after["ends"] == dict.fromkeys(
        ("file.replace", "disk.fill", "network.loss"), "recovered"
    )


def test_the_boot_unit_says_what_it_did(told: dict[str, Any]) -> None:
    status, words, complaints = told["second"]["unit"]
    assert status == 0, complaints
    assert words.count(": recovered") == 3
    assert told["second"]["ended"] == [True, True, True]
