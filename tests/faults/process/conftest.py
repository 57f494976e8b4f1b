"""Processes of our own to act on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.injection.injector import Injector

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
    for process in made:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
