"""A host that is ended on purpose says so when it is back: it was recorded before."""

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
LIMIT = 120  # seconds for each start of the guest
STARTS = 3  # of a guest that the panic and the lost power have ended
LOST = 125  # the status of a guest that did not come to its end
FAULTS = ("kernel.reboot", "kernel.reboot", "kernel.panic", "kernel.poweroff")

pytestmark = [
    pytest.mark.needs_second_kernel, pytest.mark.beside, pytest.mark.timeout(STARTS * LIMIT + 60),
]  # fmt: skip


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """How the starts of the guest ended, and what it found after each end."""
    folder = ROOT / "build" / f"ends-{os.getpid()}"
    folder.mkdir(parents=True)
    with (folder / "image").open("wb") as image:
        image.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", folder / "image"], check=True)
    guest = Path(__file__).with_name("ends_guest.py")
    command = [
        os.environ["FAULTLINE_SECOND_KERNEL"],
        *("--timeout", str(LIMIT), "--reboots", "2", "--"),
        *("env", f"PYTHONPATH={ROOT / 'src'}", sys.executable, str(guest), str(folder)),
    ]
    try:
        ended: list[int] = []
        said = ""
        for _ in range(STARTS):
            run = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT + 30
            )
            ended.append(run.returncode)
            said += run.stdout[-2000:] + run.stderr[-2000:]
        found = [json.loads(each.read_text()) for each in sorted(folder.glob("told-*.json"))]
        assert len(found) == len(FAULTS), said
        yield ended, found
    finally:
        shutil.rmtree(folder)


def test_every_end_was_real(told: tuple[list[int], list[dict[str, Any]]]) -> None:
    ended, found = told
    assert ended == [LOST, LOST, 0], "a panic, the power switched off, and the last look"
    assert all(each["boot"] != each["injected in"] for each in found)


def test_the_next_start_closes_it_and_says_when_the_host_was_back(
    told: tuple[list[int], list[dict[str, Any]]],
) -> None:
    _, found = told
    assert tuple(each["fault"] for each in found) == FAULTS
    assert {each["end"] for each in found} == {"nothing to undo"}
    assert all(each["detail"].startswith("the host ended and was back at ") for each in found)
