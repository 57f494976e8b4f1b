"""Which objects a fault of objects hits, and which it never does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.operator import resolving, views
from faultline.operator.cluster import Cluster, Node, Owner, Pod, Thing
from faultline.operator.hosts import OBJECTS

WEB = Thing("apps/v1", "Deployment", "shop", "web", "u1", {"app": "web"})
DB = Thing("apps/v1", "Deployment", "shop", "db", "u2", {"app": "db"}, {"note": "x"})
FAR = Thing("apps/v1", "Deployment", "other", "web", "u3", {"app": "web"})
SYSTEM = Thing("apps/v1", "Deployment", "kube-system", "coredns", "u4")
OURS = Thing("apps/v1", "Deployment", "faultline", "operator", "u5")
PART = Thing("apps/v1", "Deployment", "shop", "part", "u6",
             {"app.kubernetes.io/part-of": "faultline"})  # fmt: skip
KEPT = Thing("apps/v1", "Deployment", "shop", "kept", "u7", {}, {"faultline.dev/protect": "true"})
GOING = Thing("apps/v1", "Deployment", "shop", "going", "u8", deleting=True)
ALL = (WEB, DB, FAR, SYSTEM, OURS, PART, KEPT, GOING)


def cluster(*things: Thing, **fields: Any) -> Cluster:
    return Cluster({}, {}, {}, ours="faultline", things=things or ALL, **fields)


def spec(objects: dict[str, Any], fault: str = "workload.scale", **fields: Any) -> AimedFaultSpec:
    more = {name: fields.pop(name) for name in ("mode", "count", "live", "exclude", "spread")
            if name in fields}  # fmt: skip
    selector = {"objects": objects, "mode": "all", **more}
    given = {"fault": fault, "params": {"replicas": 0}, "selector": selector, **fields}
    return AimedFaultSpec.model_validate(given)


def hit(asked: AimedFaultSpec, here: Cluster | None = None) -> set[str]:
    found = resolving.resolve(asked, "shop", "seed", here or cluster())
    assert {aim.host for aim in found.aims} == {OBJECTS}
    return {aim.object.uid for aim in found.aims if aim.object is not None}


@pytest.mark.parametrize(
    ("objects", "uids"),
    [
        ({}, {"u1", "u2"}),
        ({"labels": {"app": "web"}}, {"u1"}),
        ({"annotations": {"note": "x"}}, {"u2"}),
        ({"expressions": [{"key": "app", "operator": "Exists"}]}, {"u1", "u2"}),
        ({"name": "w*"}, {"u1"}),
        ({"names": ["other/web", "shop/db"]}, {"u2", "u3"}),
        ({"namespaces": ["*"], "name": "web"}, {"u1", "u3"}),
        ({"namespaces": ["o*"]}, {"u3"}),
    ],
)
def test_everything_that_is_given_must_fit(objects: dict[str, Any], uids: set[str]) -> None:
    assert hit(spec({"kind": "Deployment", **objects})) == uids


def test_what_is_never_hit_says_why() -> None:
    everything = spec({"kind": "Deployment", "namespaces": ["*"]})
    found = resolving.resolve(everything, "shop", "seed", cluster())
    assert found.spared == {
        "Deployment kube-system/coredns":
            "it is part of the cluster itself: only with allow: [kube-system]",
        "Deployment faultline/operator": "it is part of Faultline",
        "Deployment shop/part": "it is part of Faultline",
        "Deployment shop/kept": "it is annotated as protected",
        "Deployment shop/going": "it is being deleted",
    }  # fmt: skip
    allowed = everything.model_copy(update={"allow": ["kube-system"]})
    assert hit(allowed) == {"u1", "u2", "u3", "u4"}
    held = cluster(protected=frozenset({"shop"}))
    assert hit(everything, held) == {"u3"}
    closed = cluster(closed={"other": "nobody asked for it"})
    assert hit(everything, closed) == {"u1", "u2"}


def test_modes_excluded_names_and_owners_hold_for_objects_too() -> None:
    assert len(hit(spec({"kind": "Deployment"}, mode="one"))) == 1
    assert hit(spec({"kind": "Deployment"}, exclude=["shop/w*"])) == {"u2"}
    with pytest.raises(Refused, match="more than there are"):
        hit(spec({"kind": "Deployment"}, mode="fixed", count=3))
    owned = [replace(WEB, name=f"w{n}", uid=f"w{n}", owner=Owner("App", f"a{n % 2}", f"o{n % 2}"))
             for n in range(8)]  # fmt: skip
    found = hit(spec({"kind": "Deployment"}, mode="fixed", count=4, spread="owners"),
                cluster(*owned))  # fmt: skip
    assert sorted(int(uid[1:]) % 2 for uid in found) == [0, 0, 1, 1]


def test_a_namespace_is_in_itself() -> None:
    spaces = [Thing("v1", "Namespace", "", name, name) for name in ("shop", "other", "faultline")]
    here = cluster(*spaces)
    quota: dict[str, Any] = {"fault": "namespace.quota", "params": {}}
    assert hit(spec({}, **quota), here) == {"shop"}
    assert hit(spec({"name": "o*"}, **quota), here) == {"other"}
    with pytest.raises(TargetGone, match="Namespace"):
        hit(spec({"name": "faultline"}, **quota), here)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (spec({}), "the kind of the objects"),
        (spec({"kind": "Service"}), "that is what workload.scale takes"),
        (spec({"kind": "Pod"}, fault="object.label"), "pods instead"),
        (spec({"kind": "Deployment"}, fault="network.delay"), "acts on machines"),
        (spec({"kind": "Deployment"}, live="top-up"), "freeze"),
        (spec({"kind": "Deployment"}, spread="zones"), "owners"),
    ],
)
def test_what_does_not_fit_together_is_said(asked: AimedFaultSpec, said: str) -> None:
    with pytest.raises(InvalidParameter, match=said):
        hit(asked)


def test_too_many_objects_are_not_one_fault() -> None:
    many = [replace(WEB, name=f"w{n}", uid=f"w{n}") for n in range(resolving.MOST + 1)]
    with pytest.raises(Refused, match=f"more than {resolving.MOST}"):
        hit(spec({"kind": "Deployment"}), cluster(*many))


def test_pods_and_nodes_need_no_agent_for_faults_of_objects() -> None:
    pods = {"p1": Pod("shop", "a", "p1", phase="Pending", labels={"app": "web"}),
            "p2": Pod("shop", "b", "p2", node="n1", waiting="CrashLoopBackOff")}  # fmt: skip
    here = Cluster(pods, {"n1": Node("n1", "node-1")}, {})
    selector = {"pods": {"phases": ["Pending", "Running"]}, "mode": "all"}
    of_pods = AimedFaultSpec.model_validate({"fault": "pod.delete", "selector": selector})
    assert hit(of_pods, here) == {"p1", "p2"}
    of_nodes = AimedFaultSpec.model_validate(
        {"fault": "node.cordon", "selector": {"nodes": {}, "mode": "all"}}
    )
    assert hit(of_nodes, here) == {"node-1"}
    agents = AimedFaultSpec.model_validate({"fault": "process.kill", "selector": selector})
    with pytest.raises(TargetGone):
        resolving.resolve(agents, "shop", "seed", here)


FAULTS = [
    each
    for file in sorted((Path(__file__).parents[2] / "examples" / "kubernetes").glob("*.yaml"))
    for each in yaml.safe_load_all(file.read_text())
    if each["kind"] == "Fault"
]


@pytest.mark.parametrize("example", FAULTS, ids=lambda each: each["metadata"]["name"])
def test_the_examples_are_faults(example: dict[str, Any]) -> None:
    read, problems = views.read(example["spec"])
    assert problems == []
    assert read is not None
    resolving.needs(resolving.selector_of(read), "shop")
