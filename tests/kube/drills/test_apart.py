"""Two sets of real pods apart: in both directions, in one, as pods are replaced; nobody else."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from typing import Any

import pytest
from tests.containers.test_pods import kubectl
from tests.kube.agent.conftest import Crew
from tests.kube.drills.conftest import Cluster, Field, fielded, until

from faultline.operator.app import Operator
from faultline.places.find import Target, find

pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow, pytest.mark.timeout(300),
]  # fmt: skip
RED = {"pods": {"labels": {"app": "red"}}, "mode": "all"}
BLUE = {"pods": {"labels": {"app": "blue"}}}


@pytest.fixture(scope="module")
def sets(cluster: Cluster, crew: Crew, operator: Operator) -> Generator[Field]:
    """Three sets of programs: two that are kept apart, and one that nobody means."""
    with fielded(cluster, crew, operator) as field:
        for name, copies in (("red", 2), ("blue", 2), ("green", 1)):
            field.serve(name, copies)
        field.ready("red", "blue", "green")
        yield field


def passes(field: Field, sender: str, receiver: str, address: str) -> bool:
    """Whether a datagram comes from one pod to another: one way, without any answer."""
    with find(Target(pod=f"{field.space}/{receiver}")).entered():
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        there.bind(("", 0))
    with find(Target(pod=f"{field.space}/{sender}")).entered():
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with here, there:
        there.settimeout(0.3)
        for _ in range(3):
            here.sendto(b"x", (address, there.getsockname()[1]))
            try:
                return there.recv(10) == b"x"
            except TimeoutError:
                continue
    return False


def reach(field: Field, one: str, other: str) -> set[bool]:
    """Whether pods of one set reach those of the other one: each of them, by address."""
    ours, theirs = field.pods(one), field.pods(other)
    return {field.reaches(pod, address) for pod in ours for address in theirs.values()}


def test_apart_in_both_directions_also_by_service_and_as_pods_are_replaced(sets: Field) -> None:
    field, blue = sets, sets.address("blue")
    assert reach(field, "red", "blue") == reach(field, "blue", "red") == {True}
    field.fault("apart", fault="network.partition", selector=RED, peer=BLUE)
    told = field.effective("apart")
    assert (told["counts"]["targets"], told["peers"]) == (2, 2)
    assert reach(field, "red", "blue") == reach(field, "blue", "red") == {False}
    assert not any(field.reaches(pod, blue) for pod in field.pods("red"))
    for one, other in (("red", "green"), ("green", "red"), ("blue", "green"), ("green", "blue")):
        assert reach(field, one, other) == {True}, (one, other)
    old = field.pods("blue")
    gone, address = next(iter(old.items()))
    kubectl("delete", "pod", "-n", field.space, gone, "--grace-period=0", "--force")
    new = until(lambda: {k: v for k, v in field.pods("blue").items() if k not in old})
    red = next(iter(field.pods("red")))
    until(lambda: not field.reaches(red, next(iter(new.values()))), "the new one is reached")
    until(lambda: field.status("fault", "apart")["peers"] == 2)

    def asked() -> set[str]:
        desired = field.get("host", field.crew.node)["spec"]["desired"]
        return {each for entry in desired for each in entry["params"]["destination"]}

    until(lambda: address not in asked(), "an address that somebody else may get is cut off still")
    assert asked() == {*field.pods("blue").values(), blue}
    assert reach(field, "red", "green") == {True}
    field.gone("apart")
    assert reach(field, "red", "blue") == reach(field, "blue", "red") == {True}
    assert field.reaches(red, blue)


@pytest.mark.parametrize(
    ("params", "there", "back"),
    [
        # Packets one way: without answers no connection comes about in either direction.
        ({"direction": "out"}, False, True),
        ({"direction": "in"}, True, False),
    ],
)
def test_apart_in_one_direction(
    sets: Field, params: dict[str, Any], there: bool, back: bool
) -> None:
    field = sets
    red, red_at = next(iter(field.pods("red").items()))
    blue, blue_at = next(iter(field.pods("blue").items()))
    field.fault("apart", fault="network.partition", params=params, selector=RED, peer=BLUE)
    field.effective("apart")
    assert passes(field, red, blue, blue_at) is there
    assert passes(field, blue, red, red_at) is back
    assert reach(field, "red", "green") == {True}
    field.gone("apart")
    assert passes(field, red, blue, blue_at)
    assert passes(field, blue, red, red_at)


def test_nobody_begins_a_conversation_there_but_here(sets: Field) -> None:
    """Red cannot connect to blue; blue can to red, and is answered."""
    field = sets
    params = {"direction": "out", "tcp_flags": ["syn", "!ack"]}
    field.fault("shy", fault="network.partition", params=params, selector=RED, peer=BLUE)
    field.effective("shy")
    assert reach(field, "red", "blue") == {False}
    assert reach(field, "blue", "red") == {True}
    assert reach(field, "red", "green") == {True}
    field.gone("shy")
    assert reach(field, "red", "blue") == {True}


def test_slow_between_two_sets_alone(sets: Field) -> None:
    field, blue = sets, sets.address("blue")
    params = {"latency": "300ms", "direction": "out"}
    field.fault("slow", fault="network.delay", params=params, selector=RED, peer=BLUE)
    field.effective("slow")

    def took(pod: str, address: str) -> float:
        begun = time.monotonic()
        assert field.reaches(pod, address, 10)
        return time.monotonic() - begun

    red = next(iter(field.pods("red")))
    assert min(took(red, blue) for _ in range(2)) > 0.25
    assert min(took(red, field.address("green")) for _ in range(3)) < 0.2
    field.gone("slow")
    assert min(took(red, blue) for _ in range(3)) < 0.2
