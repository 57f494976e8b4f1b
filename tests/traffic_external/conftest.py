from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.traffic_external.around import free_port, listening, program, wait_for

from faultline.api.traffic import ExternalTraffic

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]

SERVER = """
import asyncio, sys
async def handle(reader, writer):
    count = 0
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            count += 1
            bad = b" /bad " in head and count % 5 == 0
            status = b"503 Service Unavailable" if bad else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
def external() -> Callable[..., ExternalTraffic]:
    def make(*command: str, **fields: Any) -> ExternalTraffic:
        given = {"type": "external", "name": "load", "command": list(command), **fields}
        return ExternalTraffic.model_validate(given)

    return make


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A fast little HTTP server; every fifth answer of `/bad` is a 503."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


@pytest.fixture(scope="module")
def redis() -> Iterator[int]:
    port = free_port()
    words = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        yield listening(port)
        process.kill()


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """A server with the tables of pgbench; the environment that finds it."""
    if not POSTGRES:
        pytest.skip("needs postgresql")
    with tempfile.TemporaryDirectory() as folder:
        yield from _postgres(Path(folder))


def _postgres(folder: Path) -> Iterator[dict[str, str]]:
    port = free_port()
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    made = [
        str(POSTGRES[0] / "initdb"),
        "-D",
        f"{folder}/data",
        "-A",
        "trust",
        "-U",
        "postgres",
        "-N",
    ]
    subprocess.run(made, check=True, cwd=folder, **quiet, **user)
    words = [
        str(POSTGRES[0] / "postgres"),
        "-D",
        f"{folder}/data",
        "-p",
        str(port),
        "-k",
        str(folder),
    ]
    with subprocess.Popen([*words, "-c", "fsync=off"], cwd=folder, **quiet, **user) as process:
        listening(port)
        env = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres"}
        begin = [program("pgbench"), "-i", "-q", "postgres"]

        def ready() -> bool:
            asked = subprocess.run(begin, env={**os.environ, **env}, check=False, **quiet)
            return asked.returncode == 0

        assert wait_for(ready, 20)
        yield env
        process.terminate()
