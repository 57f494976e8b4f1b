"""An exporter that shows other figures than the real one, as whoever scrapes it sees them."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, Record
from faultline.errors import ApplyFailed, InvalidParameter, Refused
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect, Reading
from faultline.units import Duration
from faultline.workers import metric_lines

PAGE = """# HELP http_requests_total Requests, "all" of them.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/a\\"b\\\\c"} 1027 1395066363000
http_requests_total{code="500",path="/x"} 3
http_requests_total{code="503", path="/x",} 1.5e1

# TYPE queue gauge
queue 12.5
weird_nan NaN
  indented{a="{b}"}   +Inf
{"utf8.name",a="b"} 1
broken{a= 3
"""


@dataclass
class Exporter:
    """The real exporter of a test; its page can be changed while it serves."""

    page: str = PAGE
    status: int = 200
    kind: str = "text/plain; version=0.0.4"
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    told = Exporter()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            self.send_response(told.status)
            self.send_header("Content-Type", told.kind)
            self.end_headers()
            self.wfile.write(told.page.encode())

        def log_message(self, *args: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("metrics") / "store"
    yield path
    with Injector(path) as injector:
        keepers.retire(injector.store)


@pytest.fixture
def injector(store: Path) -> Iterator[Injector]:
    with Injector(store) as found:
        yield found
        found.recover_all()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def order(exporter: Exporter, port: int, *series: str, duration: str = "60s", **more: Any) -> Order:
    params = {"url": exporter.url, "port": port, "series": list(series), **more}
    return Order("log.metrics", params, Duration.parse(duration))


@contextmanager
def on(
    injector: Injector, exporter: Exporter, *series: str, **more: Any
) -> Iterator[tuple[str, Record, Reading]]:
    """The drill for the block: the URL of its page; effective by its own account."""
    port = free_port()
    record = injector.inject(order(exporter, port, *series, **more))
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, (reading.measured, reading.reason)
    yield f"http://127.0.0.1:{port}/metrics", record, reading
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED
    assert injector.residue(record.uid) == []
    with socket.socket() as free:  # the port can be had again at once
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


def read(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as page:
        return page.read().decode()


def test_only_the_series_meant_show_other_figures(injector: Injector, exporter: Exporter) -> None:
    rules = ('http_requests_total{code=~"5.."} *= 10', "queue = 900")
    with on(injector, exporter, *rules) as (url, _, reading):
        shown = read(url)
        assert reading.measured.startswith("3 of 3 series shown as asked, 3 others as real")
    expected = (
        PAGE.replace('{code="500",path="/x"} 3', '{code="500",path="/x"} 30')
        .replace('{code="503", path="/x",} 1.5e1', '{code="503", path="/x",} 150')
        .replace("queue 12.5", "queue 900")
    )
    assert shown == expected


def test_a_series_that_is_not_there_is_added(injector: Injector, exporter: Exporter) -> None:
    with on(injector, exporter, 'alarm{kind="a\\"b"} = 1.5') as (url, _, _):
        assert read(url) == PAGE + 'alarm{kind="a\\"b"} 1.5\n'


def test_figures_grow_and_follow_the_real_ones(injector: Injector, exporter: Exporter) -> None:
    def errors(url: str) -> float:
        line = next(each for each in read(url).splitlines() if 'code="500"' in each)
        return float(line.split()[1])

    with on(injector, exporter, 'http_requests_total{code="500"} += 100/s') as (url, _, _):
        first = errors(url)
        time.sleep(0.5)
        second = errors(url)
        assert second - first >= 50
        exporter.page = PAGE.replace('path="/x"} 3', 'path="/x"} 100003')
        assert errors(url) > 100_000
    exporter.page = PAGE
    with on(injector, exporter, "queue = 1012.5", ramp="30s") as (url, _, _):
        early = float(read(url).partition("\nqueue ")[2].split()[0])
        time.sleep(0.3)
        later = float(read(url).partition("\nqueue ")[2].split()[0])
        assert 12.5 <= early < later < 1012.5


def test_what_the_exporter_says_otherwise_is_passed_back(
    injector: Injector, exporter: Exporter
) -> None:
    with on(injector, exporter, "queue = 1") as (url, record, _):
        assert "queue 12.5" not in read(f"{url}?collect=cpu", Authorization="Bearer x")
        path, headers = exporter.asked[-1]
        assert path == "/metrics?collect=cpu"
        assert headers["authorization"] == "Bearer x"
        assert headers["accept"] == "text/plain;version=0.0.4"
        exporter.kind, exporter.page = "text/html", "queue 12.5\n"
        assert read(url) == "queue 12.5\n"
        exporter.kind, exporter.status = "text/plain", 503
        with pytest.raises(urllib.error.HTTPError, match="503"):
            read(url)
        assert injector.observe(record.uid).effect is Effect.INEFFECTIVE
        exporter.status = 200


def test_readers_are_counted(injector: Injector, exporter: Exporter) -> None:
    with on(injector, exporter, "queue = 1") as (url, record, reading):
        assert "not read by others yet" in reading.measured
        for _ in range(3):
            read(url)
        time.sleep(0.3)
        assert "read 3 times by others" in injector.observe(record.uid).measured


def test_it_ends_by_itself(injector: Injector, exporter: Exporter) -> None:
    port = free_port()
    injector.inject(order(exporter, port, "queue = 1", duration="2s"))
    end = time.monotonic() + 20
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) != 0:
                return
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_cannot_be_is_said_before(injector: Injector, exporter: Exporter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises((Refused, ApplyFailed), match="is held by"):
            injector.inject(order(exporter, taken.getsockname()[1], "queue = 1"))
    for wrong in (
        "queue",
        "queue == 1",
        "queue{a=b} = 1",
        "queue = x",
        "queue *= 2/s",
        "",
        "1 = 1",
    ):
        with pytest.raises(InvalidParameter):
            injector.inject(order(exporter, free_port(), wrong))
    for nobody in ("nothing *= 2", 'nothing{a=~"b"} = 2'):
        with pytest.raises(InvalidParameter, match="none of them fits"):
            injector.inject(order(exporter, free_port(), nobody))
    gone = Exporter(port=free_port())
    with pytest.raises(Refused, match="does not answer"):
        injector.inject(order(gone, free_port(), "queue = 1"))


@pytest.mark.parametrize(
    ("rule", "name", "labels", "fits"),
    [
        ("a = 1", "a", {}, True),
        ("a = 1", "b", {}, False),
        ("a{} = 1", "a", {"x": "y"}, True),
        ('a{x="y"} = 1', "a", {"x": "y", "z": ""}, True),
        ('a{x!="y"} = 1', "a", {}, True),
        ('a{x!="y"} = 1', "a", {"x": "y"}, False),
        ('a{x=~"y.*|z"} = 1', "a", {"x": "yes"}, True),
        ('a{x=~"e"} = 1', "a", {"x": "yes"}, False),
        ('a{x!~"y.*"} = 1', "a", {"x": "yes"}, False),
        ('a{x="",} = 1', "a", {}, True),
        ('ns:a_b{x="a,b}",z="\\"\\n"} = 1', "ns:a_b", {"x": "a,b}", "z": '"\n'}, True),
    ],
)
def test_series_are_matched_as_in_a_query(
    rule: str, name: str, labels: dict[str, str], fits: bool
) -> None:
    assert metric_lines.parse_rule(rule).fits(name, labels) is fits


@pytest.mark.needs_prometheus
@pytest.mark.slow
def test_a_real_prometheus_raises_an_alarm_and_takes_it_back(
    injector: Injector, exporter: Exporter, tmp_path: Path
) -> None:
    exporter.page = 'http_requests_total{code="500"} 3\nqueue 12.5\n'
    port, web = free_port(), free_port()
    (tmp_path / "rules.yml").write_text(
        "groups:\n- name: g\n  interval: 500ms\n  rules:\n"
        "  - alert: QueueFull\n    expr: queue > 500\n"
    )
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}\n"
        f"rule_files: ['{tmp_path}/rules.yml']\n"
        "scrape_configs:\n- job_name: shop\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
    )
    program = shutil.which("prometheus") or "prometheus"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address=127.0.0.1:{web}",
            ],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
        )

    def alarms() -> list[str]:
        try:
            told = json.loads(read(f"http://127.0.0.1:{web}/api/v1/alerts"))
        except (urllib.error.URLError, OSError):
            return []
        return [each["labels"]["alertname"] for each in told["data"]["alerts"]]

    def value(query: str) -> float:
        encoded = urllib.parse.quote(query)
        told = json.loads(read(f"http://127.0.0.1:{web}/api/v1/query?query={encoded}"))
        return float(told["data"]["result"][0]["value"][1])

    try:
        record = injector.inject(order(exporter, port, "queue = 900", "http_new = 7"))
        until(lambda: alarms() == ["QueueFull"], process, tmp_path / "log")
        assert value("queue") == 900
        assert value("http_new") == 7
        assert value('http_requests_total{code="500"}') == 3
        assert value("up") == 1
        reading = injector.observe(record.uid)
        assert "times by others" in reading.measured
        injector.recover(record.uid)
        until(lambda: alarms() == [], process, tmp_path / "log")
    finally:
        process.terminate()
        process.wait(30)


def until(condition: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
