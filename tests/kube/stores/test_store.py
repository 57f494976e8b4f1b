"""What is special to a store in a cluster: others write there too, and the server is far away."""

from __future__ import annotations

import subprocess
import time

import pytest
from tests.kube.conftest import Server
from tests.kube.programs import program
from tests.kube.stores.conftest import Opener
from tests.stores import histories

from faultline.api.experiment import Experiment
from faultline.api.run import Run
from faultline.errors import InvalidDocument, Refused, UnknownName
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object
from faultline.stores import kube_flushing
from faultline.stores.kube import KubeStore
from faultline.stores.kube_calls import kind_of
from faultline.stores.kube_series import CONFIGMAPS, OF
from faultline.stores.model import Filter

pytestmark = pytest.mark.needs_apiserver
RUN = kind_of(Run)


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
    monkeypatch.setattr(kube_flushing, "FLUSH", 60.0)
    writer, reader = fresh(), fresh()
    writer.create(histories.run("one", seconds=0, ended=False))
    (claimed,) = writer.claim(Run, 1, "engine", 600)
    run = writer.write_status(seconds(claimed.resource, 5))
    assert writer.get(Run, "one") == run
    assert reader.get(Run, "one").status.probes[0].samples == []
    monkeypatch.setattr(kube_flushing, "FLUSH", 0.2)
    until = time.monotonic() + 20
    run = writer.write_status(seconds(run, 6))
    while reader.get(Run, "one").status != run.status:
        assert time.monotonic() < until, "it was never written"
        time.sleep(0.1)
    monkeypatch.setattr(kube_flushing, "FLUSH", 60.0)
    ended = run.status.model_copy(update={"ended": 1.0})
    run = writer.write_status(seconds(run.model_copy(update={"status": ended}), 9))
    assert reader.get(Run, "one").status == run.status, "all is there when it has ended"


def test_whoever_lets_go_leaves_all_that_was_measured(
    fresh: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_flushing, "FLUSH", 60.0)
    one, other = fresh(), fresh()
    one.create(histories.run("one", seconds=0, ended=False))
    (claimed,) = one.claim(Run, 1, "one", 60)
    run = one.write_status(seconds(claimed.resource, 5))
    one.release(claimed.lease)
    (taken,) = other.claim(Run, 1, "other", 60)
    assert taken.resource.status == run.status


def test_whoever_was_overtaken_adds_nothing_to_the_series(
    fresh: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_flushing, "FLUSH", 60.0)
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
