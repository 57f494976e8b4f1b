"""What every store must do; a new implementation is added to STORES in conftest.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faultline.api.experiment import FaultSpec
from faultline.api.model import Metadata
from faultline.api.probe import Measurement, Probe, TcpProbe
from faultline.api.run import Fault
from faultline.errors import UnknownName
from faultline.stores.model import Exists, Expired, Stale, Store


def fault(name: str, text: str = "a", **labels: str) -> Fault:
    spec = FaultSpec(fault="network.delay", params={"latency": "1ms", "interface": text})
    return Fault(metadata=Metadata(name=name, labels=labels), spec=spec)


def probe(name: str) -> Probe:
    return Probe(
        metadata=Metadata(name=name), spec=TcpProbe(type="tcp", name=name, host="::1", port=1)
    )


def test_what_is_created_is_read_back_with_uid_version_generation_and_time(store: Store) -> None:
    before = time.time()
    made = store.create(fault("one", zone="a"))
    assert made == store.get(Fault, "one")
    assert made.metadata.uid
    assert made.metadata.resource_version == store.version() > 0
    assert made.metadata.generation == 1
    assert before <= made.metadata.creation_timestamp <= time.time()
    assert made.metadata.labels == {"zone": "a"}


def test_a_name_is_taken_once_per_kind(store: Store) -> None:
    store.create(fault("one"))
    with pytest.raises(Exists, match="Fault 'one'"):
        store.create(fault("one"))
    store.create(probe("one"))


def test_what_is_not_there_is_an_unknown_name(store: Store) -> None:
    with pytest.raises(UnknownName):
        store.get(Fault, "none")
    with pytest.raises(UnknownName):
        store.delete(Fault, "none")
    with pytest.raises(UnknownName):
        store.update(fault("none"))


def test_a_write_with_an_old_version_is_refused_and_changes_nothing(store: Store) -> None:
    first = store.create(fault("one"))
    second = store.update(first.model_copy(update={"spec": fault("x", "b").spec}))
    for write in (store.update, store.write_status):
        with pytest.raises(Stale) as caught:
            write(first)
        assert caught.value.retry
    assert store.get(Fault, "one") == second


def test_a_resource_made_anew_is_not_written_by_who_read_the_old_one(store: Store) -> None:
    old = store.create(fault("one"))
    store.delete(Fault, "one")
    store.create(fault("one"))
    with pytest.raises(Stale):
        store.update(old)


def test_the_generation_counts_changes_of_the_spec_alone(store: Store) -> None:
    made = store.create(fault("one"))
    same = store.update(made)
    assert same.metadata.generation == 1
    changed = store.update(same.model_copy(update={"spec": fault("x", "b").spec}))
    assert changed.metadata.generation == 2


def test_status_and_spec_are_written_apart(store: Store) -> None:
    made = store.create(probe("one"))
    other = probe("two").spec
    measured = store.write_status(
        made.model_copy(update={"status": Measurement(value=1.5, ok=True), "spec": other})
    )
    assert measured.spec == made.spec, "a status write must not change the spec"
    moved = store.update(measured.model_copy(update={"status": None, "spec": other}))
    assert moved.status == Measurement(value=1.5, ok=True), "a spec write must not touch the status"
    assert moved.spec == other


def test_lists_are_newest_first_filtered_by_labels_and_limited(store: Store) -> None:
    for index in range(5):
        store.create(fault(f"f{index}", parity=str(index % 2), index=str(index)))
    store.create(probe("other"))
    assert [one.metadata.name for one in store.list(Fault)] == ["f4", "f3", "f2", "f1", "f0"]
    assert [f.metadata.name for f in store.list(Fault, {"parity": "0"}, 2)] == ["f4", "f2"]
    assert store.list(Fault, {"parity": "0", "index": "1"}) == []


def test_deleting_with_a_version_needs_the_present_one(store: Store) -> None:
    made = store.create(fault("one"))
    with pytest.raises(Stale):
        store.delete(Fault, "one", made.metadata.resource_version + 1)
    store.delete(Fault, "one", made.metadata.resource_version)
    assert store.list(Fault) == []


def test_a_watcher_sees_changes_in_order_from_any_version(store: Store) -> None:
    start = store.version()
    first = store.create(fault("one"))
    store.create(probe("p"))
    store.delete(Probe, "p")
    seen = list(store.watch(start, timeout=0))
    assert [(e.type, e.kind, e.name) for e in seen] == [
        ("put", "Fault", "one"),
        ("deleted", "Probe", "p"),
    ]
    assert seen[0].resource == first
    assert [e.version for e in seen] == sorted(e.version for e in seen)
    assert list(store.watch(seen[-1].version, timeout=0)) == []
    assert [e.name for e in store.watch(start, Fault, timeout=0)] == ["one"]


def test_a_watcher_wakes_for_a_write_of_another_connection(
    store: Store, opener: Callable[[], Store]
) -> None:
    other = opener()
    writer = threading.Timer(0.1, lambda: other.create(fault("late")))
    writer.start()
    try:
        event = next(store.watch(store.version(), timeout=30))
    finally:
        writer.join()
        other.close()
    assert event.name == "late"


def test_a_watcher_that_is_too_far_behind_is_told_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faultline.stores.sql.KEPT_DELETIONS", 3)
    start = store.version()
    for _ in range(5):
        store.create(fault("one"))
        store.delete(Fault, "one")
    with pytest.raises(Expired):
        next(store.watch(start, timeout=0))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    params=st.dictionaries(st.text(), JSON, max_size=3),
    labels=st.dictionaries(st.text(), st.text()),
)
def test_any_document_comes_back_equal(
    store: Store, params: dict[str, object], labels: dict[str, str]
) -> None:
    spec = FaultSpec(fault="network.delay", params=params)
    made = store.create(Fault(metadata=Metadata(name="x", labels=labels), spec=spec))
    try:
        assert store.get(Fault, "x") == made
        assert made.spec == spec
        assert made.metadata.labels == labels
    finally:
        store.delete(Fault, "x")
