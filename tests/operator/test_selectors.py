"""Selectors in a cluster: who fits, who is spared, how they are spread, what plug-ins find."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from faultline.api.selector import Selector
from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError, TargetGone, UsageError
from faultline.operator import resolving
from faultline.operator.cluster import Cluster, Node, Owner, Pod, Running, node_of, pod_of
from faultline.operator.resolving import Resolution
from faultline.testing.sampling import examples

RS = Owner("ReplicaSet", "web-5d", "rs-1")
DEPLOYMENT = Owner("Deployment", "web", "d-1")


def pod(name: str, node: str = "a1", **fields: Any) -> Pod:
    made = Pod("shop", name, f"uid-{name}", node, labels={"app": name.split("-", maxsplit=1)[0]},
               containers=(Running("main", f"c-{name}"),))  # fmt: skip
    return replace(made, **fields)


def cluster(*pods: Pod, **fields: Any) -> Cluster:
    zones = {"a1": "a", "a2": "a", "b1": "b"}
    nodes = {
        name: Node(name, labels={"topology.kubernetes.io/zone": zone, "disk": "ssd"[: len(name)]})
        for name, zone in zones.items()
    }
    made = Cluster({each.uid: each for each in pods}, nodes, dict.fromkeys(nodes, True),
                   ours="faultline")  # fmt: skip
    return replace(made, **fields)


def resolved(
    here: Cluster, fault: str = "cpu.burn", allow: Any = (), **selector: Any
) -> Resolution:
    chosen = {"mode": "all", **selector}
    spec = AimedFaultSpec.model_validate(
        {"fault": fault, "allow": [*allow], "selector": chosen}
    )  # fmt: skip
    return resolving.resolve(spec, "shop", "seed", here)


def hit(here: Cluster, fault: str = "cpu.burn", allow: Any = (), **selector: Any) -> list[str]:
    return sorted(each.key for each in resolved(here, fault, allow, **selector).chosen)


SHOP = cluster(
    pod("web-1", owner=RS, annotations={"team": "a"}),
    pod("web-2", "b1", owner=RS, labels={"app": "web", "tier": "front"}),
    pod("db-1", "a2", fields={"spec.restartPolicy": "Always", "status.podIP": "10.0.0.7"}),
    pod("job-1", phase="Succeeded", containers=()),
    pod("other", namespace="bank"),
    owners={"rs-1": DEPLOYMENT},
    endpoints={"shop/web": frozenset({"uid-web-2", "uid-of-none"})},
)


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({}, "db-1 web-1 web-2"),
        ({"namespaces": ["b*"]}, "other"),
        ({"namespaces": ["*"]}, "db-1 other web-1 web-2"),
        ({"name": "web-*"}, "web-1 web-2"),
        ({"names": ["web-1", "shop/db-*"]}, "db-1 web-1"),
        ({"names": ["bank/other"]}, "other"),
        ({"labels": {"app": "web"}}, "web-1 web-2"),
        ({"expressions": [{"key": "app", "operator": "In", "values": ["db", "x"]}]}, "db-1"),
        ({"expressions": [{"key": "app", "operator": "NotIn", "values": ["db"]}]}, "web-1 web-2"),
        ({"expressions": [{"key": "tier", "operator": "Exists"}]}, "web-2"),
        ({"expressions": [{"key": "tier", "operator": "DoesNotExist"}]}, "db-1 web-1"),
        ({"annotations": {"team": "a"}}, "web-1"),
        ({"fields": {"spec.nodeName": "a1"}}, "web-1"),
        ({"fields": {"spec.nodeName": "!a1"}}, "db-1 web-2"),
        ({"fields": {"spec.restartPolicy": "Always"}}, "db-1"),
        ({"fields": {"status.podIP": "10.0.0.7"}}, "db-1"),
        ({"owner": {"kind": "Deployment", "name": "web"}}, "web-1 web-2"),
        ({"owner": {"kind": "ReplicaSet"}}, "web-1 web-2"),
        ({"owner": {"name": "w*"}}, "web-1 web-2"),
        ({"service": "web"}, "web-2"),
        ({"service": "shop/web"}, "web-2"),
        ({"nodes": ["a*"]}, "db-1 web-1"),
        ({"nodeLabels": {"topology.kubernetes.io/zone": "b"}}, "web-2"),
        ({"labels": {"app": "web"}, "nodes": ["b1"]}, "web-2"),
    ],
)
def test_everything_that_is_given_must_fit(criteria: dict[str, Any], found: str) -> None:
    names = [path.partition("/")[2] for path in hit(SHOP, pods=criteria)]
    assert sorted(names) == sorted(found.split())


def test_what_nothing_fits_says_what_was_spared() -> None:
    with pytest.raises(TargetGone, match="none of the pods fits") as empty:
        resolved(cluster(pod("web-1", deleting=True)), pods={})
    assert "web-1: it is being deleted" in empty.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"pods": {"fields": {"spec.secret": "x"}}},
        {"pods": {"expressions": [{"key": "a", "operator": "In"}]}},
        {"pods": {"owner": {}}},
        {"pods": {}, "nodes": {}},
        {"pods": {"phases": ["Sleeping"]}},
    ],
)
def test_a_selector_that_means_nothing_is_no_document(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Selector.model_validate(wrong)


# ---------------------------------------------------------------------- what is spared


@pytest.mark.parametrize(
    ("fields", "allow", "why"),
    [
        ({"namespace": "faultline"}, "faultline", "part of Faultline"),
        ({"labels": {"app.kubernetes.io/part-of": "faultline"}}, "faultline", "part of Faultline"),
        ({"annotations": {"faultline.dev/protect": "true"}}, "protect", "annotated"),
        ({"deleting": True}, "deleting", "being deleted"),
        ({"node": ""}, "node", "on no node"),
        ({"node": "c9"}, "agent", "no agent on c9"),
        ({"containers": (), "waiting": "CrashLoopBackOff"}, "crash", "CrashLoopBackOff"),
    ],
)
def test_what_is_never_hit_whatever_is_allowed(
    fields: dict[str, Any], allow: str, why: str
) -> None:
    here = cluster(pod("web-1", **fields), pod("web-2"))
    found = resolved(here, "cpu.burn", [allow, "kube-system"], pods={"namespaces": ["*"]})
    assert [each.key for each in found.chosen] == ["shop/web-2"]
    assert why in next(iter(found.spared.values()))


@pytest.mark.parametrize(
    ("fields", "fault", "guard"),
    [
        ({"namespace": "kube-system"}, "cpu.burn", "kube-system"),
        ({"namespace": "kube-system", "labels": {"tier": "control-plane"}}, "cpu.burn",
         "control-plane"),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, "cpu.burn", "static-pods"),
        ({"host_network": True}, "network.delay", "host-network"),
    ],
)  # fmt: skip
def test_what_is_hit_only_when_its_guard_is_named(
    fields: dict[str, Any], fault: str, guard: str
) -> None:
    here, everywhere = cluster(pod("web-1", **fields), pod("web-2")), {"namespaces": ["*"]}
    assert len(hit(here, fault, pods=everywhere)) == 1
    assert guard in next(iter(resolved(here, fault, pods=everywhere).spared.values()))
    assert len(hit(here, fault, [guard], pods=everywhere)) == 2


def test_a_namespace_and_a_node_protect_what_is_in_them() -> None:
    here = cluster(pod("web-1"), pod("x", namespace="bank"), pod("web-2", "b1"),
                   protected=frozenset({"bank"}))  # fmt: skip
    nodes = {**here.nodes, "b1": replace(here.nodes["b1"], protected=True)}
    here = replace(here, nodes=nodes)
    assert hit(here, pods={"namespaces": ["*"]}) == ["shop/web-1"]
    assert hit(here, nodes={}) == ["a1", "a2"]


def test_a_network_of_the_host_matters_only_to_faults_of_the_network() -> None:
    here = cluster(pod("web-1", host_network=True))
    assert hit(here, "cpu.burn", pods={}) == ["shop/web-1"]


def test_hosts_whose_agents_do_not_answer_are_spared() -> None:
    here = cluster(pod("web-1"), pod("web-2", "b1"), agents={"a1": True, "b1": False})
    assert hit(here, pods={}) == ["shop/web-1"]
    assert hit(here, nodes={}) == ["a1"]


def test_nodes_of_the_control_plane_need_their_guard() -> None:
    here = cluster()
    master = Node("a1", labels={"node-role.kubernetes.io/master": ""})
    here = replace(here, nodes={**here.nodes, "a1": master})
    assert hit(here, nodes={}) == ["a2", "b1"]
    assert hit(here, "cpu.burn", ["control-plane"], nodes={}) == ["a1", "a2", "b1"]


# ---------------------------------------------------------------------- what of it is hit


def test_each_container_is_a_target_and_of_a_network_that_they_share_one() -> None:
    both = (Running("main", "c1"), Running("proxy", "c2"))
    here = cluster(pod("web-1", containers=both))
    aims = resolved(here, "cpu.burn", pods={}).aims
    assert [each.pod.container for each in aims if each.pod] == ["main", "proxy"]
    assert len({each.uid("f" * 8) for each in aims}) == 2
    (whole,) = resolved(here, "network.delay", pods={}).aims
    assert whole.pod is not None
    assert (whole.pod.container, whole.words) == ("", "pod shop/web-1")
    (first,) = resolved(here, "dns.wrong", pods={}).aims
    assert first.pod is not None
    assert first.pod.container == "main"
    (one,) = resolved(here, "cpu.burn", pods={"container": "pro*"}).aims
    assert one.pod is not None
    assert (one.pod.container, one.pod.container_id, one.words) == (
        "proxy", "c2", "pod shop/web-1/proxy")  # fmt: skip
    with pytest.raises(TargetGone, match="fits"):
        resolved(here, pods={"container": "init"})


def test_a_static_pod_has_the_identity_that_its_node_knows() -> None:
    notes = {"kubernetes.io/config.mirror": "h"}
    (aim,) = resolved(
        cluster(pod("s", annotations=notes)), "cpu.burn", ["static-pods"], pods={}
    ).aims
    assert aim.pod is not None
    assert aim.pod.uid == "h"


def test_nodes_may_be_hit_whole_or_in_something_that_runs_there() -> None:
    spec = AimedFaultSpec.model_validate({
        "fault": "process.stop", "target": {"process": "kubelet"},
        "selector": {"nodes": {"names": ["a*"]}, "mode": "all"},
    })  # fmt: skip
    found = resolving.resolve(spec, "shop", "seed", cluster())
    assert {(each.host, each.target.process) for each in found.aims} == {
        ("a1", "kubelet"), ("a2", "kubelet")}  # fmt: skip
    with pytest.raises(ValidationError, match="at most one of target and selector"):
        AimedFaultSpec.model_validate(
            {"fault": "cpu.burn", "target": {"pid": 1}, "selector": {"pods": {}}}
        )


def test_a_target_that_names_a_pod_needs_no_selector() -> None:
    spec = AimedFaultSpec.model_validate({"fault": "cpu.burn", "target": {"pod": "shop/web-2"}})
    assert [each.host for each in resolving.resolve(spec, "x", "s", SHOP).aims] == ["b1"]
    for target in ({}, {"container": "x"}):
        spec = AimedFaultSpec.model_validate({"fault": "cpu.burn", "target": target})
        with pytest.raises(UsageError, match="which pods or nodes"):
            resolving.resolve(spec, "x", "s", SHOP)


MANY = cluster(*(
    pod(f"web-{node}-{n}", node, owner=Owner("ReplicaSet", f"o{n % 3}", f"o{n % 3}"))
    for node, count in (("a1", 20), ("a2", 8), ("b1", 3)) for n in range(count)
))  # fmt: skip


@pytest.mark.parametrize(
    ("spread", "group"),
    [("zones", lambda p: MANY.zone(p.node)), ("nodes", lambda p: p.node),
     ("owners", lambda p: p.owner.name)],
)  # fmt: skip
def test_spread_takes_as_evenly_as_it_can(spread: str, group: Any) -> None:
    by_path = {each.path: each for each in MANY.pods.values()}
    for count in (1, 3, 4, 6):
        keys = hit(MANY, pods={}, mode="fixed", count=count, spread=spread)
        sizes = Counter(group(by_path[key]) for key in keys).values()
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == min(count, 2 if spread == "zones" else 3)


@settings(max_examples=examples(50, 500), deadline=None)
@given(st.sets(st.integers(0, 60), min_size=4, max_size=40), st.integers(0, 9))
def test_who_comes_or_goes_moves_nobody_else(numbers: set[int], seed: int) -> None:
    def chosen(of: set[int]) -> set[str]:
        here = cluster(*(pod(f"web-{n}") for n in of))
        return set(hit(here, pods={}, mode="fixed", count=3, seed=str(seed)))

    whole = chosen(numbers)
    for gone in [n for n in numbers if f"shop/web-{n}" not in whole][:3]:
        assert chosen(numbers - {gone}) == whole


# ---------------------------------------------------------------------- plug-ins


def by_plugin(here: Cluster, name: str, **params: Any) -> Resolution:
    return resolved(here, plugin={"name": name, "params": params})


def test_the_leader_is_who_holds_the_lease() -> None:
    here = replace(SHOP, leases={"shop/web": "web-2_a3f2"})
    found = by_plugin(here, "leader", lease="web")
    assert [each.key for each in found.chosen] == ["shop/web-2"]
    assert [each.key for each in found.rest] == ["shop/web-1"]
    with pytest.raises(TargetGone, match="nobody"):
        by_plugin(replace(here, leases={"shop/web": ""}), "leader", lease="shop/web")


def test_the_oldest_the_zone_and_the_node_of_another_one() -> None:
    here = cluster(pod("web-1", created=5.0), pod("web-2", "a2", created=3.0),
                   pod("web-3", "b1", created=1.0), pod("db-1", "a1", created=0.0))  # fmt: skip
    web = {"labels": {"app": "web"}}
    found = by_plugin(here, "oldest", pods=web)
    assert [each.key for each in found.chosen] == ["shop/web-3"]
    assert len(found.rest) == 2
    zone = by_plugin(here, "same-zone", of="db-1", pods=web)
    assert sorted(each.key for each in zone.chosen) == ["shop/web-1", "shop/web-2"]
    node = by_plugin(here, "on-node-of", of="shop/db-1", pods=web)
    assert [each.key for each in node.chosen] == ["shop/web-1"]
    with pytest.raises(TargetGone, match="no pod shop/nobody"):
        by_plugin(here, "on-node-of", of="nobody", pods=web)


@pytest.mark.parametrize(
    ("name", "params"), [("leader", {}), ("oldest", {"pod": {}}), ("same-zone", {"of": "A b"}),
                         ("unknown", {})],
)  # fmt: skip
def test_a_plugin_says_what_it_does_not_take(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(FaultlineError):
        by_plugin(SHOP, name, **params)


def test_what_must_be_read_follows_from_the_selector() -> None:
    def needs(**fields: Any) -> set[str]:
        return set(resolving.needs(Selector.model_validate(fields), "shop"))

    assert needs(pods={}) == set()
    assert needs(pods={"owner": {"kind": "Job"}}) == {"owners"}
    assert needs(pods={"service": "web"}) == {"endpoints:shop/web"}
    assert needs(plugin={"name": "leader", "params": {"lease": "bank/l"}}) == {"lease:bank/l"}
    nested = {"pods": {"service": "bank/web", "owner": {"name": "x"}}}
    assert needs(plugin={"name": "oldest", "params": nested}) == {"owners", "endpoints:bank/web"}


# ---------------------------------------------------------------------- objects


def test_pods_and_nodes_are_read_as_the_server_has_them() -> None:
    made = pod_of({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"},
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": None,
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 9000},
            "ownerReferences": [
                {"kind": "Node", "name": "n", "uid": "n", "apiVersion": "v1"},
                {"kind": "ReplicaSet", "name": "web-5d", "uid": "rs", "controller": True},
            ],
        },
        "spec": {
            "nodeName": "n1", "hostNetwork": True, "restartPolicy": "Always",
            "initContainers": [{"name": "init"}],
            "containers": [{"name": "main"}, {"name": "crash"}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "initContainerStatuses": [{"name": "init", "state": {"running": {}}}],
            "containerStatuses": [
                {"name": "crash", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                {"name": "main", "containerID": "containerd://abc", "state": {"running": {}}},
            ],
        },
    })  # fmt: skip
    assert made.containers == (Running("main", "abc"),)
    assert made.owner == Owner("ReplicaSet", "web-5d", "rs")
    assert (made.host_network, made.waiting, made.deleting) == (True, "CrashLoopBackOff", False)
    assert made.field("spec.restartPolicy") == "Always"
    assert made.created == 1767323045.0
    assert not made.annotations
    node = node_of({"metadata": {"name": "n", "uid": "u", "annotations": {
        "faultline.dev/protect": "true"}}})  # fmt: skip
    assert node.protected
