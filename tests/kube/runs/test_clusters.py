"""One run in several clusters: two real API servers, each with an operator, and a third address
that nobody answers at.
"""

from __future__ import annotations

import base64
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest
import yaml
from tests.kube.apiserver import ADMIN, Server, running
from tests.kube.operator.conftest import CRDS, HOSTS, LEASE, NODES, PODS, SPACES, VERSION, Bench
from tests.kube.runs.conftest import EXPERIMENTS, RUNS, Place, experiment, install, until

from faultline.kube.crds import crd
from faultline.kubeapi.model import Kind, metadata
from faultline.testing.agents import Agents

pytestmark = [pytest.mark.needs_apiserver, pytest.mark.slow]
SECRETS = Kind("Secret", "secrets", "v1")


def kubeconfig(url: str, server: Server) -> str:
    authority = base64.b64encode(server.authority.read_bytes()).decode()
    return yaml.safe_dump({
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": url,
                                               "certificate-authority-data": authority}}],
        "users": [{"name": "a", "user": {"token": ADMIN}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    })  # fmt: skip


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """Another cluster, with our kinds."""
    with running(tmp_path_factory.mktemp("second")) as server:
        with closing(server.client()) as client:
            for name in ("Fault", "Host", "Halt"):
                client.patch(CRDS, crd(name)["metadata"]["name"], crd(name), "apply")
            install(client)
            path = f"/apis/{VERSION}/hosts"
            until(lambda: client.rest.request("GET", path).status == 200)
        yield server


@pytest.fixture
def other(second: Server, place: Place) -> Generator[Place]:
    """Two nodes with a pod each, their agents and an operator, in the other cluster."""
    space = place.bench.namespace
    with closing(second.client()) as client:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
        client.create(SPACES, made)
        bench = Bench(second, client, space, runs=(space,))
        names = bench.populate(2, 1)
        with Agents(bench.connect, names, bench.own, lease=LEASE) as bench.agents:
            bench.operate()
            yield Place(bench)
            bench.end_operators()
        for kind, found in ((NODES, names), (HOSTS, names), (PODS, [])):
            for name in found:
                client.delete(kind, name)


def told_of(place: Place, second: Server, **fields: Any) -> None:
    """The Secrets of the clusters, and an operator that carries it out."""
    for name, url in (("east", place.bench.server.url), ("west", second.url)):
        server = place.bench.server if name == "east" else second
        data = base64.b64encode(kubeconfig(url, server).encode()).decode()
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                "data": {"kubeconfig": data}}  # fmt: skip
        place.client.create(SECRETS, made, place.bench.namespace)
    made = {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": f"{place.bench.namespace}-e"}}  # fmt: skip
    place.client.create(SPACES, made)
    place.put(EXPERIMENTS, "slow-web", experiment(**fields))
    place.bench.operate()


def clusters(place: Place) -> list[dict[str, Any]]:
    """The home cluster as a member of its own, in another namespace, and the other one."""
    return [
        {"name": "east", "secret": {"name": "east"}, "namespace": f"{place.bench.namespace}-e"},
        {"name": "west", "secret": {"name": "west"}},
    ]


def everywhere(place: Place) -> dict[str, Any]:
    """A fault on the pods of the namespace, wherever the run is."""
    selector = {"pods": {"namespaces": [place.bench.namespace], "labels": {"app": "web"}},
                "mode": "all"}  # fmt: skip
    (pods,) = experiment()["probes"]
    probe = {**pods, "namespace": place.bench.namespace}
    fault = {"name": "slow", "fault": "network.delay", "params": {"latency": "${latency}"},
             "duration": "${length}", "selector": selector}  # fmt: skip
    return {"faults": [fault], "probes": [probe]}


def acting(place: Place, name: str) -> None:
    def effects() -> list[int]:
        return [each.get("effective", 0) for each in place.status(name).get("clusters", [])]

    until(lambda: effects() == [1, 1], "it acts in both", 60)


def test_a_run_in_two_clusters_has_one_verdict_and_one_end(
    place: Place, second: Server, other: Place
) -> None:
    told_of(place, second, **everywhere(place))
    place.run("both", clusters=clusters(place))
    told = place.ended("both", 90)
    assert told["verdict"] == "held", told["reason"]
    found = {each["name"]: each for each in told["clusters"]}
    assert {name: (each["verdict"], each["effective"]) for name, each in found.items()} == {
        "east": ("held", 1),
        "west": ("held", 1),
    }
    there = other.get("both")
    assert metadata(there)["labels"]["cluster"] == "west"
    assert there["status"]["faults"][0]["reading"]["values"]["targets"] == 2

    # Worst wins; what is halted in one of them is halted in all.
    place.run("long", clusters=clusters(place), parameters={"length": "2m"})
    acting(place, "long")
    wish = {"spec": {"abort": "stop it there"}}
    other.client.patch(RUNS, "long", wish, namespace=other.bench.namespace)
    told = place.ended("long", 90)
    assert (told["abortedBy"], "west" in told["aborted"]) == ("user", True)
    assert all(each["open"] == 0 for each in told["clusters"])
    for each in (place, other):
        assert each.bench.agents is not None
        until(lambda each=each: not each.bench.agents.suffering())  # type: ignore[union-attr]


def test_a_cluster_that_is_lost_is_reported_and_found_again(
    place: Place, second: Server, other: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faultline.engine.clusters.LOST", 1.0)
    monkeypatch.setattr("faultline.operator.running.members.TIMEOUT", 1.0)
    told_of(place, second, **everywhere(place))
    place.run("lost", clusters=clusters(place), parameters={"length": "15s"})
    acting(place, "lost")
    with second.stopped():
        until(lambda: any(each.get("lost") for each in place.status("lost")["clusters"]),
              "it is seen that west is lost", 40)  # fmt: skip
    told = place.ended("lost", 120)
    assert {"cluster lost", "cluster found"} <= set(place.events("lost"))
    # An operator that cannot reach its server does not lead, and nobody measures meanwhile.
    assert told["verdict"] in ("held", "not measured"), told["reason"]
    assert all(each["open"] == 0 for each in told["clusters"])


def test_a_secret_that_says_too_much_is_refused(place: Place) -> None:
    told = yaml.safe_dump({
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"exec": {"command": "id"}}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    })  # fmt: skip
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "east"},
            "data": {"kubeconfig": base64.b64encode(told.encode()).decode()}}  # fmt: skip
    place.client.create(SECRETS, made, place.bench.namespace)
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.bench.operate()
    place.run("bad", clusters=[{"name": "east", "secret": {"name": "east"}}])
    assert "has exec" in place.ended("bad")["reason"]
