"""Traffic over a protocol of somebody else: a package with an entry point, really installed."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from faultline.api.traffic import TrafficFigures, TrafficSpec
from faultline.errors import ApplyFailed, Unsupported
from faultline.injection import extensions
from faultline.traffic.run import run_of

READ: TypeAdapter[Any] = TypeAdapter(TrafficSpec)
MODULE = '''
import asyncio


class Driver:
    """One line there, one line back."""

    errors = (asyncio.IncompleteReadError,)

    def __init__(self, load):
        params = load.options["params"]
        self.port, self.word = int(params["port"]), params.get("word", "hello")
        self.secret = load.options["secrets"].get("key", "")

    async def open(self):
        return

    async def turn(self, turn):
        await turn.ask("line", self.exchange)

    async def exchange(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"{self.word}{self.secret}\\n".encode())
            answer = await reader.readuntil(b"\\n")
        finally:
            writer.close()
        return "" if answer == b"yes\\n" else "no"

    def kind(self, error):
        return type(error).__name__

    async def close(self):
        return
'''


class Answering(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        word = self.rfile.readline()
        self.wfile.write(b"yes\n" if word == b"helloabc\n" else b"no\n")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs it where this process and the generators look."""
    (tmp_path / "lines_driver.py").write_text(MODULE)
    about = tmp_path / "lines_driver-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-driver\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[faultline.traffic]\nlines = lines_driver:Driver\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = str(Path(__file__).resolve().parents[2] / "src")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{source}")
    monkeypatch.setenv("LINES_KEY", "abc")
    extensions.installed.cache_clear()
    yield
    extensions.installed.cache_clear()


@pytest.fixture
def port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def spec(**fields: Any) -> Any:
    given = {"name": "lines", "type": "plugin", "plugin": "lines", "rate": 50.0, **fields}
    return READ.validate_python({"warmup": "0s", "duration": "1s", "timeout": "2s", **given})


def sent(document: Any) -> TrafficFigures:
    with run_of(document) as run:
        time.sleep(1.5)
        found = run.stop().totals
    assert found is not None
    return found


@pytest.mark.usefixtures("package")
def test_a_package_drives_traffic(port: int) -> None:
    found = sent(spec(params={"port": port}, secrets={"key": {"env": "LINES_KEY"}}))
    assert found.errors == 0, found.kinds
    assert 40 <= found.ok <= 60
    assert found.p50
    wrong = sent(spec(params={"port": port, "word": "bye"}))
    assert (wrong.ok, wrong.kinds) == (0, {"no": wrong.errors})


@pytest.mark.usefixtures("package")
def test_what_it_does_not_accept_is_told_before_anything_is_sent() -> None:
    with pytest.raises(ApplyFailed, match="does not accept its parameters: no parameter 'port'"):
        run_of(spec()).start()


def test_a_driver_that_is_not_installed_is_refused() -> None:
    with pytest.raises(Unsupported, match="no plug-in 'nobody'"):
        run_of(spec(plugin="nobody"))
