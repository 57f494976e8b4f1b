"""Every fault of objects, asked for as a Fault: made, told, and taken back by the operator."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from tests.kube.objects import crds
from tests.kube.objects.targets import essence, make
from tests.kube.objects.test_conformance import ALLOWED, CASES, LASTS, OTHER_KINDS
from tests.kube.operator.conftest import FAULTS, HOSTS, SPACES, Bench, until
from tests.kube.operator.test_objects import bench

from faultline.kube import rbac
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import carrying
from faultline.kubefaults.change import present
from faultline.kubefaults.notes import OWNER
from faultline.kubefaults.registry import faults
from faultline.operator.hosts import OBJECTS

pytestmark = pytest.mark.needs_apiserver
__all__ = ["bench"]

LOADS: list[tuple[str, dict[str, Any], str]] = [
    ("namespace.clutter", {"count": 5}, "Namespace"),
    ("namespace.pending", {"count": 3}, "Namespace"),
    ("namespace.jobs", {"count": 3}, "Namespace"),
    ("namespace.watches", {"count": 3}, "Namespace"),
    ("namespace.lists", {"rate": 5}, "Namespace"),
    ("namespace.events", {"rate": 5}, "Namespace"),
]


def selector(target: Object) -> Object:
    meta = metadata(target)
    kind = target["kind"]
    if kind == "Node":
        return {"nodes": {"names": [meta["name"]]}}
    if kind == "Pod":
        phases = ["Pending", "Running", "Unknown"]
        return {"pods": {"names": [f"{meta['namespace']}/{meta['name']}"], "phases": phases}}
    path = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
    asked = {"kind": kind, "apiVersion": target["apiVersion"], "names": [path]}
    return {"objects": {**asked, "namespaces": ["*"]}}


def now(bench: Bench, target: Object) -> Object | None:
    meta = metadata(target)
    kind = bench.client.exact(target["kind"], target["apiVersion"])
    try:
        return bench.client.get(kind, meta["name"], meta.get("namespace") or "")
    except ApiError as error:
        if error.reason != "NotFound":
            raise
        return None


@contextmanager
def restricted(bench: Bench) -> Generator[None]:
    """Operators have the rights that they are given when they are deployed, and no others."""
    families = {name.partition(".")[0] for name in faults()}
    rules = [*rbac.OPERATOR, *rbac.OPERATOR_AT_HOME, *rbac.objects(families)]
    name, group = f"objects-{bench.mark}", "rbac.authorization.k8s.io"
    made = rbac.role(name, rules, {})
    binding = {
        **made, "kind": "ClusterRoleBinding",
        "subjects": [{"apiGroup": group, "kind": "User", "name": "nobody"}],
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
    }  # fmt: skip
    del binding["rules"]
    both = (("clusterroles", made), ("clusterrolebindings", binding))
    for plural, each in both:
        path = f"/apis/{group}/v1/{plural}"
        bench.client.rest.request("POST", path, None, each).json()
    bench.access = bench.server.access("nobody-token")
    try:
        yield
    finally:
        bench.end_operators()
        for plural, _ in both:
            bench.client.rest.request("DELETE", f"/apis/{group}/v1/{plural}/{name}")


@pytest.mark.slow
def test_all_of_them_at_once_are_made_and_taken_back(bench: Bench) -> None:
    crds.install(bench.client, *OTHER_KINDS)
    cases: dict[str, tuple[str, Object]] = {}
    given = [cast("tuple[str, dict[str, Any], str]", each.values) for each in CASES]
    for number, (name, params, kind) in enumerate([*given, *LOADS]):
        space = f"c{number}-{bench.mark}"
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}
        bench.client.create(SPACES, made)
        target = make(bench.client, kind, space)
        fault = f"{number}-{name.replace('.', '-')}"
        cases[fault] = (name, target)
        bench.apply(fault, fault=name, params=params, selector=selector(target),
                    allow=sorted({*ALLOWED, "kube-system"}), duration="5m")  # fmt: skip
    with restricted(bench):
        _through(bench, cases)


def _through(bench: Bench, cases: dict[str, tuple[str, Object]]) -> None:
    """All of them, from the beginning to the end."""
    bench.operate()
    told = {each: _begun(bench, each) for each in cases}
    assert {each: why for each, why in told.items() if why} == {}
    assert _made(bench) >= len(cases) - len(LASTS)
    for fault in cases:
        bench.client.delete(FAULTS, fault, bench.namespace)
    until(lambda: not any(bench.get(each) for each in cases), "all are undone", patience=60)
    for fault, (name, target) in cases.items():
        there = now(bench, target)
        if name in ("pod.delete", "pod.evict"):
            assert there is None or metadata(there).get("deletionTimestamp"), fault
        elif name == "object.delete":
            assert there is not None, fault
            assert there["data"] == target["data"], fault
        else:
            assert there is not None, fault
            assert essence(there) == essence(target), fault
    left = [
        each
        for kind in ("ConfigMap", "Pod", "Job", "NetworkPolicy", "ResourceQuota", "LimitRange")
        for each in bench.client.every(bench.client.kind(kind), labels=OWNER)
        if metadata(each)["namespace"].endswith(bench.mark)
    ]
    assert left == []


def _made(bench: Bench) -> int:
    """How many entries there are of which everything that the record says is there."""
    host = bench.client.get(HOSTS, OBJECTS)
    made = 0
    for each in host["status"]["actual"]:
        assert "forbidden" not in str(each)
        changes = carrying.unpacked(each.get("record") or "")
        kept = [one for one in changes if one.do in ("patch", "create", "many")]
        assert all(present(bench.client, one, each["uid"]) for one in kept), each
        made += bool(changes)
    return made


def _begun(bench: Bench, fault: str) -> str:
    """Why it is not there; empty if it is."""

    def over() -> Object:
        told = bench.status(fault)
        counts: Object = told.get("counts") or {}
        return told if counts.get("injected") or told.get("phase") == "refused" else {}

    told = until(over, f"{fault} has begun", patience=60)
    return "" if told["phase"] != "refused" else str(told["message"])
