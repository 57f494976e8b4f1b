"""Notices reach real receivers; one that is down delays the end of a run by what is stated."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_driver import QUICK, RealTime
from tests.engine.world import Odds, experiment
from tests.server.conftest import until

from faultline.api.experiment import Experiment
from faultline.api.graph_status import Approval
from faultline.api.model import Metadata
from faultline.api.run import Run
from faultline.engine import notices, notifying, wishes
from faultline.engine.runs import Runs

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # of Apprise
KEY = "a key of theirs"
Heard = list[tuple[str, dict[str, str], bytes]]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Heard]]:
    """A real HTTP server that writes down what it is sent."""
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            heard.append((self.path, headers, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", heard
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def carried_out(tmp_path: Path) -> Callable[..., Run]:
    """Carries out an experiment that ends badly, or asks first."""

    def carry_out(notify: list[dict[str, Any]], **changes: Any) -> Run:
        spec = experiment(**{**QUICK, "notify": notify, **changes})
        broken = RealTime()
        broken.odds = Odds(ineffective=1.0)
        opened = Runs(tmp_path / "state", broken.tools, lambda *_: [])
        with opened as kept:
            name = kept.create(Experiment(metadata=Metadata(name="told"), spec=spec)).metadata.name
            driver = kept.driver(name)
            driving = threading.Thread(target=driver.drive)
            driving.start()
            if changes.get("nodes"):
                until(lambda: wishes.waiting(kept.get(name)))
                said = Approval(node="ask", answer="refuse", by="ann", at=time.time())
                wishes.answer(kept.store, name, said)
            driving.join(90)
            assert not driving.is_alive()
            return kept.get(name)

    return carry_out


def _all(address: str, folder: Path) -> list[dict[str, Any]]:
    (folder / "key").write_text(KEY + "\n")
    (folder / "apprise").write_text(f"json://{address}/apprise\n")
    return [
        {"webhook": {"url": f"http://{address}/hook", "secret": {"file": str(folder / "key")}}},
        {"alertmanager": {"url": f"http://{address}/am", "labels": {"team": "db"}}},
        {"apprise": {"file": str(folder / "apprise")}},
    ]


def _events(run: Run) -> list[str]:
    return [point.event for point in run.status.timeline]


def test_who_is_named_is_told_how_a_run_ended(
    receiver: tuple[str, Heard], carried_out: Callable[..., Run], tmp_path: Path
) -> None:
    address, heard = receiver
    run = carried_out(_all(address, tmp_path))
    verdict = str(run.status.verdict)
    assert verdict != "held"
    failed = [point.text for point in run.status.timeline if point.event == "notice failed"]
    assert not failed
    assert sorted(path for path, _, _ in heard) == ["/am/api/v2/alerts", "/apprise", "/hook"]
    by_path = {path: (headers, body) for path, headers, body in heard}
    headers, body = by_path["/hook"]
    signed = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-faultline-signature"] == f"sha256={signed}"
    told = json.loads(body)
    assert (told["run"], told["event"], told["verdict"]) == (run.metadata.name, verdict, verdict)
    assert told["reason"] == run.status.reason
    (alert,) = json.loads(by_path["/am/api/v2/alerts"][1])
    assert alert["labels"]["alertname"] == "FaultlineRun"
    assert (alert["labels"]["team"], alert["labels"]["verdict"]) == ("db", verdict)
    assert "T" in alert["startsAt"]
    sent = json.loads(by_path["/apprise"][1])
    assert run.metadata.name in sent["title"]
    assert _events(run).count("told") == 3
    assert KEY not in run.model_dump_json()


def test_who_is_named_is_told_that_a_run_waits(
    receiver: tuple[str, Heard], carried_out: Callable[..., Run], tmp_path: Path
) -> None:
    address, heard = receiver
    ask = {"name": "ask", "type": "approval", "message": "may we?"}
    run = carried_out(_all(address, tmp_path), faults=[], nodes=[ask])
    hooks = [json.loads(body) for path, _, body in heard if path == "/hook"]
    asked = next(told for told in hooks if told["event"] == "approval")
    assert asked["node"] == "ask"
    assert "may we?" in asked["text"]
    assert f"faultline approve {run.metadata.name} ask" in asked["text"]
    assert len(hooks) == 2, "that it waits, and how it ended"
    alerts = [json.loads(body)[0]["labels"]["event"] for path, _, body in heard if "/am" in path]
    assert len(alerts) == 2, alerts
    assert "approval" in alerts


def test_a_run_that_held_tells_nobody(receiver: tuple[str, Heard], tmp_path: Path) -> None:
    address, heard = receiver
    spec = experiment(**{**QUICK, "notify": _all(address, tmp_path)})
    with Runs(tmp_path / "state", RealTime().tools, lambda *_: []) as kept:
        run = kept.start(Experiment(metadata=Metadata(name="well"), spec=spec))
    assert (str(run.status.verdict), heard) == ("held", [])


def test_receivers_that_are_down_delay_the_end_by_no_more_than_stated(
    carried_out: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "PATIENCE", 1.0)
    with socket.socket() as mute, socket.socket() as closed:
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # takes the connection and never answers
        closed.bind(("127.0.0.1", 0))  # refuses it
        run = carried_out(
            [
                {"webhook": {"url": f"http://127.0.0.1:{each.getsockname()[1]}/"}}
                for each in (mute, closed)
            ]
        )
    points = {point.event: point for point in run.status.timeline}
    assert _events(run).count("notice failed") == 2
    assert "told" not in points
    assert str(run.status.verdict) != "error", "what we cannot tell changes no verdict"
    last_ended = max(phase.started for phase in run.status.phases if phase.phase != "ended")
    assert run.status.ended is not None
    assert run.status.ended - last_ended < 10


def test_a_notice_that_hangs_is_given_up(
    carried_out: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "PATIENCE", 10**9)
    let_go = threading.Event()
    monkeypatch.setattr(notifying, "send", lambda *_: let_go.wait(30))
    began = time.monotonic()
    try:
        run = carried_out([{"webhook": {"url": "http://127.0.0.1:1/"}}])
    finally:
        let_go.set()
    failed = [p.text for p in run.status.timeline if p.event == "notice failed"]
    assert failed == ["it was not sent in time"]
    assert time.monotonic() - began < 25
