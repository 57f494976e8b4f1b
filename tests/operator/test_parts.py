"""The parts of the operator by themselves: who leads, how often it asks, what it believes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from faultline.api.halt import HaltSpec, HaltStatus
from faultline.api.host import Actual, Desired, HostSpec, HostStatus
from faultline.kubeapi.client import Seen
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.operator import halting
from faultline.operator.hosts import asked, view_of
from faultline.operator.informer import Informer
from faultline.operator.leading import Leader
from faultline.operator.limiting import Budget
from faultline.operator.looking import covers
from faultline.operator.views import HaltObject, fault_of

MAPS = Kind("ConfigMap", "configmaps", "v1")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------------------- leading


@dataclass
class OneObject:
    """A server with one Lease."""

    held: Object | None = None
    version: int = 0
    away: bool = False
    log: list[str] = field(default_factory=list[str])

    def get(self, *_: Any) -> Object:
        self._there()
        if self.held is None:
            raise ApiError(404, "NotFound", "none")
        return {**self.held, "spec": dict(self.held["spec"])}

    def create(self, _kind: Kind, made: Object, _namespace: str) -> Object:
        self._there()
        if self.held is not None:
            raise ApiError(409, "AlreadyExists", "there")
        return self._put(made)

    def replace(self, _kind: Kind, made: Object) -> Object:
        self._there()
        if made["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "somebody wrote")
        return self._put(made)

    def close(self) -> None:
        self.log.append("closed")

    def _there(self) -> None:
        if self.away:
            raise ApiError(0, "NoAnswer", "away")

    def _put(self, made: Object) -> Object:
        self.version += 1
        self.held = {**made, "metadata": {"resourceVersion": str(self.version)}}
        return self.held


def candidate(server: OneObject, name: str, clock: Clock) -> Leader:
    client: Any = server
    return Leader(client, "faultline", name, lasts=15, clock=clock)


def test_one_leads_as_long_as_it_renews_and_another_takes_over_by_its_own_clock() -> None:
    server, ours, theirs = OneObject(), Clock(), Clock()
    theirs.now = 5.0  # clocks of two machines have nothing in common
    one, two = candidate(server, "one", ours), candidate(server, "two", theirs)
    one.step()
    for _ in range(20):
        two.step()
        assert (one.leads, two.leads) == (True, False)
        ours.now += 4
        theirs.now += 4
        one.step()
    # It dies: the other waits for a whole lease after it has last seen a change.
    two.step()
    for _ in range(3):
        theirs.now += 4
        ours.now += 4
        two.step()
        assert not two.leads
    assert not one.leads, "it has stopped before anybody else may begin"
    theirs.now += 4
    two.step()
    assert two.leads
    one.step()
    assert not one.leads
    assert server.held is not None
    assert server.held["spec"]["leaseTransitions"] == 2


def test_who_cannot_renew_does_not_lead() -> None:
    server, clock = OneObject(), Clock()
    one = candidate(server, "one", clock)
    one.step()
    server.away = True
    clock.now += 11
    with pytest.raises(ApiError):
        one.step()
    assert not one.leads


def test_a_lease_is_let_go_at_the_end_and_taken_at_once() -> None:
    server, clock = OneObject(), Clock()
    one, two = candidate(server, "one", clock), candidate(server, "two", clock)
    one.step()
    two.step()
    one.stop()
    two.step()
    assert (one.leads, two.leads) == (False, True)


# ---------------------------------------------------------------------------- asking


def test_it_asks_no_more_often_than_was_agreed() -> None:
    clock = Clock()
    budget = Budget(10, 5, clock)
    waits = [budget.take() for _ in range(10)]
    assert waits[:5] == [0] * 5
    assert waits[5:] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    clock.now += 100
    assert [budget.take() for _ in range(5)] == [0] * 5
    assert budget.take() > 0
    assert budget.spent == 16


# ---------------------------------------------------------------------------- believing


def config(name: str, version: int, uid: str = "u", data: str = "") -> Object:
    meta = {"name": name, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta, "data": data}


def test_what_is_older_than_our_own_write_is_left_aside() -> None:
    told: list[Any] = []
    cache = Informer(MAPS, lambda each: each["data"], lambda *change: told.append(change))
    cache.put(config("a", 9, data="old"))
    cache.put(config("a", 11, data="ours"))
    cache.put(config("a", 10, data="before"))
    cache.put(config("a", 11, data="ours, told again"))
    assert cache.get("a") == "ours"
    assert len(told) == 2
    cache.put(config("a", 3, uid="another", data="made anew"))
    assert cache.get("a") == "made anew"


def test_an_object_that_cannot_be_read_is_left_out_and_watching_goes_on() -> None:
    cache = Informer(MAPS, lambda each: each["data"]["x"], lambda *_: None)
    cache.put({"metadata": {"name": "odd", "uid": "u", "resourceVersion": "1"}, "data": None})
    assert cache.all() == {}


class Watched:
    """A client whose watches are scripted."""

    def __init__(self, *scripts: list[Seen | Exception]) -> None:
        self.scripts = [*scripts]

    def watch(self, *_: Any) -> Generator[Seen]:
        for each in self.scripts.pop(0):
            if isinstance(each, Exception):
                raise each
            yield each


def test_what_has_gone_while_nobody_watched_is_told_as_gone() -> None:
    told: list[Any] = []
    cache = Informer(MAPS, lambda each: each["data"], lambda *change: told.append(change))
    synced = Seen("synced", {})
    client: Any = Watched(
        [Seen("put", config("a", 1, "u1", "a")), Seen("put", config("b", 2, "u2", "b")), synced,
         ApiError(0, "NoAnswer", "it broke")],
        [Seen("put", config("b", 7, "u3", "another b")), synced],
    )  # fmt: skip
    cache._client = client
    with pytest.raises(ApiError):
        cache._watch()
    assert cache.synced.is_set()
    cache._watch()
    assert cache.all() == {"b": "another b"}
    assert told[-1] == ("a", "a", None)
    # Who was deleted is named by uid: the new one of that name is not meant.
    cache._deleted("b", config("b", 9, "u2"))
    assert cache.all() == {"b": "another b"}


# ---------------------------------------------------------------------------- hosts, halts


def wanted(uid: str, owner: str = "Fault/shop/f", owner_uid: str = "f") -> Desired:
    return Desired(uid=uid, owner=owner, owner_uid=owner_uid, fault="cpu.burn", asked_at=1.0)


def test_a_host_keeps_what_is_not_ours_and_what_was_not_looked_at() -> None:
    here = HostSpec(desired=[
        wanted("mine"), wanted("left"), wanted("of-run", "Run/shop/r", "r"),
        wanted("unlooked", owner_uid="g"), wanted("orphan", owner_uid="nobody"),
    ])  # fmt: skip
    found = asked(here, {"f": {"mine": wanted("mine"), "new": wanted("new")}}, {"f", "g"}, "")
    assert [each.uid for each in found.desired] == ["mine", "of-run", "unlooked", "new"]
    assert asked(found, {"f": {}}, {"f", "g"}, "stop").halted == "stop"


def test_a_halt_is_complete_when_nothing_is_left_anywhere() -> None:
    halt = HaltObject("h", "u", "1", HaltSpec(), HaltStatus())
    there = HostStatus(actual=[Actual(uid="a", stage="active"), Actual(uid="b", stage="ended")])
    busy = view_of("n", HostSpec(halted="x"), there)
    told = halting.status(halt, [busy, view_of("m", HostSpec(), HostStatus())], 5.0)
    assert (told.left, told.since, told.undone) == (1, 5.0, None)
    done = halting.status(replace(halt, status=told), [view_of("n", HostSpec(), HostStatus())], 9.0)
    assert (done.left, done.since, done.undone) == (0, 5.0, 9.0)


def test_a_fault_that_says_nothing_is_an_object_with_a_problem() -> None:
    found = fault_of({"metadata": {"name": "x", "namespace": "n", "uid": "u"}, "spec": {}})
    assert found.view.spec is None
    assert "spec.fault: required" in found.view.problem
    status = {"phase": "of another version"}
    assert fault_of({"metadata": {"name": "x", "namespace": "n", "uid": "u"},
                     "status": status}).view.status.phase == "pending"  # fmt: skip


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_a_budget_is_about_the_pods_that_it_selects(selector: Object, holds: bool) -> None:
    assert covers({"spec": {"selector": selector}}, {"app": "web"}.items()) is holds
