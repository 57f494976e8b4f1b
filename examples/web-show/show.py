"""A page that draws how long its own requests to another pod take. Standard library only.

PEER is the address of the other one, http://HOST:PORT; without it this is the other one.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PEER = os.environ.get("PEER", "")
EVERY = 0.2  # seconds between two requests
PATIENCE = 3.0  # seconds after which one has failed
PAGE = Path(__file__).with_name("page.html")
samples: deque[dict[str, float | bool]] = deque(maxlen=600)


def measure() -> None:
    """Ask the other one again and again, each time over a new connection."""
    while True:
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(f"{PEER}/ping", timeout=PATIENCE) as answer:  # noqa: S310
                good = answer.status == 200
        except OSError:
            good = False
        took = time.monotonic() - begun
        samples.append({"at": time.time(), "ms": round(took * 1000, 2), "ok": good})
        time.sleep(max(0.0, EVERY - took))


class Answers(BaseHTTPRequestHandler):
    """`/` is the page, `/curve` its data, `/ping` what the other one is asked for."""

    def do_GET(self) -> None:
        if self.path == "/ping":
            self.say("text/plain", b"here\n")
        elif self.path == "/curve":
            self.say("application/json", json.dumps([*samples]).encode())
        else:
            self.say("text/html; charset=utf-8", PAGE.read_bytes())

    def say(self, kind: str, body: bytes) -> None:
        """One answer."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: it is asked several times a second."""


def main() -> None:
    """Serve for ever."""
    if PEER:
        threading.Thread(target=measure, daemon=True).start()
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Answers).serve_forever()


if __name__ == "__main__":
    main()
