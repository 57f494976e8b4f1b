"""Real servers on loopback, ended by their pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def program(name: str, package: str, *folders: str) -> str:
    """The path of a program, or a skip that says what to install."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
    if not found:
        pytest.skip(f"needs {name}: install {package}")
    return found


def listening(port: int, process: subprocess.Popen[bytes], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} does not listen: {process.poll()}")


@contextlib.contextmanager
def serving(
    words: list[str], port: int, log: Path, user: str = "", stop: int = signal.SIGTERM
) -> Iterator[int]:
    """A server until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, user=user or None
        )
    try:
        try:
            listening(port, process)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-2000:]}") from error
        yield port
    finally:
        process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
