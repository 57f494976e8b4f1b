"""The standard drills of examples/drills on real pods, carried out by an operator."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_pods import kubectl
from tests.kube.drills.conftest import GROUP, PORT, Field, load, until

pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow, pytest.mark.timeout(300),
]  # fmt: skip
DRILLS = Path(__file__).parents[3] / "examples" / "drills"


def run(field: Field, name: str, steady: str = "30s", **values: Any) -> dict[str, Any]:
    """The status of a run of this drill, when it has ended."""
    document = load(DRILLS / f"{name}.yaml")
    document["spec"].setdefault("timeouts", {})["steadyState"] = steady
    kubectl("apply", "-n", field.space, "-f", "-", given=document)
    parameters = {"url": f"http://{field.address('web')}:{PORT}/", "app": "web", **values}
    kubectl("create", "-n", field.space, "-f", "-", given={
        "apiVersion": f"{GROUP}/v1alpha1", "kind": "Run", "metadata": {"name": name},
        "spec": {"experiment": name, "parameters": parameters}})  # fmt: skip

    def ended() -> dict[str, Any]:
        told = field.status("run", name)
        return told if told.get("phase") == "ended" else {}

    try:
        return until(ended, name, 120)
    except pytest.fail.Exception:
        told = kubectl("get", "runs,faults", "-n", field.space, "-o", "yaml")
        pytest.fail(told[-6000:], pytrace=False)


# ---------------------------------------------------------------------------- keep-ha-fresh


def test_a_copy_is_replaced_and_nobody_notices(field: Field) -> None:
    field.serve("web", 3)
    field.ready("web")
    before = field.pods("web")
    told = run(field, "keep-ha-fresh", copies=3, errors="60%", back="60s", rate=10)
    assert told["verdict"] == "held", (told["reason"], told.get("aborted"), told["points"])
    points = told["points"]
    assert points["impact"] <= points["recovered"]
    assert points["score"] == 100
    after = field.pods("web")
    assert len(after) == 3
    assert len(after.keys() & before.keys()) == 2, "one copy is another one"


def test_with_one_copy_nothing_is_done(field: Field) -> None:
    field.serve("web", 1)
    field.ready("web")
    before = field.pods("web")
    told = run(field, "keep-ha-fresh", steady="5s", copies=2, rate=5)
    assert told["verdict"] != "held"
    assert field.pods("web") == before
    assert field.get("faults")["items"] == []


# ---------------------------------------------------------------------------- network-red-blue


class Watch:
    """What a Prometheus with one rule says: an alert fires while answers are slow."""

    def __init__(self, address: str) -> None:
        self.address, self.firing = address, ""
        self.ending = threading.Event()

    def look(self) -> None:
        while not self.ending.wait(0.2):
            begun = time.monotonic()
            try:
                urllib.request.urlopen(f"http://{self.address}:{PORT}/", timeout=1).close()
            except OSError as error:
                if getattr(error, "code", None) is None:
                    begun -= 10
            slow = time.monotonic() - begun > 0.9
            if slow and not self.firing:
                self.firing = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            elif not slow:
                self.firing = ""

    def alerts(self) -> bytes:
        alert = {"labels": {"alertname": "ServiceSlow"}, "annotations": {}, "state": "firing",
                 "activeAt": self.firing, "value": "1"}  # fmt: skip
        return json.dumps(
            {"status": "success", "data": {"alerts": [alert] if self.firing else []}}
        ).encode()


@contextmanager
def prometheus(address: str) -> Iterator[str]:
    watch = Watch(address)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = watch.alerts()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threads = [threading.Thread(target=each) for each in (server.serve_forever, watch.look)]
    for each in threads:
        each.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        watch.ending.set()
        server.shutdown()
        server.server_close()
        for each in threads:
            each.join()


def test_red_breaks_the_standard_and_blue_mends_it(field: Field) -> None:
    field.serve("web", 1)
    field.ready("web")
    with prometheus(field.address("web")) as url:
        told = run(field, "network-red-blue", prometheus=url, duration="16s", window="3s",
                   latency="2s", rate=5, flow=2, found="15s", mended="90s")  # fmt: skip
    assert told["verdict"] == "held", (told["reason"], told.get("aborted"), told["points"])
    (fault,) = told["faults"]
    assert (fault["effect"], fault["end"]) == ("effective", "recovered")
    points = told["points"]
    assert points["effective"] is not None
    assert points["impact"] <= points["discovered"] <= points["recovered"]
    assert points["score"] == 100
