"""Metrics of log files for Prometheus: lines by level, and the latencies that they tell of.

    python examples/drills/log_exporter.py --port 9701 /var/log/shop.log /var/log/bank.log

The label `application` is the name of the file without its ending. A file is read on when it is
scraped, and followed by its name over a rotation. Standard library only.
"""

from __future__ import annotations

import argparse
import http.server
import re
import threading
from collections import Counter
from io import BufferedReader
from pathlib import Path

LEVEL = re.compile(rb"\b(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)(?:ING)?\b", re.IGNORECASE)
LATENCY = re.compile(rb"latency_ms\"?\s*[=:]\s*(\d+)")
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Log:
    """One file, read from its present end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.application = path.stem
        self.levels: Counter[str] = Counter({"INFO": 0, "WARN": 0, "ERROR": 0})
        self.latencies = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.rest = b""
        self.file: BufferedReader | None = None
        self._open()
        if self.file:
            self.file.seek(0, 2)

    def _open(self) -> None:
        try:
            self.file = self.path.open("rb")
        except FileNotFoundError:
            self.file = None

    def read(self) -> None:
        """Count what has come since the last time."""
        if self.file:
            self._take(self.file)
            here = Path(f"/proc/self/fd/{self.file.fileno()}").stat()
            there = self.path.stat() if self.path.exists() else here
            if (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev):
                return
            self.file.close()
        self._open()
        if self.file:
            self._take(self.file)

    def _take(self, file: BufferedReader) -> None:
        if file.seek(0, 1) > Path(f"/proc/self/fd/{file.fileno()}").stat().st_size:
            file.seek(0)  # it was cut off
            self.rest = b""
        *lines, self.rest = (self.rest + file.read()).split(b"\n")
        for line in lines:
            level, latency = LEVEL.search(line), LATENCY.search(line)
            self.levels[level[1].decode().upper() if level else "NONE"] += 1
            if latency:
                took = int(latency[1]) / 1000
                self.seconds += took
                self.latencies[sum(took > limit for limit in BUCKETS)] += 1

    def text(self) -> str:
        """What Prometheus is told."""
        label = f'application="{self.application}"'
        name = "log_latency_seconds"
        out = [f'log_lines_total{{{label},level="{k}"}} {n}' for k, n in self.levels.items()]
        for index, limit in enumerate((*BUCKETS, "+Inf")):
            below = sum(self.latencies[: index + 1])
            out.append(f'{name}_bucket{{{label},le="{limit}"}} {below}')
        count = sum(self.latencies)
        return "\n".join([*out, f"{name}_sum{{{label}}} {self.seconds}",
                          f"{name}_count{{{label}}} {count}", ""])  # fmt: skip


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9701)
    parser.add_argument("logs", nargs="+", type=Path)
    asked = parser.parse_args()
    logs = [Log(path) for path in asked.logs]
    turn = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with turn:
                for log in logs:
                    log.read()
                body = "".join(log.text() for log in logs).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with http.server.ThreadingHTTPServer((asked.address, asked.port), Handler) as server:
        print(f"listening on http://{asked.address}:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
