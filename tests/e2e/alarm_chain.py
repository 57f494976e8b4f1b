"""A real chain from a log to an alert: log file, exporter, Prometheus with rules."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
DRILLS = ROOT / "examples" / "drills"
CONFIGURATION = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [{rules}]
scrape_configs:
- job_name: logs
  static_configs: [{{targets: ['{exporter}']}}]
"""
PATIENCE = 60.0


@dataclass
class Watching:
    """What watches the logs of some applications."""

    folder: Path
    url: str

    def log(self, application: str) -> Path:
        return self.folder / f"{application}.log"

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series that Prometheus answers with."""
        address = f"{self.url}/api/v1/query?{urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=5) as page:
            return json.load(page)["data"]["result"]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _quick(rules: str) -> str:
    """The rules of the examples with seconds for minutes."""
    return re.sub(r"for: \d+s", "for: 400ms", rules.replace("[1m]", "[2s]"))


@contextmanager
def watching(folder: Path, *applications: str) -> Generator[Watching]:
    """Start an exporter and a Prometheus; ended and gone with the block."""
    logs = [folder / f"{name}.log" for name in applications]
    for log in logs:
        log.write_text("2026-01-01 10:00:00,123 INFO start: ready\n")
    rules = folder / "alerts.yml"
    rules.write_text(_quick((DRILLS / "alerts.yml").read_text()))
    url = f"http://127.0.0.1:{_free_port()}"
    programs: list[subprocess.Popen[str]] = []
    try:
        programs.append(
            subprocess.Popen(
                [sys.executable, str(DRILLS / "log_exporter.py"), "--port", "0", *map(str, logs)],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert programs[0].stdout
        exporter = programs[0].stdout.readline().strip().rpartition("//")[2]
        configuration = folder / "prometheus.yml"
        configuration.write_text(CONFIGURATION.format(rules=rules, exporter=exporter))
        with (folder / "prometheus.out").open("wb") as out:
            command = [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={url.removeprefix('http://')}",
            ]
            programs.append(subprocess.Popen(command, stdout=out, stderr=out, text=True))
        found = Watching(folder, url)
        _wait(found, programs[1], len(applications))
        yield found
    finally:
        for program in programs:
            program.terminate()
        for program in programs:
            program.wait(30)
            if program.stdout:
                program.stdout.close()


def _wait(chain: Watching, process: subprocess.Popen[str], applications: int) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, (chain.folder / "prometheus.out").read_text()
        try:
            if len(chain.ask('log_lines_total{level="ERROR"}')) == applications:
                return
        except (urllib.error.URLError, OSError):
            pass  # it is still starting
        time.sleep(0.1)
    raise AssertionError((chain.folder / "prometheus.out").read_text())
