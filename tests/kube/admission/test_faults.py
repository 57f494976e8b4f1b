"""Faults of admission on a real API server: what requests meet, and who ends them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import pytest
from tests.kube.admission.conftest import World, gone, until
from tests.kube.agent.conftest import SRC
from tests.kube.operator.conftest import FAULTS, HOSTS, PODS, SPACES

from faultline.agent.warden import Warden
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubefaults import change as changing
from faultline.kubefaults import registry, webhooks
from faultline.kubefaults.admission_base import AdmissionFault
from faultline.kubefaults.model import View
from faultline.kubefaults.notes import labels_of

pytestmark = pytest.mark.needs_apiserver
MAPS = Kind("ConfigMap", "configmaps", "v1")


@pytest.fixture(scope="module")
def served(world: World) -> Generator[World]:
    """An operator with its webhook, and agents of which some are wardens."""
    world.operate()
    with world.nodes(2) as names:
        until(lambda: all(duty(world, name) for name in names), "nobody is a warden", 30)
        yield world


def duty(world: World, name: str) -> bool:
    return bool((world.client.get(HOSTS, name).get("spec") or {}).get("warden"))


def create(client: Client, namespace: str, name: str, **labels: str) -> tuple[float, Any]:
    """A ConfigMap; how long that took, and the object or what the server said."""
    begun = time.monotonic()
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}
    try:
        found: Any = client.create(MAPS, made, namespace)
    except ApiError as error:
        found = error
    return time.monotonic() - begun, found


def asked(fault: str, **params: Any) -> Object:
    return {
        "fault": f"admission.{fault}", "duration": "60s",
        "params": {"resources": ["configmaps"], **params},
    }  # fmt: skip


def apply(world: World, name: str, namespace: str, spec: Object) -> Object:
    """Carried out by the operator, with its effect measured."""
    selector = {"objects": {"kind": "Namespace"}, "mode": "all"}
    world.make("Fault", name, {**spec, "selector": selector}, namespace)
    until(lambda: world.status(name, namespace).get("effect"), f"{name} has no effect", 40)
    told = world.status(name, namespace)
    assert told["effect"] == "effective", told
    return told


def end(world: World, name: str, namespace: str) -> None:
    world.client.delete(FAULTS, name, namespace)

    def over() -> bool:
        return not [f for f in world.client.every(FAULTS, namespace)
                    if metadata(f)["name"] == name]  # fmt: skip

    until(over, f"{name} is still there", 40)
    assert not list(webhooks.standing(world.client))
    space = world.client.get(SPACES, namespace)
    assert not [each for each in labels_of(space) if each.startswith(webhooks.LABEL)]
    took, found = create(world.client, namespace, f"after-{name}")
    assert isinstance(found, dict), found
    assert took < 2


def test_requests_are_refused_and_nothing_else_is(served: World) -> None:
    space, other = served.space("reject"), served.space("spared")
    spec = asked("reject", code=429, message="come back later", labels={"app": "shop"})
    apply(served, "refuse", space, spec)
    _, said = create(served.client, space, "hit", app="shop")
    assert isinstance(said, ApiError)
    assert (said.status, "come back later" in said.message) == (429, True)
    assert isinstance(create(served.client, space, "another-label", app="bank")[1], dict)
    assert isinstance(create(served.client, other, "elsewhere", app="shop")[1], dict)
    served.client.create(Kind("Secret", "secrets", "v1"), {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"app": "shop"}}
    }, space)  # fmt: skip
    (standing,) = webhooks.standing(served.client)

    def counted() -> bool:
        found = served.client.get(standing.kind, standing.name)
        return webhooks.counted(found) == (1, 1)

    until(counted, "the webhook does not count")
    end(served, "refuse", space)


def test_objects_are_changed_on_their_way(served: World) -> None:
    space = served.space("mutate")
    change = {"metadata": {"labels": {"touched": "yes"}}, "data": {"mode": "wild"}}
    apply(served, "change", space, asked("mutate", set=change))
    _, found = create(served.client, space, "hit", app="shop")
    assert found["data"] == {"mode": "wild"}
    assert found["metadata"]["labels"] == {"app": "shop", "touched": "yes"}
    end(served, "change", space)
    _, found = create(served.client, space, "later")
    assert "data" not in found


def test_answers_come_later(served: World) -> None:
    space = served.space("delay")
    told = apply(served, "slow", space, asked("delay", latency="700ms"))
    assert told["phase"] == "active"
    took, found = create(served.client, space, "hit")
    assert isinstance(found, dict)
    assert took >= 0.7
    end(served, "slow", space)


def test_a_webhook_that_is_down_or_silent_fails_requests(served: World) -> None:
    space = served.space("broken")
    apply(served, "broken", space, asked("error"))
    _, said = create(served.client, space, "hit")
    assert isinstance(said, ApiError)
    assert said.status == 500
    end(served, "broken", space)
    apply(served, "silent", space, asked("timeout", timeout="1s"))
    took, said = create(served.client, space, "hit")
    assert isinstance(said, ApiError)
    assert said.status == 500
    assert took >= 0.9
    end(served, "silent", space)


def test_a_share_is_hit_of_those_who_are_named(served: World) -> None:
    served.account("dora", [{"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}])
    space = served.space("share")
    users = [f"system:serviceaccount:{served.people}:do*"]
    told = apply(served, "some", space, asked("reject", percent="50%", users=users))
    assert told["phase"] == "active"
    with closing(served.as_user("dora")) as dora:
        hit = sum(
            isinstance(create(dora, space, f"d{number}")[1], ApiError) for number in range(40)
        )
    assert 8 <= hit <= 32
    assert all(
        isinstance(create(served.client, space, f"a{number}")[1], dict) for number in range(10)
    )
    end(served, "some", space)


def test_it_ends_at_its_deadline(served: World) -> None:
    space = served.space("short")
    apply(served, "short", space, {**asked("error"), "duration": "4s"})
    until(lambda: served.status("short", space).get("end") == "recovered", "no end", 40)
    assert isinstance(create(served.client, space, "after")[1], dict)
    gone(served.client, FAULTS, "short", space)


def test_what_must_never_be_hit_is_refused(served: World) -> None:
    never = registry.get("admission.reject")
    view = View(served.client, "0123456789abcdef")
    for name in ("kube-system", served.own, served.space("safe", protect="true")):
        target = {"apiVersion": "v1", "kind": "Namespace", **served.client.get(SPACES, name)}
        with pytest.raises(Exception, match=r"never hit|protected"):
            never.plan(view, target, never.params_type().read({}))
    for resources in (["faults.faultline.dev"], ["subjectaccessreviews.authorization.k8s.io"]):
        with pytest.raises(Exception, match="never hit"):
            never.params_type().read({"resources": resources})
    change = registry.get("admission.mutate")
    assert isinstance(change, AdmissionFault)
    target = {"apiVersion": "v1", "kind": "Namespace",
              **served.client.get(SPACES, served.space("rights"))}  # fmt: skip
    for resources, why in (
        (["rolebindings.rbac.authorization.k8s.io"], "never changed"),
        (["secrets"], "any-kind"),
    ):
        params = change.params_type().read({"set": {"a": "b"}, "resources": resources})
        with pytest.raises(Exception, match=why):
            change.plan(view, target, params)


def test_who_may_not_touch_what_is_hit_may_not_have_it_fail(served: World) -> None:
    served.account("emil", [
        {"apiGroups": ["faultline.dev"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update"]},
    ])  # fmt: skip
    space = served.space("emils")
    selector = {"objects": {"kind": "Namespace"}, "mode": "all"}
    spec = {**asked("error"), "selector": selector}
    with closing(served.as_user("emil")) as emil:
        said = served.refused(lambda: served.make("Fault", "x", spec, space, emil))
        assert f"emil may not delete configmaps in {space}" in said.message
        served.allow("emil", [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}
        ], space)  # fmt: skip
        until(lambda: _made(lambda: served.make("Fault", "x", spec, space, emil)), "refused", 30)
    until(lambda: served.status("x", space).get("effect") == "effective", "no effect", 40)
    end(served, "x", space)


def _made(what: Callable[[], Any]) -> bool:
    try:
        what()
    except ApiError:
        time.sleep(1)
        return False
    return True


# ---------------------------------------------------------------------------- nobody removes it


def test_a_warden_removes_what_is_overdue_or_whose_operator_is_lost(served: World) -> None:
    """With the rights of an agent alone; configurations of others are never touched."""
    space = served.space("lost")
    fault = registry.get("admission.timeout")
    target = {"apiVersion": "v1", "kind": "Namespace", **served.client.get(SPACES, space)}
    clock = [0.0]
    access = served.access("agent")
    warden = Warden(access, served.own, lambda _text: None, lambda: clock[0])
    others = {
        "apiVersion": webhooks.GROUP, "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "somebody-else", "labels": {"faultline.dev/fault": "0"}},
        "webhooks": [],
    }  # fmt: skip
    served.client.create(webhooks.VALIDATING, others)
    with closing(served.as_user("agent")) as agent:
        view = View(served.client, "00000000aaaa", seconds=1.0)
        _, change = fault.plan(view, target, fault.params_type().read({"resources": ["pods"]}))
        made = {**(change.object or {})}
        made["metadata"] = {**metadata(made), "labels": {"faultline.dev/fault": "00000000aaaa"}}
        made["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"nobody": "has-it"}}
        served.client.create(webhooks.VALIDATING, made)
        assert warden.look(agent) == []
        until(lambda: warden.look(agent) == [change.name], "it is not removed", 30)
        made["metadata"]["annotations"][webhooks.LASTS] = "600"
        served.client.create(webhooks.VALIDATING, made)
        assert warden.look(agent) == [], "the operator lives"
        clock[0] += 10
        assert warden.look(agent) == []
        lease = Kind("Lease", "leases", "coordination.k8s.io/v1")
        seen = served.client.get(lease, "faultline-operator", served.own)
        stopped = threading.Event()
        warden._seen = (metadata(seen)["resourceVersion"], 0.0)

        class Still(Client):
            """The operator does not renew its lease any more."""

            def get(self, kind: Any, name: str, namespace: str = "", part: str = "") -> Object:
                return seen if kind == lease else super().get(kind, name, namespace, part)

        still = Still(agent.rest)
        assert warden.look(still) == []
        clock[0] += 60
        assert warden.look(still) == [change.name]
        assert not stopped.is_set()
        said = served.refused(lambda: agent.delete(webhooks.VALIDATING, "somebody-else"))
        assert said.status == 403, "an agent may remove no webhooks of others"
    served.client.delete(webhooks.VALIDATING, "somebody-else")
    assert not list(webhooks.standing(served.client))
    assert [*served.client.every(PODS, space)] == []


def test_somebody_removes_it_by_hand(served: World) -> None:
    """With their own rights; nobody knows the fault any more."""
    space, uid = served.space("hand"), "0123456789-byhand"
    fault = registry.get("admission.error")
    target = {"apiVersion": "v1", "kind": "Namespace", **served.client.get(SPACES, space)}
    view = View(served.client, uid, seconds=300.0)
    for change in fault.plan(view, target, fault.params_type().read({"resources": ["configmaps"]})):
        changing.apply(served.client, change, uid)
    until(lambda: isinstance(create(served.client, space, "x")[1], ApiError), "no effect", 20)
    words = [sys.executable, "-m", "faultline.cli.main", "kube", "recover", "--all",
             "--kubeconfig", str(served.server.kubeconfig())]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    told = subprocess.run(words, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert not list(webhooks.standing(served.client))
    assert not labels_of(served.client.get(SPACES, space)).keys() & {webhooks.LABEL + uid}
    until(lambda: isinstance(create(served.client, space, "y")[1], dict), "still there", 20)
