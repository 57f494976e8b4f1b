"""The API server stopped through itself: asked for over it, ended without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.kube.agent.conftest import NAMESPACE, Crew, crew, prepared, state_of
from tests.kube.conftest import Server
from tests.kube.operator.conftest import FAULTS, HOSTS, NODES, VERSION, kinds, settings_for, until
from tests.kube.operator.test_with_agent import status_of

from faultline.kubeapi.model import ApiError
from faultline.kubeapi.plain import Plain
from faultline.operator.app import Operator

__all__ = ["crew", "kinds", "prepared"]  # fixtures
pytestmark = [pytest.mark.needs_apiserver, pytest.mark.needs_root]
LEASE = 3


@pytest.fixture
def operator(kinds: Server, crew: Crew) -> Iterator[Operator]:
    access = kinds.access()
    made = Operator(lambda: Plain(access), settings_for(NAMESPACE))
    crew.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": crew.node}})
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(20)
    crew.client.delete(NODES, crew.node)


def test_it_stands_still_beyond_the_lease_of_the_agent_and_goes_on_at_the_deadline(
    operator: Operator, crew: Crew, kinds: Server
) -> None:
    port = kinds.url.rpartition(":")[2]
    crew.start("--lease", f"{LEASE}s", "--renew", "1s")
    until(lambda: operator.caches.alive.get(crew.node), "the agent is not seen", 60)
    until(lambda: "kube-apiserver" in (crew.host().get("status") or {}).get("components", ()),
          "it has not looked what runs here", 60)  # fmt: skip
    chosen = {"component": "kube-apiserver", "process": f"--secure-port={port}( |$)"}
    spec = {"fault": "process.stop", "duration": "7s", "allow": ["control-plane"],
            "selector": {"controlPlane": {**chosen, "nodes": [crew.node]}}}  # fmt: skip
    made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": crew.node}, "spec": spec}
    with closing(kinds.client()) as client:
        client.create(FAULTS, made)
        until(lambda: status_of(client, crew.node).get("phase") == "refused", "it is refused")
        assert "none would be left" in status_of(client, crew.node)["message"]
        change = {"spec": {"allow": ["control-plane", "single-replica"]}}
        client.patch(FAULTS, crew.node, change)
        begun = until(lambda: state_of(kinds.pid) == "T" and time.monotonic(), "it stops", 60)
        # It answers nobody, so nobody could have it undone; and the agent has no lease any more.
        until(lambda: state_of(kinds.pid) != "T", "it goes on", 60)
        assert time.monotonic() - begun > LEASE + 1
        until(lambda: _phase(client, crew.node) == "ended", "it is told", 60)
        told = status_of(client, crew.node)
        assert (told["end"], told["counts"]["recovered"]) == ("recovered", 1)
        (entry,) = client.get(HOSTS, crew.node)["status"]["actual"] or [{}]
        assert "lease" not in entry.get("note", "")
        client.delete(FAULTS, crew.node)


def _phase(client: object, name: str) -> str:
    try:
        return str(status_of(client, name).get("phase"))  # type: ignore[arg-type]
    except ApiError:  # it has just come back
        return ""
