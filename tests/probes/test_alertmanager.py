"""The alertmanager probe asks a real Prometheus and a real Alertmanager about real alerts."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from faultline.api.probe import Measurement, ProbeSpec
from faultline.api.probes_cluster import matching
from faultline.probes.alertmanager import fits, moment

Measure = Callable[..., Measurement]
real = [pytest.mark.needs_prometheus, pytest.mark.slow]
READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
PAGE, INFO = ['alertname="Broken"'], ['alertname=~"Bro.*"', 'severity="info"']
RULES = """
groups:
- name: shop
  interval: 200ms
  rules:
  - {alert: Broken, expr: shop_broken > 0, labels: {severity: page}}
  - {alert: BrokenToo, expr: shop_broken > 0, labels: {severity: info}}
  - {alert: Slowly, expr: shop_broken > 0, for: 1h}
"""
CONFIGURATION = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [{folder}/rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{manager}']}}]}}]}}
scrape_configs:
- {{job_name: shop, static_configs: [{{targets: ['{exporter}']}}]}}
"""
MANAGER = """
route: {receiver: nobody, group_wait: 0s}
receivers: [{name: nobody}]
inhibit_rules:
- {source_matchers: ['severity="page"'], target_matchers: ['severity="info"']}
"""


@dataclass
class Shop:
    """A service that is broken or not, and what watches it."""

    broken: int = 0
    prometheus: str = ""
    alertmanager: str = ""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if not program:
        pytest.skip("needs Alertmanager: install prometheus-alertmanager")
    folder, found = tmp_path_factory.mktemp("alerts"), Shop()

    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(f"shop_broken {found.broken}\n".encode())

        def log_message(self, *args: Any) -> None:
            return

    exporter = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=exporter.serve_forever, args=(0.05,))
    thread.start()
    prometheus, manager = (f"127.0.0.1:{free_port()}" for _ in range(2))
    at = f"127.0.0.1:{exporter.server_address[1]}"
    settings = CONFIGURATION.format(folder=folder, manager=manager, exporter=at)
    (folder / "prometheus.yml").write_text(settings)
    (folder / "rules.yml").write_text(RULES)
    (folder / "manager.yml").write_text(MANAGER)
    commands = [
        [program, f"--config.file={folder / 'manager.yml'}", "--cluster.listen-address=",
         f"--storage.path={folder / 'manager'}", f"--web.listen-address={manager}"],
        ["prometheus", f"--config.file={folder / 'prometheus.yml'}",
         "--rules.alert.resend-delay=500ms", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address={prometheus}"],
    ]  # fmt: skip
    found.prometheus, found.alertmanager = f"http://{prometheus}", f"http://{manager}"
    with (folder / "log").open("wb") as log:
        running = [subprocess.Popen(each, stdout=log, stderr=log, cwd=folder) for each in commands]
    try:
        for url in (found.prometheus, found.alertmanager):
            _ready(f"{url}/-/ready", running, folder / "log")
        yield found
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)
        exporter.shutdown()
        thread.join()
        exporter.server_close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _ready(url: str, running: list[subprocess.Popen[bytes]], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if any(process.poll() is not None for process in running):
            if "default.tmpl" in (said := log.read_text()):
                pytest.skip("needs the templates of Alertmanager: install prometheus-alertmanager")
            pytest.fail(said)
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"{url} is not ready:\n{log.read_text()}")


def until(look: Callable[[], Measurement], ok: bool) -> Measurement:
    end = time.monotonic() + 40
    while (found := look()).ok is not ok:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


def silence(shop: Shop, matcher: dict[str, Any]) -> None:
    now = time.time()
    body = {
        "matchers": [{"isRegex": False, "isEqual": True, **matcher}],
        "startsAt": _rfc(now),
        "endsAt": _rfc(now + 600),
        "createdBy": "test",
        "comment": "test",
    }
    request = urllib.request.Request(
        f"{shop.alertmanager}/api/v2/silences",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=5) as page:
        assert "silenceID" in json.load(page)


def _rfc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


class TestReal:
    pytestmark = real

    def test_an_alert_fires_and_is_resolved(self, measure: Measure, shop: Shop) -> None:
        asked = {"url": f"{shop.alertmanager}/", "matchers": PAGE}
        calm = measure("alertmanager", **asked)
        assert (calm.ok, calm.value, calm.since) == (False, 0.0, None), calm.text
        assert measure("alertmanager", state="resolved", **asked).ok is True
        began, shop.broken = time.time(), 1
        fired = until(lambda: measure("alertmanager", **asked), ok=True)
        assert fired.value == 1.0
        assert fired.since is not None
        assert began - 1 < fired.since <= time.time(), "since when it fires, not since we know"
        assert fired.result["alerts"][0]["labels"]["severity"] == "page"
        assert measure("alertmanager", state="resolved", **asked).ok is False
        long = measure("alertmanager", measure="seconds", expect=",1m", **asked)
        assert long.value == pytest.approx(time.time() - fired.since, abs=2)
        self.others(measure, shop)
        shop.broken = 0
        over = until(lambda: measure("alertmanager", state="resolved", **asked), ok=True)
        assert (over.value, over.since) == (0.0, None)

    def others(self, measure: Measure, shop: Shop) -> None:
        """While it is broken: what Prometheus itself knows, what is inhibited and silenced."""
        both = {"url": shop.prometheus, "source": "prometheus"}
        plain = until(lambda: measure("alertmanager", matchers=PAGE, **both), ok=True)
        assert (plain.value, plain.result["pending"]) == (1.0, 0)
        slow = measure("alertmanager", matchers=['alertname="Slowly"'], **both)
        assert (slow.ok, slow.result["pending"]) == (False, 1), "it waits for its hour"
        assert measure("alertmanager", matchers=['alertname="Slowly"'], pending=True, **both).ok
        told = {"url": shop.alertmanager, "matchers": INFO}
        hidden = measure("alertmanager", **told)
        assert (hidden.ok, hidden.value, hidden.result["inhibited"]) == (False, 0.0, 1)
        assert measure("alertmanager", inhibited=True, **told).ok is True
        silence(shop, {"name": "alertname", "value": "Broken"})
        asked = {"url": shop.alertmanager, "matchers": PAGE}
        mute = until(lambda: measure("alertmanager", **asked), ok=False)
        assert "1 silenced" in mute.text
        loud = measure("alertmanager", silenced=True, **asked)
        assert (loud.ok, loud.value) == (True, 1.0)

    def test_whoever_cannot_answer_says_nothing(self, measure: Measure, shop: Shop) -> None:
        found = measure("alertmanager", url=shop.prometheus, matchers=PAGE)
        assert found.ok is None
        assert "not with alerts" in found.text
        found = measure("alertmanager", url=shop.alertmanager, source="prometheus", matchers=PAGE)
        assert found.ok is None


def test_nobody_there_is_unmeasured(measure: Measure, closed_port: int) -> None:
    found = measure("alertmanager", url=f"http://127.0.0.1:{closed_port}", matchers=PAGE)
    assert found.ok is None
    assert "connection refused" in found.text


@pytest.mark.parametrize("body", [b"[]", b"{}", b'[{"labels": {}}]', b"<html>", b"", b"[1]"])
@pytest.mark.parametrize("source", ["alertmanager", "prometheus"])
def test_odd_answers_are_unmeasured(
    measure: Measure, raw: Callable[..., int], body: bytes, source: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    port = raw(lambda connection: (connection.recv(4096), connection.sendall(head + body)))
    found = measure(
        "alertmanager", url=f"http://127.0.0.1:{port}", source=source, matchers=PAGE, state="any"
    )
    assert found.ok is (True if (body, source) == (b"[]", "alertmanager") else None)


@pytest.mark.parametrize("wrong", ["Broken", "a=b", 'a=~"("', 'a="b" c', '1a="b"'])
def test_a_matcher_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="expected a"):
        READ.validate_python(
            {"name": "it", "type": "alertmanager", "url": "http://a", "matchers": [wrong]}
        )


def test_matchers_match_as_those_of_alertmanager() -> None:
    labels = {"a": "one", "b": 'say "yes"'}
    for text, right in {
        'a="one"': True, 'a!="one"': False, 'a=~"o.*"': True, 'a=~"n"': False, 'a!~"n"': True,
        'c=""': True, 'c!=""': False, 'c!~".+"': True, r'b="say \"yes\""': True,
        ' a = "one" ': True,
    }.items():  # fmt: skip
        assert fits(labels, [matching(text)]) is right, text


def test_times_are_read_to_the_nanosecond() -> None:
    assert moment("2026-01-01T00:00:00.123456789Z") == pytest.approx(1767225600.123456, abs=1e-6)
    assert moment("2026-01-01T01:00:00+01:00") == 1767225600.0
