"""Traffic from pods: Jobs of a cluster whose node is a few processes of this test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from faultline.api.model import Metadata
from faultline.api.run import Run, RunSpec
from faultline.api.traffic import HttpTraffic
from faultline.errors import ApplyFailed, Unsupported
from faultline.kubeapi.model import Answer, ApiError, Asking, Request
from faultline.operator.running.traffic import ClusterTraffics
from faultline.traffic.run import Traffics

SRC = Path(__file__).resolve().parents[2] / "src"


class Node(Asking):
    """An API server with one node that starts what a Job asks for, and keeps what it says."""

    server, namespace = "https://cluster", "shop"

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: dict[str, list[bytes]] = {}
        self.over: dict[str, threading.Event] = {}
        self.breaks = 0  # logs that break off after two lines
        self.broken = ""

    def send(self, asked: Request) -> Answer:
        plural, _, name = asked.path.partition("/namespaces/shop/")[2].partition("/")
        if asked.method == "POST":
            made: Any = asked.body
            self._start(made)
            return self._told(made)
        if asked.method == "DELETE":
            self._end(name)
            return self._told({})
        if plural == "pods" and not name:
            wanted = str((asked.query or {})["labelSelector"]).partition("=")[2]
            found = [self._pod(wanted)] if wanted in self.running else []
            return self._told({"items": found})
        if plural == "pods":
            return self._told(self._pod(name)) if name in self.running else self._none()
        if not name:
            return self._told({"items": list(self.jobs.values())})
        return self._told(self.jobs[name]) if name in self.jobs else self._none()

    def _told(self, body: Any) -> Answer:
        return Answer(200, {}, json.dumps(body).encode())

    def _none(self) -> Answer:
        return Answer(404, {}, b'{"reason": "NotFound", "message": "not found"}')

    def _pod(self, name: str) -> dict[str, Any]:
        phase = "Running" if self.running[name].poll() is None else "Succeeded"
        return {"metadata": {"name": name}, "status": {"phase": phase}}

    def _start(self, made: Any) -> None:
        name = made["metadata"]["name"]
        (container,) = made["spec"]["template"]["spec"]["containers"]
        env = {each["name"]: each["value"] for each in container["env"]}
        if self.broken:
            env = {"FAULTLINE_LOAD": self.broken}
        self.jobs[name] = made
        words = [sys.executable, "-m", "faultline.cli.main", *container["args"]]
        self.running[name] = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SRC), "HOME": "/", **env},
        )  # fmt: skip
        self.logs[name], self.over[name] = [], threading.Event()
        threading.Thread(target=self._keep, args=(name,), daemon=True).start()

    def _keep(self, name: str) -> None:
        said = self.running[name].stdout
        assert said is not None
        self.logs[name].extend([])
        for line in said:
            self.logs[name].append(line)
        said.close()
        self.running[name].wait()
        self.over[name].set()

    def _end(self, name: str) -> None:
        self.jobs.pop(name, None)
        if name in self.running:
            self.running[name].terminate()

    @contextmanager
    def lines(self, path: str, query: Any, timeout: float) -> Iterator[Iterator[bytes]]:
        name = path.split("/")[-2]

        def told() -> Iterator[bytes]:
            number = 0
            while not (self.over[name].is_set() and number >= len(self.logs[name])):
                if number == 2 and self.breaks:
                    self.breaks -= 1
                    raise ApiError(0, "NoAnswer", "it broke off")
                if number < len(self.logs[name]):
                    number += 1
                    yield self.logs[name][number - 1]
                else:
                    self.over[name].wait(0.05)

        yield told()

    def close(self) -> None:
        """There is nothing to let go of."""


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    for each in made.running.values():
        each.terminate()
    for each in made.over.values():
        assert each.wait(20)


@pytest.fixture
def address() -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def load(url: str, **job: Any) -> HttpTraffic:
    return HttpTraffic.model_validate({
        "name": "visitors", "type": "http", "url": url, "rate": 40.0, "warmup": "0s",
        "job": {"image": "faultline:1", **job},
    })  # fmt: skip


def traffics(node: Node) -> ClusterTraffics:
    made = ClusterTraffics(lambda: node, "")
    made.run = Run(
        metadata=Metadata(name="r", uid="0123456789abcdef"), spec=RunSpec(experiment="e")
    )
    return made


def wait_for(what: Any, seconds: float = 30.0) -> Any:
    pause = threading.Event()
    for _ in range(int(seconds / 0.1)):
        if found := what():
            return found
        pause.wait(0.1)
    pytest.fail("not in time")


def test_replicas_share_a_rate_and_are_added_up_though_a_log_breaks_off(
    node: Node, address: str
) -> None:
    node.breaks = 1
    loads = traffics(node)
    loads.start(load(address, replicas=2), seed=1)
    assert len(node.jobs) == 2
    for made in node.jobs.values():
        assert made["metadata"]["ownerReferences"][0]["name"] == "r"
        assert made["spec"]["activeDeadlineSeconds"] > 0
    seconds = wait_for(lambda: len(found := loads.seconds("visitors", 0.0)) >= 4 and found)
    assert 30 <= max(each.sent for each in seconds) <= 50, "both together"
    assert len({each.at for each in seconds}) == len(seconds), "no second twice"
    totals = loads.stop("visitors")
    assert totals is not None
    assert totals.ok >= 80
    assert totals.errors == 0
    assert totals.histogram
    assert node.jobs == {}
    loads.close()


def test_what_an_engine_before_has_left_is_ended_first(node: Node, address: str) -> None:
    first = traffics(node)
    first.start(load(address), seed=1)
    before = set(node.jobs)
    second = traffics(node)  # the first one died
    second.start(load(address), seed=1)
    assert before.isdisjoint(node.jobs)
    assert len(node.jobs) == 1
    second.close()
    first.close()


def test_a_pod_that_cannot_work_says_why(node: Node, address: str) -> None:
    node.broken = '{"driver": "none"}'
    loads = traffics(node)
    with pytest.raises(ApplyFailed, match="visitors"):
        loads.start(load(address), seed=1)
    loads.close()


def test_it_needs_an_operator_and_an_image(node: Node, address: str) -> None:
    with pytest.raises(Unsupported, match="operator"):
        Traffics().start(load(address), None)
    with pytest.raises(Unsupported, match="image"):
        traffics(node).start(load(address, image=""), None)
