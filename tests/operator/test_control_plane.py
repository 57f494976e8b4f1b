"""The control plane as targets: where its replicas are, what is left of it, what cannot be undone
from afar.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from faultline.api.host import PodTarget
from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidParameter, Protected, TargetGone, Unsupported
from faultline.injection.choosing import choose
from faultline.operator import control_plane, resolving
from faultline.operator.cluster import Cluster, Node, Pod, Running, Serving
from faultline.operator.resolving import Resolution

ALLOW = ["control-plane"]
STATIC = {"kubernetes.io/config.mirror": "hash"}


def pod(component: str, node: str, label: str = "component", **fields: Any) -> Pod:
    name = f"{component}-{node}"
    made: dict[str, Any] = {
        "labels": {label: component, "tier": "control-plane"}, "annotations": STATIC,
        "containers": (Running(component, f"c-{name}"),), "host_network": True,
        "fields": {"status.podIP": f"10.0.0.{node[1:]}"}, **fields,
    }  # fmt: skip
    return Pod("kube-system", name, f"uid-{name}", node, **made)


def cluster(*pods: Pod, nodes: int = 3, serving: int = 0, **fields: Any) -> Cluster:
    names = [f"n{n}" for n in range(1, nodes + 1)]
    return Cluster(
        {each.uid: each for each in pods},
        {name: Node(name, addresses=(f"10.0.0.{name[1:]}",)) for name in names},
        dict.fromkeys(names, True), ours="faultline",
        serving={control_plane.API: Serving(
            frozenset(f"10.0.0.{n}" for n in range(1, serving + 1)), (6443,)
        )} if serving else {},
        **fields,
    )  # fmt: skip


def resolved(
    here: Cluster, component: str, *allow: str, fault: str = "process.stop", mode: str = "one",
    **asked: Any,
) -> Resolution:  # fmt: skip
    spec = of(component, *allow, fault=fault, mode=mode, **asked)
    return resolving.resolve(spec, "shop", "seed", here)


def of(
    component: str, *allow: str, fault: str = "process.stop", mode: str = "one", **asked: Any
) -> AimedFaultSpec:
    return AimedFaultSpec.model_validate({
        "fault": fault, "allow": [*(allow or ALLOW)],
        "selector": {"controlPlane": {"component": component, **asked}, "mode": mode},
    })  # fmt: skip


THREE = cluster(*(pod("kube-apiserver", f"n{n}") for n in (1, 2, 3)),
                *(pod("etcd", f"n{n}") for n in (1, 2, 3)), serving=3)  # fmt: skip
PLAIN = cluster(
    components={"n1": frozenset({"etcd", "kube-apiserver", "kubelet"}),
                "n2": frozenset({"kubelet"})},
)  # fmt: skip


def test_static_pods_are_found_by_their_labels() -> None:
    found = resolved(THREE, "kube-apiserver", nodes=["n2"])
    (aim,) = found.aims
    assert aim.host == "n2"
    assert aim.pod is not None
    assert (aim.pod.name, aim.pod.container) == ("kube-apiserver-n2", "kube-apiserver")
    assert aim.pod.uid == "hash", "as its node knows it"
    assert "kube-apiserver" in aim.allow, "the guard of its node is overridden with its name"


def test_processes_are_found_where_agents_see_them() -> None:
    (aim,) = resolved(PLAIN, "kubelet", nodes=["n1"]).aims
    assert aim.pod is None
    assert re.search(aim.target.process, "/usr/bin/kubelet --config=x")
    assert not re.search(aim.target.process, "/usr/bin/vim /etc/kubelet")
    (aim,) = resolved(PLAIN, "etcd", *ALLOW, "single-replica", process="data-dir=/var").aims
    assert aim.target.process == "data-dir=/var"
    both = cluster(pod("etcd", "n1"), components={"n1": frozenset({"etcd"})}, nodes=1)
    assert control_plane.count("etcd", both) == 1, "the process of a pod is no second one"


def test_dns_is_a_deployment_and_proxies_a_daemon_set() -> None:
    own = {"host_network": False, "annotations": {}}
    here = cluster(pod("kube-dns", "n1", "k8s-app", **own), pod("kube-dns", "n2", "k8s-app", **own),
                   *(pod("kube-proxy", node, "k8s-app") for node in ("n1", "n2")))  # fmt: skip
    (aim,) = resolved(here, "cluster-dns", fault="network.delay").aims
    assert aim.pod is not None
    assert aim.pod.container == "", "of the network of a pod the whole pod is meant"
    (aim,) = resolved(here, "kube-proxy", fault="network.delay").aims
    assert aim.pod is not None
    assert aim.pod.container == "kube-proxy", "the network of the node is not meant"


def test_nothing_of_it_is_hit_unless_that_is_allowed() -> None:
    with pytest.raises(TargetGone) as told:
        resolved(THREE, "etcd", "kube-system")
    assert "allow: [control-plane]" in told.value.hint


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd"])
def test_the_only_one_needs_a_permission_of_its_own(component: str) -> None:
    with pytest.raises(Protected, match="none would be left"):
        resolved(PLAIN, component)
    assert resolved(PLAIN, component, *ALLOW, "single-replica").aims
    with pytest.raises(Protected, match="3 replicas: none would be left"):
        resolved(THREE, component, mode="all")


def test_replicas_that_nobody_sees_count() -> None:
    managed = cluster(pod("kube-apiserver", "n1"), serving=2)
    assert resolved(managed, "kube-apiserver").aims
    led = cluster(pod("kube-scheduler", "n1"), leases={"kube-system/kube-scheduler": "n9_uuid"})
    assert resolved(led, "kube-scheduler").aims
    own = cluster(pod("kube-scheduler", "n1"), leases={"kube-system/kube-scheduler": "n1_uuid"})
    with pytest.raises(Protected):
        resolved(own, "kube-scheduler")


def test_a_majority_of_etcd_is_left() -> None:
    here = cluster(*(pod("etcd", f"n{n}") for n in range(1, 6)), nodes=5)
    two = {"mode": "all", "nodes": ["n1", "n2"]}
    assert len(resolved(here, "etcd", **two).aims) == 2
    with pytest.raises(Protected, match="no majority"):
        resolved(here, "etcd", mode="all", nodes=["n1", "n2", "n3"])
    assert resolved(here, "etcd", *ALLOW, "quorum", mode="all", nodes=["n1", "n2", "n3"]).aims


def test_cut_from_one_another() -> None:
    aims = resolved(THREE, "kube-apiserver", fault="network.partition", cutFrom="etcd",
                    nodes=["n1"]).aims  # fmt: skip
    assert [dict(each.params) for each in aims] == [
        {"destination_port": ["2379"], "interface": "lo"},
        {"destination_port": ["2379"], "destination": ["10.0.0.2", "10.0.0.3"]},
    ]
    assert len({each.uid("f") for each in aims}) == 2
    (aim,) = resolved(PLAIN, "kubelet", fault="network.partition", cutFrom="kube-apiserver",
                      nodes=["n2"]).aims  # fmt: skip
    assert aim.params == {"destination_port": ["6443"], "destination": ["10.0.0.1"]}
    served = resolved(THREE, "etcd", fault="network.loss", cutFrom="kube-apiserver", nodes=["n1"])
    assert served.aims[0].params["source_port"] == ["2379"]
    with pytest.raises(InvalidParameter, match="fault of the network"):
        resolved(THREE, "etcd", cutFrom="kube-apiserver")
    with pytest.raises(TargetGone) as told:
        resolved(PLAIN, "kubelet", fault="network.partition", cutFrom="cluster-dns")
    assert "no cluster-dns runs" in told.value.hint


@pytest.mark.parametrize(
    ("spec", "survives"),
    [
        (of("kube-apiserver"), True),
        (of("etcd", fault="network.delay"), True),
        (of("kube-scheduler"), False),
        ({"fault": "process.stop", "params": {"process": "etcd"}}, True),
        ({"fault": "process.stop", "params": {"pattern": "kube-api"}}, True),
        ({"fault": "process.stop", "params": {"process": "web"}}, False),
        ({"fault": "process.stop", "target": {"process": "kube-apiserver"}}, True),
        ({"fault": "network.loss", "params": {"destination": ["10.0.0.1"]}}, True),
        ({"fault": "network.loss", "params": {"destination": ["10.9.9.9"]}}, False),
        ({"fault": "network.loss", "params": {}}, False),
    ],
)
def test_what_hits_the_way_to_the_api_server_ends_by_its_deadline(
    spec: Any, survives: bool
) -> None:
    if isinstance(spec, dict):
        spec = AimedFaultSpec.model_validate({**spec, "selector": {"nodes": {"names": ["n1"]}}})
    assert control_plane.survives(spec, None, THREE) is survives


def test_so_does_a_fault_on_its_pod() -> None:
    spec = AimedFaultSpec.model_validate(
        {"fault": "container.pause", "selector": {"pods": {"namespaces": ["kube-system"]}}}
    )
    for name, survives in (("etcd-n1", True), ("kube-scheduler-n1", False), ("gone", False)):
        target = PodTarget(namespace="kube-system", name=name, uid="u")
        here = cluster(pod("etcd", "n1"), pod("kube-scheduler", "n1"))
        assert control_plane.survives(spec, target, here) is survives


def test_on_one_host_it_is_refused() -> None:
    selector = of("etcd").selector
    assert selector is not None
    with pytest.raises(Unsupported, match=r"selector\.controlPlane"):
        choose("slow", selector, "seed")
