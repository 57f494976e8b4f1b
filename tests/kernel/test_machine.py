"""A container that shares the processes of its machine: what it finds of it, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.kernel import machine, syscalls
from faultline.kernel.syscalls import Namespace
from faultline.places.model import host

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns]


def test_on_the_machine_itself_there_is_nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(machine.ENVIRONMENT, raising=False)
    assert machine.pid() == 0
    monkeypatch.setenv(machine.ENVIRONMENT, str(os.getpid()))
    assert machine.pid() == 0
    assert machine.path("/etc/hosts") == "/etc/hosts"
    assert machine.entering() == ()
    assert not host().rooted


def contained(root: Path, act: Callable[[], object]) -> object:
    """What `act` answers in a process with that root, and mounts of its own."""
    for name in ("proc", "tmp"):
        (root / name).mkdir()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(Namespace.MOUNT)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "--rbind", "/proc", str(root / "proc")], check=True)
            os.chroot(root)
            os.chdir("/")
            os.write(writer, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told)


def test_a_container_knows_the_files_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, file = tmp_path / "root", tmp_path / "of-the-machine"
    root.mkdir()
    file.write_text("here")
    us = os.getpid()
    monkeypatch.setenv(machine.ENVIRONMENT, str(us))

    def look() -> object:
        place = host()
        with place.root() as fd:
            assert fd is not None
            seen = Path(f"/proc/self/fd/{fd}{file}").exists()
        return [machine.pid(), place.pid, place.rooted, place.own_network,
                Path(machine.path(str(file))).read_text(), file.exists(), seen,
                machine.entering()[1]]  # fmt: skip

    told = contained(root, look)
    assert told == [us, us, True, False, "here", False, True, f"--mount=/proc/{us}/ns/mnt"]


def test_where_the_named_process_may_not_be_seen_whoever_watches_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv(machine.ENVIRONMENT, str(2**22 + 1))  # there is no such process
    assert contained(root, machine.pid) == os.getpid()
