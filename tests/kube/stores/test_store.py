"""What is special to a store in a cluster: others write there too, and the server is far away."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pytest
from tests.kube.conftest import Server
from tests.kube.programs import program
from tests.kube.stores.conftest import Opener
from tests.stores import histories

from faultline.api.experiment import Experiment
from faultline.api.kinds import KINDS
from faultline.api.run import Run
from faultline.errors import FaultlineError, InvalidDocument, Refused, UnknownName
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Object
from faultline.kubeapi.plain import Plain
from faultline.stores import kube_cache, kube_series
from faultline.stores.kube import KubeStore
from faultline.stores.kube_calls import Patient, Where, kind_of, translate
from faultline.stores.kube_documents import FENCE, HOLDER
from faultline.stores.kube_leases import LEASES
from faultline.stores.kube_series import CONFIGMAPS, OF
from faultline.stores.model import Exists, Expired, Fenced, Filter, Stale, StoreFailed
from faultline.stores.opening import open_store

pytestmark = pytest.mark.needs_apiserver
RUN = kind_of(Run)


@pytest.fixture
def raw(defined: Server) -> Iterator[Client]:
    """The server as everybody else uses it."""
    with closing(defined.client()) as client:
        yield client


def seconds(run: Run, count: int) -> Run:
    """The same run after so many seconds."""
    status = run.status.model_copy(deep=False)
    probes = [each.model_copy() for each in status.probes]
    for probe in probes:
        have = len(probe.samples)
        probe.samples = [*probe.samples, *(histories.sample(n) for n in range(have, count))]
    traffic = [each.model_copy() for each in status.traffic]
    for each in traffic:
        have = len(each.seconds)
        each.seconds = [*each.seconds, *(histories.second(n) for n in range(have, count))]
    changed = {"probes": probes, "traffic": traffic, "clock_ns": count}
    return run.model_copy(update={"status": status.model_copy(update=changed)})


# ---------------------------------------------------------------------- series


def test_three_hours_of_series_stay_small_objects_and_come_back_complete(
    opener: Opener, raw: Client, namespace: str
) -> None:
    writer, reader = opener(), opener()
    writer.create(histories.run("long", seconds=0, ended=False))
    (claimed,) = writer.claim(Run, 1, "engine", 600)
    run, before = claimed.resource, writer.requests
    for count in range(240, 3 * 3600 + 1, 240):
        run = writer.write_status(seconds(run, count))
    assert (writer.requests - before) / 45 < 6, "requests for each write of four minutes"
    begun = time.monotonic()
    found = reader.get(Run, "long")
    took = time.monotonic() - begun
    assert found.status == run.status
    assert len(found.status.probes[0].samples) == 3 * 3600
    parts = list(raw.every(CONFIGMAPS, namespace, OF))
    sizes = [sum(map(len, part["data"].values())) for part in parts]
    assert max(sizes) < 600_000
    assert len(parts) < 20
    owners = {part["metadata"]["ownerReferences"][0]["name"] for part in parts}
    assert owners == {"long"}
    assert took < 20


def test_new_entries_are_written_later_than_the_status_and_known_here_at_once(
    fresh: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_series, "FLUSH", 60.0)
    writer, reader = fresh(), fresh()
    writer.create(histories.run("one", seconds=0, ended=False))
    (claimed,) = writer.claim(Run, 1, "engine", 600)
    run = writer.write_status(seconds(claimed.resource, 5))
    assert writer.get(Run, "one") == run
    assert reader.get(Run, "one").status.probes[0].samples == []
    monkeypatch.setattr(kube_series, "FLUSH", 0.2)
    until = time.monotonic() + 20
    run = writer.write_status(seconds(run, 6))
    while reader.get(Run, "one").status != run.status:
        assert time.monotonic() < until, "it was never written"
        time.sleep(0.1)
    monkeypatch.setattr(kube_series, "FLUSH", 60.0)
    ended = run.status.model_copy(update={"ended": 1.0})
    run = writer.write_status(seconds(run.model_copy(update={"status": ended}), 9))
    assert reader.get(Run, "one").status == run.status, "all is there when it has ended"


def test_whoever_was_overtaken_adds_nothing_to_the_series(
    fresh: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_series, "FLUSH", 60.0)
    old, new = fresh(), fresh()
    old.create(histories.run("one", seconds=0, ended=False))
    (claimed,) = old.claim(Run, 1, "old", 0.1)
    run = old.write_status(seconds(claimed.resource, 5))
    old.flusher.close()  # five seconds are there
    old.write_status(seconds(run, 9))  # four more wait, and it stands still
    while not (taken := new.claim(Run, 1, "new", 60)):
        time.sleep(0.02)
    now = taken[0].resource
    assert len(now.status.probes[0].samples) == 5
    now = new.write_status(seconds(now, 6))
    new.flusher.close()
    old.flusher.close()
    assert new.get(Run, "one").status == now.status
    assert fresh().get(Run, "one").status == now.status


# ---------------------------------------------------------------------- others


def test_what_others_put_at_an_object_stays(store: KubeStore, raw: Client, namespace: str) -> None:
    made = store.create(histories.run("one", ended=False))
    theirs = {"metadata": {
        "finalizers": ["example.com/hold"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "y"}],
    }}  # fmt: skip
    raw.patch(RUN, "one", theirs, namespace=namespace)
    read = store.get(Run, "one")
    spec = read.spec.model_copy(update={"abort": "enough"})
    notes = read.metadata.model_copy(update={"annotations": {"a/b": "c", "no key": "text"}})
    told = store.update(read.model_copy(update={"spec": spec, "metadata": notes}))
    assert told.metadata.annotations == {"a/b": "c", "no key": "text"}
    assert told.spec.abort == "enough"
    assert told.status == made.status
    found = raw.get(RUN, "one", namespace)["metadata"]
    assert found["finalizers"] == ["example.com/hold"]
    assert found["ownerReferences"][0]["name"] == "x"
    store.delete(Run, "one")
    assert store.get(Run, "one").metadata.uid == made.metadata.uid, "its finalizer keeps it"
    raw.patch(RUN, "one", {"metadata": {"finalizers": None}}, namespace=namespace)
    with pytest.raises(UnknownName):
        store.get(Run, "one")


def test_a_spec_that_was_written_by_hand_stays_as_it_was_written(
    store: KubeStore, raw: Client, namespace: str
) -> None:
    spec = {"experiment": "e", "resolved": histories.SPEC}
    by_hand = {**_header("Run", "one"), "spec": spec}
    raw.create(RUN, by_hand, namespace)
    read = store.get(Run, "one")
    store.update(read.model_copy(update={"spec": read.spec.model_copy(update={"pause": "wait"})}))
    assert raw.get(RUN, "one", namespace)["spec"] == {**spec, "pause": "wait"}


def _header(kind: str, name: str) -> Object:
    return {"apiVersion": "faultline.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}


@pytest.mark.parametrize("cached", [False, True], ids=["asked", "told"])
def test_what_our_models_refuse_is_left_out_and_told(
    opener: Opener, raw: Client, namespace: str, cached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = opener(cached=cached)
    store.create(histories.run("good", ended=False))
    mixed = {**histories.SPEC["probes"][0], "url": "http://of-another-type/"}
    wrong = {"experiment": "e", "resolved": {**histories.SPEC, "probes": [mixed]}}
    raw.create(RUN, {**_header("Run", "wrong"), "spec": wrong}, namespace)
    until = time.monotonic() + 20
    while len(store.summaries(Run)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert [run.metadata.name for run in store.list(Run)] == ["good"]
    assert "probes.0.url" in caplog.text
    with pytest.raises(InvalidDocument, match=r"probes\.0\.url"):
        store.get(Run, "wrong")
    (claimed,) = store.claim(Run, 9, "engine", 60)
    assert claimed.lease.name == "good"
    told = raw.get(RUN, "wrong", namespace)["status"]
    assert (told["phase"], told["verdict"]) == ("ended", "error")
    assert "probes.0.url" in told["reason"]
    assert [each.name for each in store.summaries(Run, Filter(ended=False))] == ["good"]


def test_kubectl_shows_who_carries_out_what(
    store: KubeStore, defined: Server, namespace: str
) -> None:
    store.create(histories.run("one", ended=False))
    (claimed,) = store.claim(Run, 1, "host:1:ab", 60)
    options = (f"--kubeconfig={defined.kubeconfig()}", "-n", namespace, "-o", "name")
    words = [program("kubectl"), "get", "lease", *options]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert said.startswith("lease.coordination.k8s.io/host-1-ab-")
    store.release(claimed.lease)
    store.close()
    assert not subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_a_lack_of_rights_names_the_right(opener: Opener) -> None:
    nobody = opener("nobody-token")
    with pytest.raises(Refused) as caught:
        nobody.summaries(Run)
    assert "missing is the right to list runs in namespace" in caught.value.hint
    with pytest.raises(Refused, match="cannot list"):
        opener("nobody-token", cached=True).summaries(Run)


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


def test_what_was_made_by_hand_has_no_status_and_is_pending(
    store: KubeStore, raw: Client, namespace: str
) -> None:
    spec = {"title": "T", "hypothesis": {"text": "it holds", "probes": ["up"]},
            "probes": [{"name": "up", "type": "tcp", "host": "::1", "port": 1}]}  # fmt: skip
    raw.create(kind_of(Experiment), {**_header("Experiment", "e"), "spec": spec}, namespace)
    run = {"experiment": "e", "resolved": spec}
    raw.create(RUN, {**_header("Run", "r"), "spec": run}, namespace)
    assert [each.name for each in store.summaries(Run, Filter(phases=("pending",)))] == ["r"]
    found = store.get(Experiment, "e")
    assert found.metadata.name == "e"
    assert found.metadata.generation == 1
