"""Operator and agent together: from a Fault to a stopped process, and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.kube.agent.conftest import NAMESPACE, Crew, crew, prepared, state_of, victim
from tests.kube.conftest import Server
from tests.kube.operator.conftest import FAULTS, HOSTS, NODES, VERSION, settings_for, until

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object
from faultline.kubeapi.plain import Plain
from faultline.operator.app import Operator

__all__ = ["crew", "prepared", "victim"]  # fixtures
pytestmark = [pytest.mark.needs_apiserver, pytest.mark.needs_root]


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


def stopping(client: Client, node: str, pid: int, duration: str = "2m") -> Object:
    spec = {"fault": "process.stop", "params": {"pid": pid}, "duration": duration,
            "selector": {"nodes": {"names": [node]}}}  # fmt: skip
    made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": node}, "spec": spec}
    return client.create(FAULTS, made)


def status_of(client: Client, name: str) -> Object:
    try:
        return client.get(FAULTS, name).get("status") or {}
    except ApiError as error:
        if error.reason != "NotFound":
            raise
        return {"phase": "deleted"}


def test_a_fault_stops_a_process_and_deleting_it_lets_it_go_on(
    operator: Operator, crew: Crew, victim: int, kinds: Server
) -> None:
    crew.start()
    # Its lease comes a moment after its Host.
    until(lambda: operator.caches.alive.get(crew.node), "the agent is not seen")
    with closing(kinds.client()) as client:
        stopping(client, crew.node, victim)
        until(lambda: status_of(client, crew.node).get("effect") == "effective", patience=40)
        assert state_of(victim) == "T"
        client.delete(FAULTS, crew.node)
        until(lambda: status_of(client, crew.node)["phase"] == "deleted", patience=40)
        assert state_of(victim) != "T"
        assert client.get(HOSTS, crew.node)["spec"].get("desired", []) == []


def test_it_ends_by_itself_and_says_how(
    operator: Operator, crew: Crew, victim: int, kinds: Server
) -> None:
    crew.start()
    until(lambda: operator.caches.alive.get(crew.node), "the agent is not seen")
    with closing(kinds.client()) as client:
        stopping(client, crew.node, victim, duration="3s")
        until(lambda: status_of(client, crew.node).get("phase") == "ended", patience=40)
        told = status_of(client, crew.node)
        assert (told["end"], told["effect"]) == ("recovered", "effective")
        assert told["counts"]["recovered"] == 1
        assert state_of(victim) != "T"
        client.delete(FAULTS, crew.node)
        until(lambda: status_of(client, crew.node)["phase"] == "deleted")
