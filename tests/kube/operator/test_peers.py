"""Two sets of pods: who is on the other side, and that every target is told of it as it changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.kube.operator.conftest import PODS, Bench, until

from faultline.api.targets import AimedFaultSpec
from faultline.engine import wiring
from faultline.engine.ports import FaultOrder
from faultline.errors import InvalidParameter, Refused, TargetGone, Unsupported
from faultline.kubeapi.model import Kind, Object
from faultline.operator import peers, resolving
from faultline.operator.cluster import Cluster, Node, Pod, Service, pod_of, service_of
from faultline.units import Duration

SERVICES = Kind("Service", "services", "v1")


def pod(name: str, address: str, space: str = "shop", **more: Any) -> Pod:
    labels = more.pop("labels", {"app": name.partition("-")[0]})
    return Pod(space, name, f"uid-{name}", "n1", labels=labels,
               fields={"status.podIP": address}, **more)  # fmt: skip


def cluster(*pods: Pod, services: tuple[Service, ...] = (), **more: Any) -> Cluster:
    found = {each.uid: each for each in pods}
    return Cluster(found, {"n1": Node("n1")}, {"n1": True}, services=services, **more)


def spec(fault: str = "network.partition", peer: object = None, **more: Any) -> AimedFaultSpec:
    given: dict[str, Any] = {
        "fault": fault, "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"},
        "peer": peer or {"pods": {"labels": {"app": "db"}}}, **more,
    }  # fmt: skip
    return AimedFaultSpec.model_validate(given)


PODS_THERE = (pod("web-1", "10.0.0.1"), pod("db-1", "10.0.0.2"), pod("db-2", "10.0.0.3"))


def test_peers_are_their_addresses() -> None:
    found = peers.find(spec(), "shop", cluster(*PODS_THERE))
    assert found.addresses == ("10.0.0.2", "10.0.0.3")
    assert found.pods == ("shop/db-1", "shop/db-2")
    assert peers.find(spec(), "other", cluster(*PODS_THERE)).addresses == ()


@pytest.mark.parametrize(
    ("params", "side"),
    [({}, "destination"), ({"direction": "both"}, "destination"), ({"direction": "out"},
     "destination"), ({"direction": "in"}, "source")],
)  # fmt: skip
def test_the_direction_says_which_side_they_are(params: dict[str, str], side: str) -> None:
    asked = spec(params=params)
    found = peers.find(asked, "shop", cluster(*PODS_THERE))
    assert peers.params(asked, found) == {**params, side: ["10.0.0.2", "10.0.0.3"]}


def test_without_any_it_is_nobody_and_never_everybody() -> None:
    asked = spec()
    assert peers.params(asked, peers.find(asked, "shop", cluster())) == {
        "destination": [peers.NOBODY]
    }
    with pytest.raises(TargetGone, match="no peers"):
        peers.begun(asked, "shop", cluster(pod("web-1", "10.0.0.1")))


def test_services_that_lead_to_them_alone_are_among_them() -> None:
    db = Service("shop", "db", {"app": "db"}, ("10.96.0.9",))
    both = Service("shop", "all", {"tier": "x"}, ("10.96.0.10",))
    there = (
        pod("web-1", "10.0.0.1", labels={"app": "web", "tier": "x"}),
        pod("db-1", "10.0.0.2", labels={"app": "db", "tier": "x"}),
        pod("db-2", "10.0.0.3", labels={"app": "db"}),
    )
    others = Service("other", "db", {"app": "db"}, ("10.96.0.11",))
    open_ = Service("shop", "none", {}, ("10.96.0.12",))
    found = peers.find(spec(), "shop", cluster(*there, services=(db, both, others, open_)))
    assert found.addresses == ("10.0.0.2", "10.0.0.3", "10.96.0.9")
    assert (found.services, found.partly) == (("shop/db",), ("shop/all",))
    assert "not through shop/all" in found.text
    one = spec(peer={"pods": {"name": "db-1"}})
    found = peers.find(one, "shop", cluster(*there, services=(db,)))
    assert (found.addresses, found.partly) == (("10.0.0.2",), ("shop/db",))


def test_what_is_protected_is_none_of_them() -> None:
    there = (
        pod("db-1", "10.0.0.2", annotations={"faultline.dev/protect": "true"}),
        pod("db-2", "10.0.0.3", host_network=True),
        pod("db-3", "10.0.0.4", deleting=True),
        pod("db-4", ""),
        pod("db-5", "10.0.0.5"),
    )
    asked = spec(peer={"pods": {"labels": {"app": "db"}}, "exclude": ["db-5"]})
    found = peers.find(asked, "shop", cluster(*there))
    assert found.addresses == ("10.0.0.4",), "what is ending goes on talking"
    assert set(found.spared) == {"pod shop/db-1", "pod shop/db-2", "pod shop/db-5"}
    allowed = spec(allow=["host-network"])
    assert "10.0.0.3" in peers.find(allowed, "shop", cluster(*there)).addresses


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fault": "cpu.burn", "params": {"percent": "10%"}}, "takes addresses"),
        ({"fault": "network.down", "params": {"interface": "eth0"}}, "takes addresses"),
        ({"fault": "workload.scale", "params": {"replicas": 1}}, "takes addresses"),
        ({"params": {"destination": ["10.0.0.9"]}}, "the peer says it"),
        ({"params": {"look": "denied"}}, "another look"),
    ],
)
def test_where_they_mean_nothing_it_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        peers.begun(spec(**given), "shop", cluster(*PODS_THERE))
    peers.check(spec(params={"source": ["10.0.0.9"], "direction": "out"}))


def test_too_many_are_refused() -> None:
    many = [pod(f"db-{n}", f"10.0.{n // 250}.{n % 250}") for n in range(peers.MOST + 1)]
    with pytest.raises(Refused, match="more than"):
        peers.find(spec(), "shop", cluster(*many))
    assert peers.later(spec(), "shop", cluster(*many)) is None


def test_what_must_be_read() -> None:
    assert peers.needs(spec(), "shop") == {"services:shop"}
    asked = spec(peer={"pods": {"namespaces": ["a", "b"], "owner": {"kind": "Deployment"}}})
    assert peers.needs(asked, "shop") == {"services:a", "services:b", "owners"}
    assert "services:" in peers.needs(spec(peer={"pods": {"namespaces": ["team-*"]}}), "shop")


def test_addresses_of_objects() -> None:
    meta = {"namespace": "a", "name": "b", "uid": "c"}
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    assert pod_of({"metadata": meta, "status": status}).addresses == ("10.0.0.1", "fd00::1")
    assert pod_of({"metadata": meta, "status": {"podIP": "10.0.0.1"}}).addresses == ("10.0.0.1",)
    assert pod_of({"metadata": meta}).addresses == ()
    headless: Object = {"metadata": meta, "spec": {"clusterIP": "None", "selector": {"x": "y"}}}
    assert service_of(headless).addresses == ()
    dual = {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::2"]}
    assert service_of({"metadata": meta, "spec": dual}).addresses == ("10.96.0.1", "fd00::2")


# ---------------------------------------------------------------------------- an operator


def addressed(bench: Bench, name: str, address: str, **labels: str) -> Object:
    made = bench.pod(name, bench.node(0), **labels)
    made["status"] |= {"podIP": address, "podIPs": [{"ip": address}]}
    return bench.client.replace(PODS, made, "status")


def destinations(bench: Bench) -> list[Mapping[str, Any]]:
    return [each["params"].get("destination") for each in bench.desired()]


@pytest.mark.needs_apiserver
def test_targets_are_told_of_peers_that_come_and_go(bench: Bench) -> None:
    addressed(bench, "db-1", "10.9.0.1", app="db")
    service = {"metadata": {"name": "db"}, "spec": {"selector": {"app": "db"},
               "ports": [{"port": 80}]}}  # fmt: skip
    address = bench.client.create(SERVICES, service, bench.namespace)["spec"]["clusterIP"]
    bench.operate()
    bench.apply("cut", fault="network.partition", params={},
                peer={"pods": {"labels": {"app": "db"}}})  # fmt: skip
    told = bench.phase("cut", "active")
    assert (told["counts"]["targets"], told["peers"]) == (6, 1)
    assert destinations(bench) == [sorted(["10.9.0.1", address])] * 6
    addressed(bench, "db-2", "10.9.0.2", app="db")
    until(lambda: destinations(bench) == [sorted(["10.9.0.1", "10.9.0.2", address])] * 6)
    for name in ("db-1", "db-2"):
        bench.client.delete(PODS, name, bench.namespace, grace=0)
    until(lambda: destinations(bench) == [[peers.NOBODY]] * 6, "nobody, and not everybody")
    until(lambda: bench.status("cut").get("peers", 0) == 0)
    assert bench.status("cut")["phase"] == "active"


@pytest.mark.needs_apiserver
def test_without_peers_nothing_is_asked_of_anybody(bench: Bench) -> None:
    bench.operate()
    bench.apply("cut", fault="network.partition", params={},
                peer={"pods": {"labels": {"app": "nobody"}}})  # fmt: skip
    told = bench.phase("cut", "refused")
    assert "there are no peers" in told["message"]
    assert bench.desired() == []


def test_what_acts_on_machines_does_not_flap() -> None:
    flapping = spec(peer={"pods": {}}, flap={"present": "5s", "absent": "5s"})
    with pytest.raises(InvalidParameter, match="acts on machines"):
        resolving.resolve(flapping, "shop", "seed", cluster(*PODS_THERE))


@pytest.mark.parametrize("given", [{"peer": {"pods": {}}}, {"flap": {"present": "1s"}}])
def test_on_one_host_they_are_refused_and_not_passed_over(given: dict[str, Any]) -> None:
    """Without its peer a partition would be one from everybody."""
    order = FaultOrder("network.partition", {}, Duration.parse("1s"), "uid", **given)
    with pytest.raises(Unsupported, match="only a cluster knows"):
        wiring._order(order)
