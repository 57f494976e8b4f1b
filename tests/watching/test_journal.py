"""The journal of systemd, written by a real journald and read by the real journalctl."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RIG = Path(__file__).with_name("journal_rig.py")
SRC = Path(__file__).resolve().parents[2] / "src"
JOURNALD = Path("/lib/systemd/systemd-journald")
MACHINE = Path("/etc/machine-id")  # its journal is found by it

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(
        not (JOURNALD.exists() and MACHINE.exists() and shutil.which("journalctl")),
        reason="needs systemd-journald, journalctl and a machine-id: install systemd",
    ),
]


def test_what_was_logged_within_the_window_is_kept_and_masked() -> None:
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, str(RIG)]
    done = subprocess.run(
        words, env={"PYTHONPATH": str(SRC), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identifier"] == ["shop: within: password=***"]
    assert [line for line in found["pid"] if "within" in line or "else" in line] == [
        "shop: within: password=***",
        "bank: somebody else",
    ]
    assert not any("shop" in line or "bank" in line for line in found["nobody"])
