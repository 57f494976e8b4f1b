"""What some faults need to be tried: a program with its manifest, an endpoint, an exporter."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from faultline.injection.manifest import ENVIRONMENT
from faultline.kernel import netns

SAMPLE: Final = Path(__file__).with_name("sample")
PROGRAM: Final = "retries"
FIGURES: Final = """# HELP app_errors_total Requests that failed.
# TYPE app_errors_total counter
app_errors_total{code="500",path="/"} 4
app_errors_total{code="404",path="/"} 17
# TYPE app_queue_length gauge
app_queue_length 3
"""


@contextlib.contextmanager
def plugins(folder: Path | None = None) -> Generator[Path]:
    """A folder that is allowed for the block: a copy of the sample, or of what is in `folder`."""
    before = os.environ.get(ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="faultline-plugins-") as made:
        for each in (folder or SAMPLE).iterdir():
            if each.is_file():
                copy = shutil.copy(each, made)
                Path(copy).chmod(0o755 if each.suffix != ".toml" else 0o644)
        Path(made).chmod(0o755)
        os.environ[ENVIRONMENT] = made
        try:
            yield Path(made)
        finally:
            if before is None:
                del os.environ[ENVIRONMENT]
            else:
                os.environ[ENVIRONMENT] = before


class _Lamp(BaseHTTPRequestHandler):
    """An endpoint whose fault is a mark that it holds."""

    marks: dict[str, Any]

    def do_POST(self) -> None:
        """One verb."""
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mark, verb = told["mark"], self.path.rpartition("/")[2]
        there = mark in self.marks
        answer: dict[str, Any] = {}
        if verb == "apply":
            self.marks[mark] = told["parameters"]
        elif verb == "observe":
            effect = "effective" if there else "ineffective"
            answer = {"present": "ours" if there else "absent", "effect": effect}
        elif verb == "undo":
            self.marks.pop(mark, None)
            answer = {"end": "undone" if there else "absent"}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named there
        """Say nothing."""


class _Figures(BaseHTTPRequestHandler):
    """An exporter of figures."""

    def do_GET(self) -> None:
        """The page."""
        data = FIGURES.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named there
        """Say nothing."""


@contextlib.contextmanager
def endpoint(pid: int = 0) -> Generator[str]:
    """An endpoint in the network of this process, or of the one with this pid: its address."""
    with _served(type("Lamp", (_Lamp,), {"marks": {}}), pid) as url:
        yield f"{url}/lamp"


@contextlib.contextmanager
def exporter(pid: int = 0) -> Generator[str]:
    """The same for an exporter of figures: the address of its page."""
    with _served(_Figures, pid) as url:
        yield f"{url}/metrics"


@contextlib.contextmanager
def _served(handler: type[BaseHTTPRequestHandler], pid: int) -> Generator[str]:
    with contextlib.ExitStack() as stack:
        if pid:
            there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, there)
            with netns.entered(there):
                server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        else:
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
