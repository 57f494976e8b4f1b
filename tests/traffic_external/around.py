"""What several tests need: programs, ports, processes."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable

import pytest

from faultline.kernel import procfs


def program(name: str) -> str:
    """The program, or the test is skipped."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"needs {name}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def alive(word: str) -> list[procfs.Process]:
    """Processes that have this word among their arguments, and have not ended."""
    return [each for each in procfs.processes() if word in each.cmdline and each.state != "Z"]


def listening(port: int) -> int:
    def there() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    assert wait_for(there)
    return port
