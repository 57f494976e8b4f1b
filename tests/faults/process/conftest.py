"""Processes of our own to act on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.injection.injector import Injector
from faultline.kernel import procfs

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[subprocess.Popen[bytes]] = []

    def run(code: str = "pass", word: str = "") -> subprocess.Popen[bytes]:
        first, _, rest = code.partition(";;")
        body = f"import os, time, signal, socket, threading\n{first}\nprint(flush=True)\n"
        rest = rest or "time.sleep(60)"
        command = [sys.executable, "-c", body + rest, word or str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        made.append(process)
        return process

    yield run
    # Children of theirs as well, also those whose parent has ended: all are copies.
    words = [each.args[3] for each in made]
    copies = [each for each in procfs.processes() if set(each.cmdline) & set(words)]
    for process in (*made, *(each.id for each in copies)):
        process.kill() if isinstance(process, subprocess.Popen) else process.send(signal.SIGKILL)
    for process in made:
        process.wait()
        if process.stdout:
            process.stdout.close()
