"""Leases, what is known without asking, and the connection of a store in a cluster."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.stores.conftest import Opener
from tests.stores import histories

from faultline.api.kinds import KINDS
from faultline.api.run import Run
from faultline.errors import FaultlineError, InvalidDocument, Refused, UnknownName
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Object
from faultline.kubeapi.plain import Plain
from faultline.stores import kube_cache
from faultline.stores.kube import KubeStore
from faultline.stores.kube_calls import Patient, Where, kind_of, translate
from faultline.stores.kube_documents import FENCE, HOLDER
from faultline.stores.kube_leases import LEASES
from faultline.stores.model import Exists, Expired, Fenced, Filter, Stale, StoreFailed
from faultline.stores.opening import open_store

pytestmark = pytest.mark.needs_apiserver
RUN = kind_of(Run)


# ---------------------------------------------------------------------- leases


def test_an_engine_that_renews_is_never_taken_for_dead(opener: Opener) -> None:
    living, other = opener(), opener()
    living.create(histories.run("one", ended=False))
    (claimed,) = living.claim(Run, 1, "living", 0.5)
    lease, until = claimed.lease, time.monotonic() + 2.5
    while time.monotonic() < until:
        (lease,) = living.renew([lease], 0.5)
        assert lease.sure
        assert not other.claim(Run, 1, "other", 0.5)
        time.sleep(0.05)


def test_whoever_stood_still_too_long_has_lost_all_and_takes_anew(
    opener: Opener, raw: Client, namespace: str
) -> None:
    late, other = opener(), opener()
    for name in ("one", "two"):
        late.create(histories.run(name, ended=False))
    leases = [each.lease for each in late.claim(Run, 2, "late", 0.1)]
    while not (taken := other.claim(Run, 1, "other", 60)):
        time.sleep(0.02)
    assert late.renew(leases, 60) == [], "the other run is free too: nobody knows who has it next"
    (again,) = late.claim(Run, 2, "late", 60)
    assert (again.lease.name, again.lease.fence) == ("two", 2)
    assert late.renew([again.lease], 60) != []
    with pytest.raises(Fenced, match="taken over by other"):
        late.write_status(late.get(Run, "one"))
    raw.delete(LEASES, _holder(raw, namespace, "two"), namespace)
    assert late.renew([again.lease], 60) == [], "somebody said that it is dead"
    assert other.renew([taken[0].lease], 60) != []


def _holder(raw: Client, namespace: str, name: str) -> str:
    return str(raw.get(RUN, name, namespace)["metadata"]["annotations"][HOLDER])


def test_who_lost_one_run_to_a_person_learns_it_when_it_renews(
    opener: Opener, raw: Client, namespace: str
) -> None:
    store = opener(cached=True)
    for name in ("one", "two"):
        store.create(histories.run(name, ended=False))
    leases = [each.lease for each in store.claim(Run, 2, "engine", 60)]
    by_hand: Object = {"metadata": {"annotations": {HOLDER: None, FENCE: "7"}}}
    raw.patch(RUN, "one", by_hand, namespace=namespace)
    until = time.monotonic() + 20
    while len(kept := store.renew(leases, 60)) == 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert [each.name for each in kept] == ["two"]
    with pytest.raises(Fenced, match="number 7, ours was 1"):
        store.write_status(store.get(Run, "one"))


# ---------------------------------------------------------------------- the cache


def test_what_is_known_costs_no_requests(opener: Opener) -> None:
    store, other = opener(cached=True), opener()
    for index in range(5):
        store.create(histories.run(f"r{index}", index, 2, ended=False))
    assert store.count(Run) == 5
    before = store.requests
    for _ in range(20):
        assert len(store.summaries(Run, Filter(ended=False))) == 5
        assert store.summaries(Run, Filter(names=("r3",)))[0].name == "r3"
        assert store.summaries(Run, Filter(labels={"team": "team-1"}))[0].name == "r1"
        version = store.version()
        assert store.list(KINDS["Schedule"]) == []
    assert store.requests - before <= 2, "the list and the watch of schedules"
    other.delete(Run, "r0")
    seen = next(store.watch(version, "Run", timeout=20, light=True))
    assert (seen.type, seen.name) == ("deleted", "r0")
    assert store.count(Run) == 4
    store.delete(Run, "r1")
    assert store.count(Run) == 3, "our own writes are known at once"
    other.create(histories.run("r1", 1, 2, ended=False))
    seen = [event.name for event in store.watch(version, "Run", timeout=1.0, light=True)]
    assert seen[:2] == ["r0", "r1"]
    assert set(seen[2:]) == {"r1"}
    assert store.count(Run) == 4


def test_stores_of_one_process_share_what_is_known(where: str) -> None:
    with open_store(where, cached=True) as first:
        assert isinstance(first, KubeStore)
        assert first.count(Run) == 0
        with open_store(where, cached=True) as second:
            assert isinstance(second, KubeStore)
            second.create(histories.run("one", ended=False))
            assert first.cache is second.cache
        assert first.count(Run) == 1
        assert first.cache is not None
        assert not first.cache.ending.is_set()
    assert first.cache.ending.is_set()


class Cut(Plain):
    """A connection that breaks."""

    cut = False

    def request(self, *asked: Any, **more: Any) -> Answer:
        if Cut.cut:
            raise ApiError(0, "NoAnswer", "the API server does not answer")
        return super().request(*asked, **more)

    def lines(self, *asked: Any, **more: Any) -> Any:
        if Cut.cut:
            raise ApiError(0, "NoAnswer", "the API server does not answer")
        return super().lines(*asked, **more)


def test_a_watch_that_breaks_goes_on_and_what_is_too_old_is_not_told(
    defined: Server, namespace: str, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_cache, "STALE", 0.5)
    monkeypatch.setattr(Cut, "cut", False)
    other = opener()
    for name in ("goes", "stays"):
        other.create(histories.run(name, ended=False))
    with KubeStore(lambda: Cut(defined.access()), namespace, cached=True) as store:
        assert store.count(Run) == 2
        monkeypatch.setattr(Cut, "cut", True)
        assert store.cache is not None
        assert store.cache.client is not None
        store.cache.client.rest.close()
        until = time.monotonic() + 20
        assert "does not answer" in told(store, until)
        with pytest.raises(StoreFailed):
            store.create(histories.run("new"))
        other.delete(Run, "goes")
        other.create(histories.run("came", ended=False))
        monkeypatch.setattr(Cut, "cut", False)
        names: list[str] = []
        while names != ["came", "stays"] and time.monotonic() < until:
            try:
                names = sorted(each.name for each in store.summaries(Run))
            except StoreFailed:
                time.sleep(0.05)
        assert names == ["came", "stays"]


def told(store: KubeStore, until: float) -> str:
    """What is said once it is too long ago that anything was told."""
    while time.monotonic() < until:
        try:
            store.count(Run)
        except StoreFailed as error:
            return error.message
        time.sleep(0.02)
    return "nothing"


# ---------------------------------------------------------------------- the connection


def test_a_watch_through_a_network_that_was_cut_does_not_wait_for_ever(defined: Server) -> None:
    """The kernel asks the other side every few seconds; it took 11 s over a link that was cut."""
    connection = Plain(defined.access())
    with connection.lines(RUN.path(), {"watch": "1", "timeoutSeconds": "1"}, 30):
        (watching,) = connection._watching
        assert watching.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert watching.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 10


class Busy:
    """A server that wants to be asked later, so many times."""

    server, namespace = "https://busy", "default"

    def __init__(self, times: int, wait: str) -> None:
        self.left, self.wait = times, wait

    def request(self, *_: object, **__: object) -> Answer:
        self.left -= 1
        if self.left >= 0:
            return Answer(429, {"retry-after": self.wait}, b"{}")
        return Answer(200, {}, b"{}")

    def lines(self, path: str, query: Mapping[str, str], timeout: float) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_a_busy_server_is_asked_again_when_it_wants_to_be() -> None:
    patient = Patient(Busy(2, "0"))
    assert patient.request("GET", "/").status == 200
    assert patient.requests == 3
    begun = time.monotonic()
    assert Patient(Busy(1, "1")).request("GET", "/").status == 200
    assert time.monotonic() - begun > 0.9
    assert Patient(Busy(9, "60")).request("GET", "/").status == 429, "so long nobody waits"


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (0, "NoAnswer", StoreFailed),
        (500, "InternalError", StoreFailed),
        (429, "TooManyRequests", StoreFailed),
        (404, "NotFound", UnknownName),
        (409, "AlreadyExists", Exists),
        (409, "Conflict", Stale),
        (410, "Expired", Expired),
        (401, "Unauthorized", Refused),
        (403, "Forbidden", Refused),
        (422, "Invalid", InvalidDocument),
        (413, "RequestEntityTooLarge", InvalidDocument),
    ],
)
def test_what_the_server_says_is_an_error_of_stores(
    status: int, reason: str, kind: type[FaultlineError]
) -> None:
    assert type(translate(ApiError(status, reason, "it said no"), "Run", "one")) is kind


def test_what_the_server_refuses_of_a_document_is_told_with_its_path(store: KubeStore) -> None:
    wrong = histories.run("one.-two", ended=False)
    with pytest.raises(InvalidDocument) as caught:
        store.create(wrong)
    assert caught.value.problems[0][0] == "metadata.name"
    endless = histories.run("one", ended=False)
    spec = endless.spec.model_copy(update={"parameters": {"x": [1.0, float("inf")]}})
    with pytest.raises(InvalidDocument, match=r"spec\.parameters\.x\.1"):
        store.create(endless.model_copy(update={"spec": spec}))


def test_a_place_in_a_cluster_is_read_from_its_url() -> None:
    assert Where.read("kube://") == Where()
    assert Where.read("kube://team-a?context=test&kubeconfig=/k") == Where("team-a", "test", "/k")
    for wrong in ("kube://a/b", "kube://a?user=x", "kube://a?context"):
        with pytest.raises(FaultlineError, match="no store"):
            Where.read(wrong)
