"""Faults of objects over time: they flap, go in steps, are held up; also after a crash."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.objects.targets import make

from faultline.api.targets import Flap
from faultline.errors import Refused
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults import course
from faultline.kubefaults.change import Change, Outcome, apply, present, undo_all
from faultline.kubefaults.fields import read
from faultline.kubefaults.model import View
from faultline.kubefaults.registry import get

UID = "0123456789abcdef"
FLAP = Flap.model_validate({"present": "4s", "absent": "6s"})


@pytest.fixture
def client(apiserver: Server) -> Iterator[Client]:
    with closing(apiserver.client()) as made:
        yield made


def planned(
    client: Client, name: str, params: dict[str, Any], target: Object, **more: Any
) -> tuple[View, Any, Any, list[Change]]:
    fault = get(name)
    view = View(client, UID, random.Random(1), **more)
    told = fault.params_type().read(params)
    return view, fault, told, fault.plan(view, target, told)


# ---------------------------------------------------------------------------- when it is there


def test_it_is_there_for_as_long_as_was_asked_in_each_round() -> None:
    for second in range(40):
        there, left = course.moment(FLAP, "seed", float(second))
        assert there is (second % 10 < 4)
        assert left == (4 - second % 10 if there else 10 - second % 10)


def test_rounds_differ_by_chance_and_are_the_same_again_with_the_same_seed() -> None:
    flap = Flap.model_validate({"present": "4s", "absent": "6s", "jitter": "50%"})
    lasts = [course.moment(flap, "one", 10.0 * n)[1] for n in range(50)]
    assert all(2 <= each <= 6 for each in lasts)
    assert len(set(lasts)) > 40
    assert lasts == [course.moment(flap, "one", 10.0 * n)[1] for n in range(50)]
    assert lasts != [course.moment(flap, "two", 10.0 * n)[1] for n in range(50)]


def test_it_is_away_for_a_moment_at_least() -> None:
    flap = Flap.model_validate({"present": "20s", "absent": "1s", "jitter": "90%"})
    for number in range(200):
        begin = 21.0 * number
        assert course.moment(flap, "x", begin)[0]
        assert not course.moment(flap, "x", begin + 20.999)[0]


# ---------------------------------------------------------------------------- on a server


@pytest.mark.needs_apiserver
@pytest.mark.parametrize(
    ("name", "params", "kind"),
    [("namespace.deny", {}, "Namespace"), ("workload.scale", {"replicas": 1}, "Deployment")],
)
def test_it_comes_and_goes(
    client: Client, namespace: str, name: str, params: dict[str, Any], kind: str
) -> None:
    view, fault, told, changes = planned(client, name, params, make(client, kind, namespace))
    course.check(fault, changes, FLAP)
    (change,) = changes
    apply(client, change, UID)
    for second in (1.0, 3.9, 4.1, 9.9, 10.1, 10.2, 25.0, 31.0):
        for _ in range(2):  # whoever died in between does it again
            done = course.tend(view, fault, told, changes, FLAP, second)
            assert done.told == ()
            assert done.there is present(client, change, UID) is (second % 10 < 4)
    assert [each.outcome for each in undo_all(client, changes, UID)] == [Outcome.RECOVERED]
    assert not present(client, change, UID)


@pytest.mark.needs_apiserver
def test_what_somebody_changed_while_it_was_away_is_left_to_them(
    client: Client, namespace: str
) -> None:
    target = make(client, "Deployment", namespace)
    view, fault, told, changes = planned(client, "workload.scale", {"replicas": 1}, target)
    apply(client, changes[0], UID)
    course.tend(view, fault, told, changes, FLAP, 5.0)
    client.patch(changes[0].kind, "shop", {"spec": {"replicas": 7}}, namespace=namespace)
    done = course.tend(view, fault, told, changes, FLAP, 11.0)
    assert done.there
    assert "has changed since the plan" in done.told[0]
    undo_all(client, changes, UID)
    assert client.get(changes[0].kind, "shop", namespace)["spec"]["replicas"] == 7


@pytest.mark.needs_apiserver
def test_what_is_gone_for_good_does_not_flap(client: Client, namespace: str) -> None:
    target = make(client, "ConfigMap", namespace)
    _, fault, _, changes = planned(client, "object.delete", {}, target)
    with pytest.raises(Refused, match="cannot flap"):
        course.check(fault, changes, FLAP)
    course.check(fault, changes, None)


@pytest.mark.needs_apiserver
def test_copies_jump_within_bounds_and_take_the_same_course_again(
    client: Client, namespace: str
) -> None:
    params = {"low": 1, "high": 9, "every": "10s"}
    target = make(client, "Deployment", namespace)
    view, fault, told, changes = planned(client, "workload.random", params, target, seed="s")
    (change,) = changes
    apply(client, change, UID)

    def copies() -> int:
        return int(client.get(change.kind, "shop", namespace)["spec"]["replicas"])

    begun = copies()
    assert begun != 4
    seen: list[int] = []
    for second in range(0, 200, 5):
        done = course.tend(view, fault, told, changes, None, float(second))
        assert (done.told, done.wake) == ((), 10.0 - second % 10)
        seen.append(copies())
    assert seen[0] == seen[1] == begun
    assert set(seen) <= set(range(1, 10))
    assert len(set(seen)) > 3
    # Somebody else goes on in the middle, with what the record and the note have.
    other = replace(view, chance=random.Random(9))
    course.tend(other, fault, told, changes, None, 42.0)
    assert copies() == seen[8]
    assert [each.outcome for each in undo_all(client, changes, UID)] == [Outcome.RECOVERED]
    assert copies() == 4


@pytest.mark.needs_apiserver
def test_what_somebody_else_decides_in_between_stays(client: Client, namespace: str) -> None:
    params = {"low": 1, "high": 9, "every": "10s"}
    target = make(client, "Deployment", namespace)
    view, fault, told, changes = planned(client, "workload.random", params, target)
    apply(client, changes[0], UID)
    client.patch(changes[0].kind, "shop", {"spec": {"replicas": 50}}, namespace=namespace)
    done = course.tend(view, fault, told, changes, None, 30.0)
    assert done.told == ("spec.replicas is 50",)
    (end,) = undo_all(client, changes, UID)
    assert (end.outcome, end.left) == (Outcome.RECOVERED, ("spec.replicas is 50",))
    assert client.get(changes[0].kind, "shop", namespace)["spec"]["replicas"] == 50


@pytest.mark.needs_apiserver
def test_what_the_kubelet_sets_back_is_set_anew(client: Client, namespace: str) -> None:
    target = make(client, "Node", namespace)
    name, nodes = str(metadata(target)["name"]), client.kind("nodes")
    calm = {"type": "DiskPressure", "status": "False", "reason": "Calm", "message": "all well"}
    target = {**target, **client.patch(
        nodes, name, {"status": {"conditions": [calm]}}, part="status")}  # fmt: skip
    params = {"type": "DiskPressure"}
    view, fault, told, changes = planned(client, "node.condition", params, target)
    for each in changes:
        apply(client, each, UID)

    def says() -> tuple[str, str]:
        found: Any = read(client.get(nodes, name), ("status", "conditions", "type=DiskPressure"))
        return found["status"], found["reason"]

    def kubelet() -> None:
        client.patch(nodes, name, {"status": {"conditions": [calm]}}, part="status")

    assert says() == ("True", "FaultlineInjected")
    for _ in range(2):
        kubelet()
        assert says() == ("False", "Calm")
        done = course.tend(view, fault, told, changes, None, 5.0)
        assert (done.there, done.wake, done.told) == (True, course.INSIST, ())
        assert says() == ("True", "FaultlineInjected")
    kubelet()
    assert [each.outcome for each in undo_all(client, changes, UID)] == [Outcome.RECOVERED]
    assert says() == ("False", "Calm")
