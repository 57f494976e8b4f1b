"""A scratch disk and scratch control groups, gone when the test ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.kernel import cgroup
from faultline.kernel.blockio import Device
from faultline.kernel.cgroup import Group


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Device]]:
    """A loop device of 64 MiB: its node and its numbers."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    command = ["losetup", "--find", "--show", str(image)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    node = Path(made.stdout.strip())
    yield node, Device.find(str(node))
    subprocess.run(["losetup", "--detach", str(node)], check=True)


@pytest.fixture
def scratch_group() -> Iterator[Callable[[str], Group]]:
    """Makes a control group with our mark below the root, for a controller."""
    made: list[Group] = []
    enabled: list[tuple[Group, str]] = []

    def make(controller: str) -> Group:
        layout = cgroup.layout()
        name = cgroup.group_name(f"t{os.getpid()}", len(made))
        group = layout.root(controller).child(name)
        group.create()
        made.append(group)
        parent = group.enable(controller)
        if parent:
            enabled.append((parent, controller))
        return group

    yield make
    for group in reversed(made):
        for _ in range(100):
            try:
                group.remove()
                break
            except OSError:
                time.sleep(0.05)
    for parent, controller in enabled:
        parent.disable(controller)
