"""The reconciler of faults: every fault ends, nothing stays behind it, counts never lie."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.simulation import World, world

from faultline.api.fault import FaultResourceStatus
from faultline.operator import model
from faultline.testing.sampling import examples

OVER = ("ended", "refused")


def test_a_fault_is_injected_measured_and_undone_at_its_deadline() -> None:
    here = world()
    uid = here.make_fault("delay")
    active = here.until(uid, "active")
    assert active.finalizer
    assert here.until(uid, "active").status.counts.targets == 6
    list(here.steps(3))
    status = here.faults[uid].status
    assert (status.effect, status.counts.effective, status.counts.hosts) == ("effective", 6, 3)
    assert [c.type for c in status.conditions if c.status == "True"] == [
        "Resolved", "Injected", "Effective"]  # fmt: skip
    ended = here.until(uid, "ended").status
    assert (ended.end, ended.counts.recovered) == ("recovered", 6)
    list(here.steps(3))
    assert here.desired(uid) == []
    assert not here.faults[uid].finalizer
    assert [reason for _, reason in here.events] == ["Resolved", "Effective", "Recovered"]
    here.delete_fault(uid)
    assert uid in here.ended


def test_a_host_is_written_once_for_all_its_targets_and_for_each_change() -> None:
    here = world(hosts=5, pods=20)
    uid = here.make_fault("delay")
    here.until(uid, "ended")
    list(here.steps(3))
    # Per host: asked for, allowed to forget. Of the fault: finalizer twice, a few looks.
    assert here.writes <= 5 * 2 + 10
    assert here.injected == 100


@pytest.mark.parametrize("after", range(8))
def test_deleted_in_any_state_it_ends_in_bounded_time(after: int) -> None:
    here = world()
    uid = here.make_fault("delay")
    list(here.steps(after))
    here.delete_fault(uid)
    begun = here.now
    while uid in here.faults:
        here.step()
        assert here.now - begun < 10
    assert here.desired(uid) == []
    status = here.ended[uid]
    assert status.phase in (*OVER, "pending")
    assert status.counts.recovered + status.counts.refused == status.counts.targets


def test_a_node_that_has_gone_is_no_reason_to_wait() -> None:
    here = world()
    uid = here.make_fault("delay")
    here.until(uid, "active")
    lost = here.hosts["n1"]
    lost.up, lost.gone = False, True
    here.delete_fault(uid)
    begun = here.now
    while uid in here.faults:
        here.step()
    assert here.now - begun < 5
    status = here.ended[uid]
    assert status.end == "node gone: undo queued"
    assert (status.counts.recovered, status.counts.lost) == (4, 1)


def test_an_agent_that_does_not_answer_is_waited_for_but_not_for_ever() -> None:
    here = world()
    uid = here.make_fault("delay")
    here.until(uid, "active")
    cut = here.hosts["n1"]
    cut.connected = False
    here.delete_fault(uid)
    begun = here.now
    while uid in here.faults:
        here.step()
    assert here.now - begun < model.LOST + 15
    assert here.ended[uid].end == "node gone: undo queued"
    assert {each.stage for each in cut.real.values()} == {"ended"}, "it has undone all by itself"
    cut.connected = True
    list(here.steps(2))
    assert cut.real == {}


def test_an_agent_that_answers_and_does_not_undo_needs_a_person() -> None:
    here = world(stuck=1.0)
    uid = here.make_fault("delay")
    here.until(uid, "active")
    here.delete_fault(uid)
    list(here.steps(5))
    assert here.ended[uid].end == "needs a person"
    hung = world()
    uid = hung.make_fault("delay")
    hung.until(uid, "active")
    hung._undo = lambda *_: None  # type: ignore[method-assign] # it answers, and does nothing
    hung.delete_fault(uid)
    begun = hung.now
    while uid in hung.faults:
        hung.step()
    assert hung.now - begun < model.UNDO + 5
    assert hung.ended[uid].end == "needs a person"
    assert "faultline recover" in hung.ended[uid].message


def test_pods_that_go_are_told_as_gone() -> None:
    here = world()
    uid = here.make_fault("delay")
    here.until(uid, "active")
    for pod in [*here.pods]:
        here.remove_pod(pod)
    ended = here.until(uid, "ended").status
    assert (ended.end, ended.counts.gone) == ("target gone", 6)


def test_what_some_hosts_refuse_is_counted_and_a_fault_that_all_refuse_is_refused() -> None:
    here = world(refusing=1.0)
    uid = here.make_fault("delay")
    refused = here.until(uid, "refused").status
    assert refused.counts.refused == 6
    assert "not here" in refused.message
    list(here.steps(3))
    assert not here.desired(uid)


def test_a_fault_without_effect_is_not_called_effective() -> None:
    here = world(dull=1.0)
    uid = here.make_fault("delay")
    here.until(uid, "active")
    list(here.steps(2))
    assert here.faults[uid].status.effect == "ineffective"


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"selector": {"pods": {"labels": {"app": "nobody"}}}}, "none of the pods fits"),
        ({"selector": {"containers": {}}}, "this is a cluster"),
        ({"selector": {"pods": {}, "mode": "fixed", "count": 50}}, "more than there are"),
        ({"selector": None}, "which pods or nodes"),
        ({"selector": {"plugin": {"name": "unknown"}}}, "no plug-in"),
        ({"selector": {"plugin": {"name": "leader", "params": {}}}}, "lease"),
    ],
)
def test_what_means_nothing_is_refused_with_the_reason(fields: dict[str, Any], said: str) -> None:
    here = world()
    uid = here.make_fault("delay", **fields)
    refused = here.until(uid, "refused")
    assert said in refused.status.message
    assert not refused.finalizer
    here.delete_fault(uid)
    assert uid in here.ended


def test_while_everything_is_halted_nothing_begins_and_all_is_undone() -> None:
    here = world()
    uid = here.make_fault("delay")
    here.until(uid, "active")
    here.halted = "enough"
    late = here.make_fault("late")
    list(here.steps(4))
    assert here.faults[uid].status.end == "recovered"
    assert "enough" in here.faults[uid].status.message
    assert here.faults[late].status.phase == "refused"
    assert "enough" in here.faults[late].status.message
    assert {host.spec.halted for host in here.hosts.values()} == {"halted"}
    here.halted = None
    list(here.steps(2))
    assert {host.spec.halted for host in here.hosts.values()} == {""}
    assert here.faults[late].status.phase == "refused", "it does not begin by itself later"


# ---------------------------------------------------------------------------- live sets


def test_a_frozen_set_stays_as_it_was_chosen() -> None:
    here = world()
    uid = here.make_fault("delay")
    here.until(uid, "active")
    here.remove_pod("uid-web-n0-0")
    here.add_pod("web-new", "n0")
    list(here.steps(5))
    assert here.faults[uid].status.counts.targets == 6
    assert here.faults[uid].status.counts.gone == 1


def test_a_set_that_follows_takes_the_pod_that_its_owner_puts_in_place() -> None:
    here = world()
    pods = {"labels": {"app": "web"}}
    uid = here.make_fault("delay", selector={"pods": pods, "mode": "one", "live": "follow"})
    here.until(uid, "active")
    (first,) = here.desired(uid)
    assert first.pod is not None
    assert first.follow
    here.remove_pod(first.pod.uid)
    here.add_pod("web-other", "n2", owner="other")
    list(here.steps(6))
    (second,) = (each for each in here.desired(uid) if each != first)
    assert second.pod is not None
    assert second.pod.owner == first.pod.owner
    assert second.duration.seconds < 60
    counts = here.faults[uid].status.counts
    assert (counts.targets, counts.gone) == (2, 1)
    list(here.steps(80))
    assert here.faults[uid].status.phase == "ended"


def test_a_set_that_is_topped_up_stays_as_large_and_with_all_it_grows() -> None:
    here = world()
    pods = {"labels": {"app": "web"}}
    two = here.make_fault(
        "two", selector={"pods": pods, "mode": "fixed", "count": 2, "live": "top-up"}
    )
    every = here.make_fault("all", selector={"pods": pods, "mode": "all", "live": "top-up"})
    here.until(two, "active")
    here.remove_pod(next(e.pod.uid for e in here.desired(two) if e.pod))
    here.add_pod("web-more", "n1")
    list(here.steps(6))
    assert len([p for p in here.desired(two) if p.pod and p.pod.uid in here.pods]) == 2
    assert here.faults[every].status.counts.targets == 7
    begun = here.now
    here.until(every, "ended")
    assert here.now - begun < 80


# ---------------------------------------------------------------------------- anything at all


@settings(max_examples=examples(60, 1500), deadline=None)
@given(st.integers(0, 2**32))
def test_every_fault_ends_whatever_happens_and_nothing_stays_desired(seed: int) -> None:
    rng = random.Random(seed)
    here = world(
        hosts=rng.randint(1, 4), pods=rng.randint(1, 3), seed=seed,
        lag=rng.choice([0, 0.3, 0.8]), stuck=rng.choice([0, 0, 0.3]),
        dull=rng.choice([0, 0.3]), refusing=rng.choice([0, 0.3]),
    )  # fmt: skip
    uids = [_some_fault(here, rng, number) for number in range(rng.randint(1, 3))]
    for _ in range(rng.randint(5, 40)):
        _something_happens(here, rng, uids)
        here.step(rng.choice([0.5, 1, 5]), die=rng.choice([0, 0.2, 0.5]))
    here.halted, here.lag = None, 0.0
    for _ in range(120):
        here.step(2.0)
    for uid in uids:
        status = here.ended[uid] if uid in here.ended else here.faults[uid].status
        assert status.phase in OVER or (uid in here.ended and status.phase == "pending")
        assert not here.desired(uid)
        if uid in here.faults:
            assert not here.faults[uid].finalizer
        _told_how(status)
    for host in here.hosts.values():
        if host.up and host.connected:
            left = [each for each in host.real.values() if each.end != "needs a person"]
            assert not left, "the agent was asked for nothing and has nothing"


def _told_how(status: FaultResourceStatus) -> None:
    if status.phase == "ended":
        assert status.end in (
            "recovered", "target gone", "node gone: undo queued", "needs a person")  # fmt: skip


def _some_fault(here: World, rng: random.Random, number: int) -> str:
    selector: dict[str, Any] = {"pods": {"labels": {"app": "web"}}}
    selector["mode"] = rng.choice(["one", "all", "random-max-percent"])
    if selector["mode"] == "random-max-percent":
        selector["percent"] = "60%"
    selector["live"] = rng.choice(["freeze", "freeze", "follow", "top-up"])
    if rng.random() < 0.2:
        selector = {"nodes": {}, "mode": "one"}
    duration = rng.choice(["5s", "20s", "60s"])
    return here.make_fault(f"f{number}", selector=selector, duration=duration)


def _something_happens(here: World, rng: random.Random, uids: list[str]) -> None:
    host = rng.choice([*here.hosts.values()])
    match rng.randint(0, 14):
        case 0:
            here.delete_fault(rng.choice(uids))
        case 1:
            host.connected = not host.connected
        case 2:
            host.up = not host.up
        case 3:
            host.up, host.gone = False, True
        case 4:
            here.halted = "enough" if here.halted is None else None
        case 5 if here.pods:
            here.remove_pod(rng.choice([*here.pods]))
        case 6:
            here.add_pod(f"web-x{rng.randint(0, 10**9)}", host.name)
        case 7 if host.gone:
            here.hosts.pop(host.name)
            here.hosts["n9"] = type(host)("n9", seen=here.now)
        case _:
            pass
