"""Every fault of objects against a real API server: what it plans, makes and takes back.

The server has no controllers here, so what they would do is looked at elsewhere.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.objects import crds
from tests.kube.objects.params import PARAMS, TARGETS
from tests.kube.objects.targets import MADE, essence, make

from faultline.errors import Conflict, FaultlineError, PlanStale, Refused, TargetGone, Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Object, metadata
from faultline.kubeapi.plain import Plain
from faultline.kubefaults import notes
from faultline.kubefaults.change import (
    OWNER,
    Change,
    Outcome,
    apply,
    of_note,
    present,
    undo,
    undo_all,
)
from faultline.kubefaults.fields import Field
from faultline.kubefaults.model import View
from faultline.kubefaults.registry import faults, get

pytestmark = pytest.mark.needs_apiserver

ALLOWED = frozenset({"bare-pod", "lasting", "finalizer", "opens-network"})
OTHER_KINDS = ("CiliumNetworkPolicy", "NetworkPolicy", "Middleware")
LOADS = ("clutter", "pending", "jobs", "watches", "lists", "events")
"""Of namespaces: test_loads.py is about them."""
CASES = [
    pytest.param(name, params, kind, id=f"{name}-{number}-{kind}")
    for name, fault in faults().items()
    if not name.startswith("admission.")  # they need somebody who serves the webhook
    for number, params in enumerate(PARAMS.get(name, [{}]))
    for kind in (TARGETS.get(name) or fault.kinds)
    if kind in (*MADE, "Namespace", "Node", "PersistentVolume")
    if name not in (f"namespace.{each}" for each in LOADS)
]
UID = "0123456789abcdef"
LASTS = ("pod.delete", "pod.evict", "object.delete", "node.drain")


@pytest.fixture(scope="module", autouse=True)
def other_kinds(apiserver: Server) -> None:
    """Those that policies and ingresses of others need."""
    with closing(apiserver.client()) as client:
        crds.install(client, *OTHER_KINDS)


@pytest.fixture
def client(apiserver: Server) -> Iterator[Client]:
    with closing(apiserver.client()) as made:
        yield made


def planned(client: Client, name: str, params: dict[str, Any], target: Object) -> list[Change]:
    fault = get(name)
    view = View(client, UID, random.Random(1), ALLOWED)
    return fault.plan(view, target, fault.params_type().read(params))


def everything(client: Client, changes: list[Change]) -> dict[str, Object | None]:
    """The objects of the changes as they are now, by their words."""
    found: dict[str, Object | None] = {}
    for each in changes:
        found[each.words] = None
        with suppress(ApiError):
            found[each.words] = essence(client.get(each.kind, each.name, each.namespace))
    return found


@pytest.mark.parametrize(("name", "params", "kind"), CASES)
def test_what_is_made_is_taken_back(
    client: Client, namespace: str, name: str, params: dict[str, Any], kind: str
) -> None:
    target = make(client, kind, namespace)
    changes = planned(client, name, params, target)
    assert changes
    before = everything(client, changes)
    assert not any(present(client, each, UID) for each in changes), "planning touched something"
    for each in changes:
        assert Change.from_json(each.to_json()) == each
        apply(client, each, UID)
        if each.do in ("patch", "create"):
            assert apply(client, each, UID), "to make it twice is harmless"
            assert present(client, each, UID)
    made = everything(client, changes)
    assert made != before
    if name in LASTS:
        assert all(done.outcome in (Outcome.NOTHING, Outcome.RECOVERED)
                   for done in undo_all(client, changes, UID))  # fmt: skip
        return
    for done in undo_all(client, changes, UID):
        assert (done.outcome, done.left) == (Outcome.RECOVERED, ())
    assert everything(client, changes) == before
    assert not any(present(client, each, UID) for each in changes)
    for done in undo_all(client, changes, UID):
        assert done.outcome is Outcome.RECOVERED, "to undo twice is harmless"
    assert everything(client, changes) == before


class Dying(Plain):
    """A process that dies before, or right after, its N-th write."""

    def __init__(self, server: Server, writes: int, *, after: bool) -> None:
        super().__init__(server.access())
        self.left, self.after = writes, after

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: str = "application/json",
        timeout: float = 30.0,
    ) -> Answer:
        if method == "GET":
            return super().request(method, path, query, body, content, timeout)
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise SystemExit("killed")
        answer = super().request(method, path, query, body, content, timeout)
        if self.left == 0:
            raise SystemExit("killed")
        return answer


@pytest.mark.parametrize(
    ("name", "params", "kind"),
    [case for case in CASES if case.values[0] not in LASTS and "-0-" in str(case.id)],
)
def test_killed_at_every_write_nothing_is_left(
    apiserver: Server, client: Client, namespace: str, name: str, params: dict[str, Any], kind: str
) -> None:
    target = make(client, kind, namespace)
    changes = planned(client, name, params, target)
    before = everything(client, changes)
    for writes, after in itertools.product(range(1, 12), (False, True)):
        with closing(Client(Dying(apiserver, writes, after=after))) as dying:
            try:
                for each in changes:
                    apply(dying, each, UID)
                undo_all(dying, changes, UID)
            except SystemExit:
                pass
            else:
                break
        for done in undo_all(client, changes, UID):
            assert done.outcome is Outcome.RECOVERED
        assert everything(client, changes) == before, f"killed at write {writes}, after: {after}"
    else:
        pytest.fail("it never came to its end")


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment"])
def test_a_scan_finds_and_undoes_it_without_any_record(
    client: Client, namespace: str, kind: str
) -> None:
    target = make(client, kind, namespace)
    name = "config.value" if kind == "ConfigMap" else "workload.scale"
    (change,) = planned(client, name, PARAMS[name][0], target)
    before = everything(client, [change])
    apply(client, change, UID)
    found = client.get(change.kind, change.name, change.namespace)
    assert list(notes.noted(found)) == [UID]
    again = of_note(change.kind, found, UID)
    assert again == change
    assert undo(client, again, UID).outcome is Outcome.RECOVERED
    assert everything(client, [change]) == before


# ---------------------------------------------------------------------------- others write, too


def test_what_somebody_changed_meanwhile_is_left_and_told(client: Client, namespace: str) -> None:
    target = make(client, "ConfigMap", namespace)
    patch = {"patch": {"data": {"mode": "wild", "level": "9"}}}
    (change,) = planned(client, "object.patch", patch, target)
    apply(client, change, UID)
    client.patch(
        change.kind, "shop", {"data": {"mode": "mine", "other": "new"}}, namespace=namespace
    )
    done = undo(client, change, UID)
    assert (done.outcome, done.left) == (Outcome.RECOVERED, ("data.mode is mine",))
    now = client.get(change.kind, "shop", namespace)
    assert now["data"] == {"mode": "mine", "level": "3", "other": "new"}
    assert not notes.annotations_of(now)


def test_a_second_fault_of_the_same_field_is_refused_with_the_holder(
    client: Client, namespace: str
) -> None:
    target = make(client, "Deployment", namespace)
    (first,) = planned(client, "workload.scale", {"replicas": 1}, target)
    apply(client, first, UID)
    now = client.get(first.kind, "shop", namespace)
    (second,) = planned(client, "workload.scale", {"replicas": 9}, now)
    with pytest.raises(Conflict, match=r"spec.replicas is held by another fault") as refused:
        apply(client, second, "fedcba9876543210")
    assert refused.value.holder == UID
    (other,) = planned(client, "workload.pause", {}, now)
    apply(client, other, "fedcba9876543210")
    for change, fault in ((first, UID), (other, "fedcba9876543210")):
        assert undo(client, change, fault).outcome is Outcome.RECOVERED
    assert essence(client.get(first.kind, "shop", namespace)) == essence(target)


def test_a_plan_that_the_world_has_left_behind_is_refused(client: Client, namespace: str) -> None:
    target = make(client, "Deployment", namespace)
    (change,) = planned(client, "workload.scale", {"replicas": 1}, target)
    client.patch(change.kind, "shop", {"spec": {"replicas": 6}}, namespace=namespace)
    with pytest.raises(PlanStale, match=r"spec.replicas has changed"):
        apply(client, change, UID)
    client.delete(change.kind, "shop", namespace)
    with pytest.raises(TargetGone):
        apply(client, change, UID)
    make(client, "Deployment", namespace)
    with pytest.raises(TargetGone, match="another one"):
        apply(client, change, UID)
    assert undo(client, change, UID).outcome is Outcome.GONE


def test_writes_of_others_are_borne(
    client: Client, apiserver: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes between our reading and our writing, three times."""
    target = make(client, "ConfigMap", namespace)
    (change,) = planned(client, "config.value", {"key": "mode", "value": "wild"}, target)
    busy, times = apiserver.client(), iter(range(6))
    real = client.get

    def get_then_other(*words: Any, **named: Any) -> Object:
        found = real(*words, **named)
        if (number := next(times, 9)) % 2 == 0 and number < 6:
            busy.patch(change.kind, "shop", {"data": {"count": str(number)}}, namespace=namespace)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(client, "get", get_then_other)
        apply(client, change, UID)
        assert undo(client, change, UID).outcome is Outcome.RECOVERED
    now = client.get(change.kind, "shop", namespace)["data"]
    assert (now["mode"], now["level"]) == ("calm", "3")
    busy.close()


def test_what_exists_under_our_name_is_never_taken_over(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    (change,) = planned(client, "namespace.deny", {}, target)
    policy = {"apiVersion": change.kind.version, "kind": change.kind.kind, "metadata": {
        "name": change.name}, "spec": {"podSelector": {}}}  # fmt: skip
    client.create(change.kind, policy, where)
    with pytest.raises(Refused, match="is not ours"):
        apply(client, change, UID)
    assert undo(client, change, UID).outcome is Outcome.GONE
    assert client.get(change.kind, change.name, where)


# ---------------------------------------------------------------------------- guards, proofs


@pytest.mark.parametrize(
    ("name", "params", "kind", "said"),
    [
        ("pod.delete", {}, "Pod", "has no owner"),
        ("object.delete", {"back": False}, "ConfigMap", "has no owner"),
        ("object.delete", {}, "Secret", "may hold rights"),
        ("object.label", {"key": "app", "value": "x" * 64}, "Service", "at most 63"),
        ("object.annotation", {"key": "undo.faultline.dev/1"}, "Service", "never written"),
        ("object.finalizer", {"remove": ["held.example/z"]}, "Service", "would not be waited for"),
        ("node.condition", {"type": "Ready", "status": "False"}, "Node", "loses all its pods"),
        ("node.untaint", {"key": "none"}, "Node", "no such taint"),
        ("job.suspend", {}, "Job", "from Kubernetes 1.21"),
        ("job.deadline", {}, "Job", "not begun again"),
        ("volume.reclaim", {"policy": "Delete"}, "PersistentVolume", "would go with its claim"),
        ("route.weights", {"weights": {"none": 1}}, "HTTPRoute", "no backend none"),
        ("route.backend", {"rule": 2}, "HTTPRoute", "2 rules"),
        ("ingress.limit", {"requests": 1}, "Ingress", "is not known"),
        ("service.port", {"port": 81}, "Service", "has the ports 80"),
        ("ingress.rule", {"host": "none", "drop": True}, "Ingress", "no such rule"),
        ("object.patch", {"patch": {"data": {"a": "b"}}}, "Secret", "may hold rights"),
        ("object.patch", {"patch": {"metadata": {"name": "x"}}}, "ConfigMap", "never written"),
        ("node.taint", {"effect": "NoExecute"}, "Node", "evicts every pod"),
        ("workload.image", {"container": "none"}, "Deployment", "it has web, side"),
        ("workload.scale", {"replicas": 4}, "Deployment", "nothing would change"),
        ("hpa.bounds", {"low": 10}, "HorizontalPodAutoscaler", "more than the most"),
        ("pod.unready", {"gate": "other"}, "Pod", "no readiness gate"),
    ],
)
def test_what_is_dangerous_or_senseless_is_refused(
    client: Client, namespace: str, name: str, params: dict[str, Any], kind: str, said: str
) -> None:
    target = make(client, kind, namespace)
    fault = get(name)
    with pytest.raises((Refused, Unsupported), match=said):
        fault.plan(View(client, UID), target, fault.params_type().read(params))


@pytest.mark.parametrize(
    ("name", "params", "kind"),
    [
        ("namespace.limit", {"memory": "64Mi"}, "Namespace"),
        ("namespace.clutter", {"count": 5}, "Namespace"),
        ("config.value", {"key": "mode", "value": "wild"}, "ConfigMap"),
        ("node.cordon", {}, "Node"),
        ("lease.steal", {}, "Lease"),
        ("object.delete", {}, "ConfigMap"),
    ],
)
def test_the_effect_is_measured_and_gone_when_it_is_undone(
    client: Client, namespace: str, name: str, params: dict[str, Any], kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("faultline.kubefaults.model.PATIENCE", 0.5)
    target, fault = make(client, kind, namespace), get(name)
    view, read = View(client, UID, allow=ALLOWED), fault.params_type().read(params)
    changes = fault.plan(view, target, read)
    for each in changes:
        apply(client, each, UID)
    found = fault.observe(view, target, read, changes)
    assert str(found.effect) == "effective", found
    undo_all(client, changes, UID)
    if name not in LASTS:
        try:
            gone = fault.observe(view, target, read, changes)
        except (FaultlineError, AttributeError):
            return
        assert str(gone.effect) != "effective", gone


def test_what_nobody_enforces_is_not_called_effective(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota counts only once the controller has looked at it: here is none."""
    monkeypatch.setattr("faultline.kubefaults.model.PATIENCE", 0.5)
    target, fault = make(client, "Namespace", namespace), get("namespace.quota")
    view = View(client, UID)
    for resource, said in (("configmaps", "ineffective"), ("requests.cpu", "unmeasured")):
        read = fault.params_type().read({"resource": resource, "most": "0"})
        changes = fault.plan(view, target, read)
        for each in changes:
            apply(client, each, UID)
        assert str(fault.observe(view, target, read, changes).effect) == said
        undo_all(client, changes, UID)


def test_what_is_made_carries_our_mark(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    for each in planned(client, "namespace.clutter", {"count": 2}, target):
        apply(client, each, UID)
    kind = client.kind("configmaps")
    found = client.every(kind, str(metadata(target)["name"]), labels=f"{OWNER}={UID}")
    assert len(list(found)) == 2


def test_a_field_that_was_written_is_in_the_plan(client: Client, namespace: str) -> None:
    target = make(client, "Deployment", namespace)
    (change,) = planned(client, "workload.scale", {"percent": "50%"}, target)
    assert change.fields == (Field(("spec", "replicas"), 4, 2),)
    assert change.describe()[0] == f"Deployment {namespace}/shop: spec.replicas: 4 -> 2"
