"""A real server over a store of the test, at a Unix socket and on loopback, and real requests."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_driver import QUICK, RealTime
from tests.engine.world import experiment

from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.changes import keepers
from faultline.changes.store import open_store
from faultline.engine import wiring
from faultline.engine.runs import Runs
from faultline.engine.unattended import Manager
from faultline.injection.injector import Injector
from faultline.server import serving
from faultline.server.host import Host


class _Unix(http.client.HTTPConnection):
    def __init__(self, file: Path) -> None:
        super().__init__("engine", timeout=30)
        self.file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.file))


@dataclass
class Answer:
    """What the server said."""

    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Calls the engine as any program would."""

    where: str
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def connection(self) -> http.client.HTTPConnection:
        if self.where.startswith("unix:"):
            return _Unix(Path(self.where.removeprefix("unix:")))
        host, _, port = self.where.removeprefix("http://").rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=30)

    def __call__(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        connection = self.connection()
        try:
            self.send(connection, method, path, data, **headers)
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read(), told)
        finally:
            connection.close()

    def send(
        self, connection: http.client.HTTPConnection, method: str, path: str, data: Any = None,
        **headers: str,
    ) -> None:  # fmt: skip
        sent = {**self.headers, **{name.replace("_", "-"): each for name, each in headers.items()}}
        if self.token:
            sent.setdefault("authorization", f"Bearer {self.token}")
        body = (
            data.encode() if isinstance(data, str) else None if data is None else json.dumps(data)
        )
        if body is not None:
            sent.setdefault("content-type", "application/json")
        connection.request(method, f"/v1{path}", body, sent)

    def get(self, path: str) -> Any:
        return self._well(self("GET", path))

    def post(self, path: str, data: Any = None) -> Any:
        return self._well(self("POST", path, data))

    def delete(self, path: str) -> Any:
        return self._well(self("DELETE", path))

    def _well(self, answer: Answer) -> Any:
        assert answer.status < 300, answer.body
        return answer.json()

    def events(self, path: str = "/events", last: str = "") -> Generator[dict[str, Any]]:
        """The events of a stream, each with its id, its name and its data; it has begun."""
        connection = self.connection()
        self.send(connection, "GET", path, **({"last_event_id": last} if last else {}))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return _events(connection, answer)


def _events(
    connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
) -> Generator[dict[str, Any]]:
    told: dict[str, Any] = {}
    try:
        for raw in answer:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                told[name] = json.loads(value) if name == "data" else value
                continue
            if "data" in told:
                yield told
            told = {}
    finally:
        connection.close()


@dataclass
class Served:
    """The engine of a test."""

    state: Path
    unix: Client
    loopback: Client
    runs: Callable[[], Runs]
    manager: Manager


def document(name: str = "quick", **changes: Any) -> dict[str, Any]:
    """An experiment that takes a moment, in a world that is made up."""
    spec = experiment(**{**QUICK, **changes})
    made = Experiment(metadata=Metadata(name=name), spec=spec).to_json()
    for fault in made["spec"].get("faults", []):
        fault["params"] = {"latency": "100ms", **fault.get("params", {})}
    return made


def until(true: Callable[[], Any], patience: float = 30.0) -> Any:
    end = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.03)
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Runs go in a world that is made up; faults are real."""
    folder = tmp_path_factory.mktemp("served")
    folder.chmod(0o700)
    state = folder / "state"
    opened = partial(Runs, state, lambda: RealTime().tools(), lambda *_: [])
    manager = Manager(opened)
    keeping = threading.Thread(target=manager.keep, daemon=True)

    def host() -> Host:
        return Host(opened, partial(Injector, state), wiring.check_fault, manager.begin)

    with ExitStack() as stack:
        here = stack.enter_context(
            serving.served(host, f"unix:{folder / 'engine.sock'}", lambda: folder / "none")
        )
        there = stack.enter_context(serving.served(host, "127.0.0.1:0", lambda: folder / "token"))
        keeping.start()
        token = (folder / "token").read_text().strip()
        url = there.partition(" ")[0]
        yield Served(state, Client(here), Client(url, token), opened, manager)
        manager.stop()
        keeping.join(10)
        until(lambda: not manager.running())
    with Injector(state) as injector:
        injector.lift()
        injector.recover_all()
    keepers.retire(open_store(state))
