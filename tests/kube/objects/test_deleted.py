"""Objects that are deleted and made anew, and objects that are applied: what comes back of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.objects import crds
from tests.kube.objects.targets import make

from faultline.errors import InvalidParameter, Refused, Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults import back
from faultline.kubefaults.change import Change, Outcome, apply, present, undo
from faultline.kubefaults.model import View
from faultline.kubefaults.registry import get

pytestmark = pytest.mark.needs_apiserver
UID = "0123456789abcdef"


@pytest.fixture
def client(apiserver: Server) -> Iterator[Client]:
    with closing(apiserver.client()) as made:
        yield made


def planned(
    client: Client, name: str, params: dict[str, Any], target: Object, *allow: str
) -> Change:
    fault = get(name)
    view = View(client, UID, random.Random(1), frozenset(allow))
    (change,) = fault.plan(view, target, fault.params_type().read(params))
    return change


def there(client: Client, change: Change) -> Object | None:
    return back.found(client, change)


# ---------------------------------------------------------------------------- deleted


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment", "Ingress", "Lease"])
def test_what_was_deleted_is_made_anew(client: Client, namespace: str, kind: str) -> None:
    target = make(client, kind, namespace)
    change = planned(client, "object.delete", {}, target)
    for _ in range(2):  # to delete it twice is harmless
        apply(client, change, UID)
        assert there(client, change) is None
        assert present(client, change, UID)
    done = undo(client, change, UID)
    assert done.outcome is Outcome.RECOVERED
    assert back.LOST in done.detail
    now = there(client, change) or {}
    assert metadata(now)["uid"] != metadata(target)["uid"]
    assert back.manifest(now) == back.manifest(client_view(target, now))
    assert not present(client, change, UID)
    again = undo(client, change, UID)
    assert (again.outcome, again.detail) == (Outcome.RECOVERED, "somebody has made another one")


def client_view(target: Object, like: Object) -> Object:
    """The target as the server answers about it: a list names no kind."""
    return {name: value for name, value in target.items() if name in like or name == "spec"}


def test_what_was_not_deleted_stays_as_it_is(client: Client, namespace: str) -> None:
    """Somebody died between planning and deleting."""
    target = make(client, "ConfigMap", namespace)
    change = planned(client, "object.delete", {}, target)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    assert metadata(there(client, change) or {})["uid"] == metadata(target)["uid"]


def test_one_that_is_ending_is_told(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back, "_TRIES", 3)
    target = make(client, "Service", namespace)  # it has a finalizer
    change = planned(client, "object.delete", {}, target)
    apply(client, change, UID)
    done = undo(client, change, UID)
    assert done.outcome is Outcome.PERSON
    assert "still ending" in done.detail
    free = {"metadata": {"finalizers": None}}
    client.patch(change.kind, change.name, free, namespace=namespace)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    now = there(client, change) or {}
    assert now["spec"]["clusterIP"] == target["spec"]["clusterIP"], "it keeps its address"


def test_an_address_that_somebody_else_has_by_now_is_given_up(
    client: Client, namespace: str
) -> None:
    target = make(client, "Service", namespace)
    change = planned(client, "object.delete", {}, target)
    apply(client, change, UID)
    free = {"metadata": {"finalizers": None}}
    client.patch(change.kind, change.name, free, namespace=namespace)
    address = target["spec"]["clusterIP"]
    taker = {"metadata": {"name": "taker"}, "spec": {"clusterIP": address, "ports": [{"port": 1}]}}
    client.create(change.kind, taker, namespace)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    assert (there(client, change) or {})["spec"]["clusterIP"] != address


def test_what_somebody_owns_is_left_to_its_owner(client: Client, namespace: str) -> None:
    owner = make(client, "Deployment", namespace)
    meta = metadata(owner)
    made = {
        "metadata": {
            "name": "owned",
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"],
                 "uid": meta["uid"]}
            ],
        }
    }  # fmt: skip
    kind = client.kind("configmaps")
    target = {"apiVersion": "v1", "kind": "ConfigMap", **client.create(kind, made, namespace)}
    change = planned(client, "object.delete", {}, target)
    apply(client, change, UID)
    assert undo(client, change, UID).outcome is Outcome.NOTHING
    assert there(client, change) is None


def test_those_that_belong_to_it_can_be_kept(client: Client, namespace: str) -> None:
    target = make(client, "Deployment", namespace)
    change = planned(client, "object.delete", {"dependents": "keep"}, target)
    apply(client, change, UID)
    going = there(client, change)
    # Without the collector of garbage, which lets them go first, it waits for that.
    assert metadata(going or {}).get("finalizers") == ["orphan"]
    client.patch(change.kind, "shop", {"metadata": {"finalizers": None}}, namespace=namespace)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED


# ---------------------------------------------------------------------------- applied


def test_an_object_that_is_there_gets_what_is_different(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    where, kind = str(metadata(target)["name"]), client.kind("configmaps")
    client.create(kind, {"metadata": {"name": "shop"}, "data": {"a": "1", "b": "2"}}, where)
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop",
             "labels": {"x": "y"}}, "data": {"a": "9", "b": "2"}}  # fmt: skip
    change = planned(client, "object.apply", {"object": given}, target)
    assert change.do == "patch"
    assert {each.words for each in change.fields} == {"data.a", "metadata.labels.x"}
    apply(client, change, UID)
    client.patch(kind, "shop", {"data": {"b": "3"}}, namespace=where)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    now = client.get(kind, "shop", where)
    assert (now["data"], metadata(now).get("labels") or {}) == ({"a": "1", "b": "3"}, {})


def test_one_that_was_not_there_is_made_under_its_name(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}}
    change = planned(client, "object.apply", {"object": given}, target)
    apply(client, change, UID)
    assert there(client, change)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    assert there(client, change) is None


RBAC = "rbac.authorization.k8s.io/v1"
ROLE = {"apiVersion": RBAC, "kind": "Role", "metadata": {"name": "x"}, "rules": []}
POD = {"containers": [{"name": "x", "image": "x"}]}


@pytest.mark.parametrize(
    ("given", "guard"),
    [
        (ROLE, "any-kind"),
        ({"apiVersion": RBAC, "kind": "ClusterRole", "rules": []}, "any-kind"),
        ({"apiVersion": "v1", "kind": "Secret"}, "any-kind"),
        ({"apiVersion": "v1", "kind": "ServiceAccount"}, "any-kind"),
        ({"apiVersion": "v1", "kind": "Namespace"}, "any-kind"),
        ({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"},
         "any-kind"),
        ({"apiVersion": "admissionregistration.k8s.io/v1",
          "kind": "ValidatingWebhookConfiguration"}, "any-kind"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {**POD, "hostNetwork": True}},
         "privileged-pod"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [
            {"name": "x", "securityContext": {"privileged": True}}]}}, "privileged-pod"),
        ({"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"template": {"spec": {
            **POD, "volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}}}, "privileged-pod"),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {**POD, "serviceAccountName": "x"}},
         "privileged-pod"),
    ],
)  # fmt: skip
def test_what_is_dangerous_needs_its_guard(
    client: Client, namespace: str, given: Object, guard: str
) -> None:
    target = make(client, "Namespace", namespace)
    with pytest.raises(Refused) as refused:
        planned(client, "object.apply", {"object": given}, target)
    assert f"allow: [{guard}]" in refused.value.hint
    assert planned(client, "object.apply", {"object": given}, target, guard).do == "create"


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"template": {"spec": {"hostNetwork": True}}}},
        {"spec": {"template": {"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}}},
        {"spec": {"template": {"spec": {"serviceAccountName": "x"}}}},
    ],
)
def test_a_patch_gives_no_rights_either(client: Client, namespace: str, patch: Object) -> None:
    target = make(client, "Deployment", namespace)
    with pytest.raises(Refused) as refused:
        planned(client, "object.patch", {"patch": patch}, target)
    assert "privileged-pod" in refused.value.hint


def test_nothing_of_ours_is_touched_whatever_is_allowed(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    ours = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Fault"}
    part = {"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"labels": {"app.kubernetes.io/part-of": "faultline"}}}  # fmt: skip
    for given in (ours, part):
        with pytest.raises((Refused, Unsupported)):
            planned(client, "object.apply", {"object": given}, target, "any-kind")
    held = make(client, "ConfigMap", namespace)
    held["metadata"]["annotations"] = {"faultline.dev/protect": "true"}
    for name, params in (
        ("object.delete", {}),
        ("object.label", {"key": "x", "value": "y"}),
        ("config.value", {"key": "mode", "value": "x"}),
        ("object.patch", {"patch": {"data": {"a": "b"}}}),
    ):
        with pytest.raises(Refused, match="annotated as protected"):
            planned(client, name, params, held, "any-kind", "lasting")


@pytest.mark.parametrize(
    "given", [{}, {"kind": "Pod"}, {"apiVersion": "v1", "kind": "Pod",
                                   "metadata": {"namespace": "x"}}]
)  # fmt: skip
def test_an_object_must_be_whole(given: Object) -> None:
    with pytest.raises(InvalidParameter):
        get("object.apply").params_type().read({"object": given})


# ---------------------------------------------------------------------------- kinds of others


def test_kinds_that_the_cluster_has_not_are_refused(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespaces, ingress = make(client, "Namespace", namespace), make(client, "Ingress", namespace)
    served = client.served

    def without(version: str) -> Any:
        own = ("cilium.io", "crd.projectcalico.org", "traefik.io")
        return [] if version.startswith(own) else served(version)

    monkeypatch.setattr(client, "served", without)
    for params, said in (
        ({"policy": "cilium"}, "no CiliumNetworkPolicy of cilium.io/v2"),
        ({"policy": "calico"}, "no NetworkPolicy of crd.projectcalico.org/v1"),
    ):
        with pytest.raises(Unsupported, match=said):
            planned(client, "namespace.deny", params, namespaces)
    with pytest.raises(Unsupported, match="no Middleware of traefik"):
        planned(client, "ingress.limit", {"requests": 1, "controller": "traefik"}, ingress)


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_policies_deny_what_was_asked_for(client: Client, namespace: str, direction: str) -> None:
    crds.install(client, "CiliumNetworkPolicy", "NetworkPolicy")
    target = make(client, "Namespace", namespace)
    asked = {"direction": direction, "labels": {"app": "shop"}}
    inward, outward = direction != "out", direction != "in"
    cilium = (planned(client, "namespace.deny", {**asked, "policy": "cilium"}, target)).object
    assert cilium is not None
    assert ("ingressDeny" in cilium["spec"], "egressDeny" in cilium["spec"]) == (inward, outward)
    assert "ingress" not in cilium["spec"]
    calico = planned(client, "namespace.deny", {**asked, "policy": "calico"}, target)
    assert calico.name.startswith("default.")
    spec = (calico.object or {})["spec"]
    assert (spec["order"], spec["selector"]) == (0, "app == 'shop'")
    assert ("Ingress" in spec["types"], "Egress" in spec["types"]) == (inward, outward)


def test_a_policy_of_networks_opens_nothing_that_others_have_closed(
    client: Client, namespace: str
) -> None:
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    kind = client.kind("networkpolicies", "networking.k8s.io")
    client.create(kind, {"metadata": {"name": "theirs"}, "spec": {"podSelector": {}}}, where)
    with pytest.raises(Refused, match="would allow more than now") as refused:
        planned(client, "namespace.deny", {"networks": ["10.0.0.0/8"]}, target)
    assert "opens-network" in refused.value.hint
    assert planned(client, "namespace.deny", {}, target).do == "create"
