"""Load on a real API server: as much as was asked for; nothing is left, nobody else is touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.objects.targets import make

from faultline.errors import Refused
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object, metadata
from faultline.kubeapi.plain import Plain
from faultline.kubefaults import loads, many, rights
from faultline.kubefaults.change import OWNER, Change, Outcome, apply, present, undo
from faultline.kubefaults.model import View
from faultline.kubefaults.registry import get

pytestmark = pytest.mark.needs_apiserver
UID = "0123456789abcdef"


@pytest.fixture
def client(apiserver: Server) -> Iterator[Client]:
    access = apiserver.access()
    with closing(Client(Plain(access), lambda: Plain(access))) as made:
        yield made


def planned(client: Client, name: str, params: dict[str, Any], target: Object, **more: Any) -> Any:
    fault = get(name)
    view, told = View(client, UID, **more), fault.params_type().read(params)
    (change,) = fault.plan(view, target, told)
    assert Change.from_json(change.to_json()) == change
    return view, fault, told, change


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def counted(client: Client, plural: str, where: str) -> int:
    return sum(1 for _ in client.every(client.kind(plural), where, labels=f"{OWNER}={UID}"))


# ---------------------------------------------------------------------------- many objects


@pytest.mark.parametrize(
    ("name", "params", "plural"),
    [
        ("namespace.clutter", {"count": 30, "size": 50}, "configmaps"),
        ("namespace.clutter", {"count": 5, "kind": "Secret"}, "secrets"),
        ("namespace.clutter", {"count": 5, "kind": "Service"}, "services"),
        ("namespace.clutter", {"count": 5, "kind": "Deployment"}, "deployments"),
        ("namespace.clutter", {"count": 5, "kind": "Lease"}, "leases"),
        ("namespace.pending", {"count": 5, "cpu": "2", "memory": "1Gi"}, "pods"),
        ("namespace.jobs", {"count": 5}, "jobs"),
    ],
)
def test_many_objects_are_made_and_taken_back(
    client: Client, namespace: str, name: str, params: dict[str, Any], plural: str
) -> None:
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    view, fault, told, change = planned(client, name, params, target)
    assert len(str(change.to_json())) < 1500, "what is remembered does not grow with them"
    assert not present(client, change, UID)
    for _ in range(2):  # to make them twice is harmless
        apply(client, change, UID)
        assert counted(client, plural, where) == params["count"]
    if name != "namespace.jobs":  # no controller completes any here
        assert str(fault.observe(view, target, told, [change]).effect) == "effective"
    assert present(client, change, UID)
    for _ in range(2):
        assert undo(client, change, UID).outcome is Outcome.RECOVERED
        assert not present(client, change, UID)
        assert counted(client, plural, where) == 0


def test_what_others_have_under_our_label_stays(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    *_, change = planned(client, "namespace.clutter", {"count": 4}, target)
    theirs = {"metadata": {"name": "theirs", "labels": {OWNER: UID}}}
    client.create(change.kind, theirs, where)
    apply(client, change, UID)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    assert [metadata(e)["name"] for e in client.every(change.kind, where)] == ["theirs"]


def test_a_name_that_is_taken_is_refused_and_kept(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    *_, change = planned(client, "namespace.clutter", {"count": 4}, target)
    client.create(change.kind, {"metadata": {"name": f"{change.name}-2"}}, where)
    with pytest.raises(Refused, match="is not ours"):
        apply(client, change, UID)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    assert [metadata(e)["name"] for e in client.every(change.kind, where)] == [f"{change.name}-2"]


def test_half_of_them_are_made_whole_or_taken_back(client: Client, namespace: str) -> None:
    """As after a crash in the middle."""
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    *_, change = planned(client, "namespace.clutter", {"count": 10}, target)
    half = replace(change, extra={**change.extra, "count": 5})
    apply(client, half, UID)
    apply(client, change, UID)
    assert counted(client, "configmaps", where) == 10
    assert undo(client, half, UID).outcome is Outcome.RECOVERED
    assert counted(client, "configmaps", where) == 0


def test_what_ends_never_is_told(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_TRIES", 3)
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    *_, change = planned(client, "namespace.clutter", {"count": 2}, target)
    apply(client, change, UID)
    name = f"{change.name}-1"
    client.patch(change.kind, name, {"metadata": {"finalizers": ["x.example/y"]}}, namespace=where)
    done = undo(client, change, UID)
    assert done.outcome is Outcome.PERSON
    assert "1 configmaps are still ending" in done.detail
    client.patch(change.kind, name, {"metadata": {"finalizers": None}}, namespace=where)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED


# ---------------------------------------------------------------------------- while it lasts


def test_watches_are_held_and_let_go(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    view, fault, told, change = planned(client, "namespace.watches", {"count": 60}, target)
    apply(client, change, UID)
    assert present(client, change, UID)
    reading = fault.observe(view, target, told, [change])
    assert str(reading.effect) == "effective", reading
    where = str(metadata(target)["name"])
    client.create(client.kind("configmaps"), {"metadata": {"name": "news"}}, where)
    figures, _ = loads.figures(change, UID) or pytest.fail("it does not run")
    until(lambda: figures.seen >= 60)
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    assert (figures.open, present(client, change, UID)) == (0, False)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("namespace.lists", {"rate": 20, "everywhere": True, "cached": True}),
        ("namespace.lists", {"rate": 5}),
        ("namespace.events", {"rate": 20, "most": 25}),
    ],
)
def test_requests_come_at_their_rate_and_leave_nothing(
    client: Client, namespace: str, name: str, params: dict[str, Any]
) -> None:
    target = make(client, "Namespace", namespace)
    where = str(metadata(target)["name"])
    view, fault, told, change = planned(client, name, params, target)
    apply(client, change, UID)
    apply(client, change, UID)
    reading = fault.observe(view, target, told, [change])
    assert str(reading.effect) == "effective", reading
    figures, _ = loads.figures(change, UID) or pytest.fail("it does not run")
    if name == "namespace.events":
        until(lambda: figures.done == 25)
        assert counted(client, "events", where) == 25
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
    done = figures.done
    assert counted(client, "events", where) == 0
    time.sleep(0.2)
    assert figures.done == done, "it went on"


def test_a_load_ends_by_itself_when_its_time_is_over(client: Client, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    *_, change = planned(client, "namespace.lists", {"rate": 5}, target, seconds=0.5)
    apply(client, change, UID)
    until(lambda: not present(client, change, UID))
    assert undo(client, change, UID).outcome is Outcome.RECOVERED


def test_what_the_server_refuses_is_told(client: Client, apiserver: Server, namespace: str) -> None:
    target = make(client, "Namespace", namespace)
    with closing(apiserver.client("nobody-token")) as nobody:
        view, fault, told, change = planned(client, "namespace.watches", {"count": 2}, target)
        loads.begin(nobody, change, UID)
        until(lambda: bool((loads.figures(change, UID) or pytest.fail("none"))[0].error))
        reading = fault.observe(replace(view, stop=lambda: True), target, told, [change])
        assert str(reading.effect) == "ineffective"
        assert "forbidden" in reading.reason
        loads.end(change, UID)


@pytest.mark.parametrize(
    ("name", "params", "right"),
    [
        ("namespace.events", {}, "create events in {where}"),
        ("namespace.lists", {}, "list configmaps in {where}"),
        ("namespace.watches", {"resource": "pods"}, "watch pods in {where}"),
        ("namespace.watches", {"resource": "secrets", "everywhere": True}, "watch secrets"),
        ("namespace.jobs", {}, "create jobs.batch in {where}"),
    ],
)
def test_whoever_asks_needs_the_right_to_do_it(
    client: Client, namespace: str, name: str, params: dict[str, Any], right: str
) -> None:
    target = make(client, "Namespace", namespace)
    *_, change = planned(client, name, params, target)
    told = [str(each) for each in rights.of_changes([change])]
    assert told == [right.format(where=metadata(target)["name"])]
