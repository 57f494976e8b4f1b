"""An exporter of figures that stands in front of a real one and shows some of them otherwise.

A request is passed on to the real exporter with its path, and its page comes back with the figures
of the rules (`metric_lines`) in place of its own. What the real exporter refuses, or that it is not
there, is passed back as well (502): nothing is made up for it. Pages are asked for in the text
format, which can be changed line by line.

Order (spec), beside `deadline` and `stats`: `address` and `port` to listen on; `url` of the real
page; `rules`, as text; `ramp` in nanoseconds.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from faultline.errors import InvalidParameter
from faultline.kernel import clock
from faultline.workers import metric_lines
from faultline.workers.figures import Figures
from faultline.workers.lifetime import Lifetime

OURS: Final = "faultline"  # the User-Agent of our own measurement, which is not counted
TEXT: Final = "text/plain;version=0.0.4"
LARGEST: Final = 64 << 20  # bytes of a page
PATIENCE: Final = 10.0  # seconds that the real exporter may take
_PASSED: Final = ("authorization", "x-prometheus-scrape-timeout-seconds", "cookie")
_COUNTED: Final = ("scrapes", "changed", "added", "failed")


def fetch(
    url: str, target: str = "", headers: Mapping[str, str] | None = None, patience: float = PATIENCE
) -> tuple[int, str, bytes]:
    """Status, type and body of a page; `target` (path and query) in place of that of the URL.

    Raises OSError, http.client.HTTPException, ValueError for a URL that is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no http or https URL")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    wire = kind(parts.hostname, parts.port, timeout=patience)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        wire.request("GET", target or path, headers={"Accept": TEXT, **(headers or {})})
        answer = wire.getresponse()
        body = answer.read(LARGEST + 1)
        if len(body) > LARGEST:
            raise OSError(f"{url} is longer than {LARGEST >> 20} MiB")
        return answer.status, answer.headers.get("Content-Type", TEXT), body
    finally:
        wire.close()


class Course:
    """How far the rules are, by the time since the beginning."""

    def __init__(self, begin: int, ramp: int) -> None:
        self._begin, self._ramp = begin, ramp

    def at(self, now: int) -> tuple[float, float]:
        """The part of the ramp that is behind (0 to 1), and seconds since the beginning."""
        elapsed = max(0, now - self._begin)
        return (min(1.0, elapsed / self._ramp) if self._ramp else 1.0), elapsed / 1e9


class Show:
    """What is shown in place of the pages of one exporter."""

    def __init__(self, order: dict[str, Any], course: Course) -> None:
        self._url: str = order["url"]
        self._rules = [metric_lines.parse_rule(each) for each in order["rules"]]
        self._course = course
        self._lock = threading.Lock()
        self.counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)

    def page(self, target: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        """Status, type and body of the answer to a request."""
        given = {name.lower(): value for name, value in headers.items()}
        passed = {name: given[name] for name in _PASSED if name in given}
        counted = given.get("user-agent") != OURS
        try:
            status, kind, body = fetch(self._url, target, passed)
        except (OSError, http.client.HTTPException) as error:
            self._count(counted, failed=1)
            told = f"the exporter at {self._url} does not answer: {error}\n"
            return 502, "text/plain", told.encode()
        if status != 200 or not kind.startswith("text/plain"):
            self._count(counted, failed=int(status != 200))
            return status, kind, body
        text = body.decode("utf-8", "surrogateescape")
        made = metric_lines.shown(text, self._rules, *self._course.at(clock.now()))
        self._count(counted, changed=made.changed, added=made.added)
        return 200, kind, made.text.encode("utf-8", "surrogateescape")

    def _count(self, counted: bool, **more: int) -> None:
        if counted:
            with self._lock:
                for name, number in {"scrapes": 1, **more}.items():
                    self.counts[name] += number


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may be idle
    show: Show

    def do_GET(self) -> None:
        """Answer with what is shown."""
        status, kind, body = self.show.page(self.path, dict(self.headers))
        with suppress(ConnectionError):  # whoever asked has gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named there
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """Serves until the process ends; waits for nobody."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], show: Show) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, type("Handler", (_Handler,), {"show": show}))


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Serve until SIGTERM or the deadline; raises InvalidParameter, OSError."""
    lifetime = Lifetime(spec["deadline"])
    begin = clock.now()
    try:
        show = Show(spec, Course(begin, int(spec.get("ramp", 0))))
    except ValueError as error:
        raise InvalidParameter("rules", spec["rules"], str(error)) from error
    figures = Figures(spec.get("stats", ""))
    server = _Server((str(spec["address"]), int(spec["port"])), show)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    figures.publish(show.counts)
    ready({"begin": begin, "port": server.server_address[1], "stats": spec.get("stats", "")})
    while not lifetime.wait(0.1):
        figures.publish(show.counts)
    server.server_close()  # the port is free before the process has ended
    return 0
