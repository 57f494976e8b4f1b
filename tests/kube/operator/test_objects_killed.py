"""Whoever carries out a fault of objects dies before or behind each of its writes, and the next one
goes on. The same code as in the operator, with one thread, on a real API server.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.objects.targets import CONTAINERS, essence, make
from tests.kube.operator.conftest import HOSTS, PODS

from faultline.api.host import Actual, Desired
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Object, Request, metadata
from faultline.kubeapi.plain import Plain
from faultline.kubefaults import notes
from faultline.operator import sweeping
from faultline.operator.acting import Actor
from faultline.operator.hosts import OBJECTS, HostObject

pytestmark = [pytest.mark.needs_apiserver, pytest.mark.slow]

UID = "0123abcd-77777777777777777777"
LASTS = 60.0


class Dying(Plain):
    """A process that dies before, or right behind, its N-th write."""

    def __init__(self, server: Server, writes: int, *, after: bool) -> None:
        super().__init__(server.access())
        self.left, self.after = writes, after

    def send(self, asked: Request) -> Answer:
        if asked.method == "GET":
            return super().send(asked)
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise SystemExit("killed")
        answer = super().send(asked)
        if self.left == 0:
            raise SystemExit("killed")
        return answer


class Here(Executor):
    """Does it at once, in the thread that asks."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        fn(*args, **kwargs)
        return Future()


@dataclass
class Rig:
    """What is durable, and whoever acts on it at present."""

    server: Server
    client: Client
    later: float = 0.0
    made: list[Dying] = field(default_factory=list[Dying])

    def host(self) -> HostObject | None:
        try:
            return HostObject.of(self.client.get(HOSTS, OBJECTS))
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise

    def ask(self, desired: list[Object]) -> None:
        spec = {"desired": desired}
        if self.host() is None:
            made = {"apiVersion": HOSTS.version, "kind": "Host", "metadata": {"name": OBJECTS}}
            self.client.create(HOSTS, {**made, "spec": spec})
        else:
            self.client.patch(HOSTS, OBJECTS, {"spec": spec})

    def actor(self, writes: int = 10**6, *, after: bool = False) -> Actor:
        dying = Dying(self.server, writes, after=after)
        self.made.append(dying)
        clock = lambda: time.time() + self.later  # noqa: E731
        return Actor(lambda: Client(dying), self.host, _ignored, lambda: True, clock,
                     (Here(), Here()))  # fmt: skip

    def told(self) -> Actual | None:
        host = self.host()
        return next(iter(host.actual), None) if host is not None else None

    def until(self, actor: Actor, holds: Callable[[Actual | None], bool]) -> None:
        for _ in range(200):
            actor.round()
            if holds(self.told()):
                return
            time.sleep(0.02)
        pytest.fail(f"it never came so far: {self.told()}")

    def course(self, actor: Actor) -> None:
        """From the beginning, or from wherever it stands, to its end."""
        self.until(actor, _is("active", "ended", "refused"))
        self.later = LASTS + 1
        self.until(actor, _is("ended", "refused"))


def _ignored(_: Object) -> None:
    """The host is read anew each time."""


def _nothing(client: Client, pods: object) -> int:
    """No look for marks: it is tried elsewhere."""
    return 0


def _is(*stages: str) -> Callable[[Actual | None], bool]:
    return lambda told: told is not None and told.stage in stages


def order(fault: str, params: dict[str, Any], target: Object, **more: Any) -> Object:
    meta = metadata(target)
    made = Desired.model_validate(
        {
            "uid": UID, "owner": "Fault/shop/x", "ownerUid": "1", "fault": fault, "params": params,
            "duration": f"{LASTS:g}s", "askedAt": time.time(),
            "object": {
                "apiVersion": target["apiVersion"], "kind": target["kind"], "name": meta["name"],
                "namespace": meta.get("namespace") or "", "uid": meta["uid"],
            }, **more,
        }
    )  # fmt: skip
    # As the operator writes it: an empty text would be taken for null by some servers.
    return made.model_dump(mode="json", by_alias=True, exclude_defaults=True)


@pytest.fixture
def rig(kinds: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr("faultline.kubefaults.model.PATIENCE", 0.0)
    monkeypatch.setattr(sweeping, "sweep", _nothing)
    with closing(kinds.client()) as client:
        made = Rig(kinds, client)
        yield made
        client.delete(HOSTS, OBJECTS)
        for each in made.made:
            each.close()


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a field": ("workload.scale", {"by": -1}, "Deployment"),
    "a status": ("pod.unready", {}, "Pod"),
    "a secret": ("config.value", {"key": "mode", "value": "wild"}, "Secret"),
    "many": ("namespace.clutter", {"count": 3}, "Namespace"),
    "a deletion that is made good": ("object.delete", {}, "ConfigMap"),
}


@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_write_it_is_gone_on_with_and_nothing_is_left(
    rig: Rig, namespace: str, case: str
) -> None:
    fault, params, kind = CASES[case]
    target = make(rig.client, kind, namespace)
    where, meta = rig.client.exact(kind, target["apiVersion"]), metadata(target)

    def now() -> Object:
        found = rig.client.get(where, meta["name"], meta.get("namespace") or "")
        return {"apiVersion": target["apiVersion"], "kind": kind, **found}

    for writes, after in itertools.product(range(1, 20), (False, True)):
        before, rig.later = now(), 0.0
        rig.ask([order(fault, params, before)])
        killed = True
        with suppress(SystemExit):
            rig.course(rig.actor(writes, after=after))
            killed = False
        if rig.later == 0.0:
            next_one = rig.actor()
            rig.until(next_one, _is("active", "ended"))
            there = now() if fault != "object.delete" else {}
            assert fault != "workload.scale" or there["spec"]["replicas"] == 3, "not done twice"
        rig.later = LASTS + 1
        rig.until(rig.actor(), _is("ended"))
        told = rig.told()
        assert told is not None
        assert told.end == "recovered", f"killed at write {writes}, after: {after}: {told}"
        rig.ask([])
        rig.until(rig.actor(), lambda told: told is None)
        _same(fault, now(), before, f"killed at write {writes}, after: {after}")
        if not killed:
            return
    pytest.fail("it never came to its end")


def _same(fault: str, now: Object, before: Object, words: str) -> None:
    if fault != "object.delete":
        assert essence(now) == essence(before), words
    else:
        assert now["data"] == before["data"], words
    assert not notes.holders(now), words


def test_a_drain_that_is_killed_evicts_no_pod_that_came_later(rig: Rig, namespace: str) -> None:
    node = make(rig.client, "Node", namespace)
    name = metadata(node)["name"]

    def pod(words: str) -> Object:
        made = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": words},
            "spec": {"nodeName": name, "containers": CONTAINERS[:1],
                     "automountServiceAccountToken": False},
        }  # fmt: skip
        there = rig.client.create(PODS, made, namespace)
        rig.client.replace(PODS, {**there, "status": {"phase": "Running"}}, "status")
        return there

    for number, after in itertools.product(range(1, 8), (False, True)):
        first = [pod(f"web-{number}-{after}-{each}".lower()) for each in range(2)]
        rig.later = 0.0
        rig.ask([order("node.drain", {"grace": 0}, node, allow=["bare-pod"])])
        with suppress(SystemExit):
            rig.until(rig.actor(number, after=after), _is("active"))
        recorded = (rig.told() or Actual(uid=UID, stage="injecting")).record
        late = pod(f"late-{number}-{after}".lower())
        rig.until(rig.actor(), _is("active"))
        there = {metadata(each)["name"] for each in rig.client.every(PODS, namespace)}
        assert not there & {metadata(each)["name"] for each in first}
        assert (metadata(late)["name"] in there) == bool(recorded), "only what was planned goes"
        rig.later = LASTS + 1
        rig.until(rig.actor(), _is("ended"))
        assert not rig.client.get(rig.client.kind("nodes"), name)["spec"].get("unschedulable")
        rig.ask([])
        rig.until(rig.actor(), lambda told: told is None)
        if metadata(late)["name"] in there:
            rig.client.delete(PODS, metadata(late)["name"], namespace, grace=0)


def test_a_pod_is_deleted_once_and_its_replacement_stays(rig: Rig, namespace: str) -> None:
    for writes, after in itertools.product(range(1, 5), (False, True)):
        first = make(rig.client, "Pod", namespace)
        rig.later = 0.0
        rig.ask([order("pod.delete", {"grace": 0}, first, allow=["bare-pod"])])
        with suppress(SystemExit):
            rig.until(rig.actor(writes, after=after), _is("ended"))
        try:
            now = rig.client.get(PODS, "shop", namespace)
        except ApiError:
            now = make(rig.client, "Pod", namespace)  # as its owner would
        rig.until(rig.actor(), _is("ended"))
        told = rig.told()
        assert told is not None
        assert (told.end, told.effect) == ("nothing to undo", "effective")
        if metadata(now)["uid"] != metadata(first)["uid"]:
            there = rig.client.get(PODS, "shop", namespace)
            assert metadata(there)["uid"] == metadata(now)["uid"]
            rig.client.delete(PODS, "shop", namespace, grace=0)
        rig.ask([])
        rig.until(rig.actor(), lambda told: told is None)
