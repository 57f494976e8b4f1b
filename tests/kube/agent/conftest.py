"""Agents as users start them, against a real API server, each with a store of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kube.apiserver import Server

from faultline.changes.keepers import dismiss
from faultline.changes.store import open_store
from faultline.injection.recovery import Recovery
from faultline.kube.crds import crd
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind

HOSTS = Kind("Host", "hosts", "faultline.dev/v1alpha1", namespaced=False)
LEASES = Kind("Lease", "leases", "coordination.k8s.io/v1")
CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1",
    namespaced=False,
)  # fmt: skip
NAMESPACE = "faultline"
SRC = Path(__file__).resolve().parents[3] / "src"
Document = dict[str, Any]


def until(what: Callable[[], Any], patience: float = 30.0, words: str = "") -> Any:
    """What it answers as soon as that is something."""
    end = time.monotonic() + patience
    while not (answer := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {patience:g} s: {words or what}", pytrace=False)
        time.sleep(0.05)
    return answer


def state_of(pid: int) -> str:
    """The letter of its state, proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def listening() -> set[str]:
    """The inodes of all TCP sockets that listen, proc_net_tcp(5)."""
    rows = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if row[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    links = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return {each[8:-1] for each in links if each.startswith("socket:[")}


class Crew:
    """One host with an agent: started, killed, and asked for what it suffers."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.node = server, f"n-{uuid.uuid4().hex[:8]}"
        self.state, self.log = folder / "state", folder / "agent.log"
        self.client: Client = server.client()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        words = [
            sys.executable, "-m", "faultline.cli.main", "agent", "--node", self.node,
            "--kubeconfig", str(self.server.kubeconfig()), *more,
        ]  # fmt: skip
        if "--doctor" not in more:
            words.append("--no-doctor")
        words = [each for each in words if each != "--doctor"]
        env = {**os.environ, "FAULTLINE_STATE": str(self.state), "PYTHONPATH": str(SRC)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, env=env, stderr=log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(40)
        self.process = None

    def settled(self) -> None:
        """Wait until nothing works for it any more."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        until(lambda: not children.read_text().strip(), words="its helpers did not end")

    def host(self) -> Document:
        try:
            return self.client.get(HOSTS, self.node)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            return {}

    def want(self, *desired: Document, **spec: Any) -> None:
        """Write what the host should suffer, as the operator does."""
        until(self.host, words="no Host was made")
        change = {"spec": {"desired": list(desired), **spec}}
        self.client.patch(HOSTS, self.node, change)

    def actual(self, uid: str) -> Document:
        found = (self.host().get("status") or {}).get("actual") or []
        return next((each for each in found if each["uid"] == uid), {})

    def stage(self, uid: str, *stages: str, patience: float = 40.0) -> Document:
        """Its entry as soon as it has come to one of these."""

        def there() -> Document:
            entry = self.actual(uid)
            return entry if entry.get("stage") in stages else {}

        def words() -> str:
            return f"{uid} {stages}: {self.actual(uid)}\n{self.log.read_text()[-3000:]}"

        try:
            return until(there, patience)
        except pytest.fail.Exception:
            pytest.fail(words(), pytrace=False)

    def measured(self, uid: str) -> Document:
        """Its entry as soon as its effect was measured."""

        def there() -> Document:
            entry = self.actual(uid)
            return entry if entry.get("effect") == "effective" else {}

        try:
            return until(there, 40.0)
        except pytest.fail.Exception:
            told = f"{uid}: {self.actual(uid)}\n{self.log.read_text()[-3000:]}"
            pytest.fail(told, pytrace=False)

    def records(self) -> dict[str, Any]:
        with Recovery(self.state) as recovery:
            return {record.uid: record for record in recovery.query()}


def entry(uid: str, fault: str, **params: Any) -> Document:
    """One fault as the operator asks for it; `_name` is a field of the entry itself."""
    own = {name[1:]: params.pop(name) for name in list(params) if name.startswith("_")}
    return {
        "uid": uid,
        "owner": "Fault/default/test",
        "ownerUid": "0",
        "fault": fault,
        "params": params,
        "duration": "2m",
        "askedAt": time.time(),
        **own,
    }


@pytest.fixture(scope="session")
def prepared(apiserver: Server) -> Server:
    """With our Host and a namespace for the leases."""
    client = apiserver.client()
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for act in (
        lambda: client.create(CRDS, crd("Host")),
        lambda: client.rest.request("POST", "/api/v1/namespaces", None, made).json(),
    ):
        try:
            act()
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    def served() -> bool:
        try:
            list(client.every(HOSTS))
        except ApiError:
            return False
        return True

    until(served, words="the kind Host is not served")
    client.close()
    return apiserver


@pytest.fixture
def crew(prepared: Server, tmp_path: Path) -> Generator[Crew]:
    """A host without an agent yet; whatever was left is undone and ended."""
    made = Crew(prepared, tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()
    if made.state.exists():
        with Recovery(made.state) as recovery:
            recovery.recover_all()
            dismiss(recovery.store)  # they would wait for a while
        until(lambda: not keepers(made.state), words="keepers did not end")
        shutil.rmtree(open_store(made.state).run, ignore_errors=True)
    # It is for the whole cluster: an operator would wait for it.
    with contextlib.suppress(ApiError):
        made.client.delete(HOSTS, made.node)
    made.client.close()


def keepers(state: Path) -> list[int]:
    from faultline.kernel import procfs

    return [
        each.pid
        for each in procfs.processes()
        if each.name.startswith("fl-keeper") and str(state) in each.cmdline
    ]


@contextlib.contextmanager
def sleeping() -> Iterator[int]:
    """A process that can be stopped."""
    made = subprocess.Popen(["sleep", "600"])
    try:
        yield made.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(made.pid, signal.SIGCONT)
        made.kill()
        made.wait()


@pytest.fixture
def victim() -> Iterator[int]:
    with sleeping() as pid:
        yield pid
