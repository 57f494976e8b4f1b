"""What every store must do; a new database is added to STORES in conftest.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stores import histories

from faultline.api.fault import Fault
from faultline.api.model import Metadata
from faultline.api.probe import Measurement, Probe, TcpProbe
from faultline.api.run import Run
from faultline.api.targets import AimedFaultSpec
from faultline.errors import Conflict, UnknownName, UsageError
from faultline.stores.model import Claimed, Exists, Expired, Fenced, Filter, Stale, Store
from faultline.stores.renewal import Renewal


def fault(name: str, text: str = "a", **labels: str) -> Fault:
    spec = AimedFaultSpec(fault="network.delay", params={"latency": "1ms", "interface": text})
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
    assert 0 < made.metadata.resource_version <= store.version()
    assert made.metadata.generation == 1
    assert int(before) <= made.metadata.creation_timestamp <= time.time()  # or in whole seconds
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


def test_what_is_made_because_of_another_is_not_made_once_that_was_written(store: Store) -> None:
    read = store.create(fault("one"))
    store.create(fault("two"), given=read)
    store.update(read.model_copy(update={"spec": fault("x", "b").spec}))
    with pytest.raises(Stale):
        store.create(fault("three"), given=read)
    store.create(fault("three"), given=store.get(Fault, "one"))


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


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    params=st.dictionaries(st.text(), JSON, max_size=3),
    labels=st.dictionaries(st.text(), st.text()),
)
def test_any_document_comes_back_equal(
    store: Store, params: dict[str, object], labels: dict[str, str]
) -> None:
    spec = AimedFaultSpec(fault="network.delay", params=params)
    made = store.create(Fault(metadata=Metadata(name="x", labels=labels), spec=spec))
    try:
        assert store.get(Fault, "x") == made
        assert made.spec == spec
        assert made.metadata.labels == labels
    finally:
        store.delete(Fault, "x")


def test_a_light_watcher_is_told_without_the_document(store: Store) -> None:
    store.create(histories.run("one"))
    (event,) = store.watch(0, "Run", timeout=0, light=True)
    assert (event.type, event.name, event.resource) == ("put", "one", None)


# ---------------------------------------------------------------------- summaries


def test_a_summary_tells_what_the_document_does(store: Store) -> None:
    made = store.create(histories.run("one", 8, ended=False))
    assert store.summaries(Run)[0].ended is None
    done = store.write_status(made.model_copy(update={"status": histories.run("one", 8).status}))
    (told,) = store.summaries("Run")
    assert (told.name, told.uid, told.version) == (
        "one", done.metadata.uid, done.metadata.resource_version,
    )  # fmt: skip
    assert told.created == done.metadata.creation_timestamp
    assert (told.experiment, told.creator) == (done.spec.experiment, done.spec.creator)
    assert (told.phase, told.verdict) == (done.status.phase, done.status.verdict)
    assert (told.started, told.ended) == (done.status.started, done.status.ended)
    assert (told.reason, told.labels) == (done.status.reason, done.metadata.labels)
    store.update(
        done.model_copy(
            update={"metadata": done.metadata.model_copy(update={"labels": {"a": "b"}})}
        )
    )
    assert store.summaries("Run", Filter(labels={"a": "b"}))[0].reason == done.status.reason
    assert store.count("Run", Filter(labels={"team": "team-1"})) == 0
    store.delete(Run, "one")
    assert store.summaries("Run") == []


FILTERS: list[Filter] = [
    Filter(labels={"team": "team-3"}),
    Filter(labels={"team": "team-3", "experiment": "experiment-0"}),
    Filter(experiments=("experiment-1", "experiment-2")),
    Filter(creators=("person-1",), verdicts=("broke", "error")),
    Filter(phases=("wait",)),
    Filter(names=("run-3", "run-5", "none")),
    Filter(ended=False),
    Filter(ended=True, text="NUMBER 7"),
    Filter(text="100%_"),
    Filter(text="team-6"),
    Filter(text="Straße"),
    Filter(since=0.0, until=1.0),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=range(len(FILTERS)))
def test_filters_find_what_the_documents_say_in_pages(store: Store, wanted: Filter) -> None:
    fill(store)
    check_filter(store, wanted, store.list(Run))


def fill(store: Store) -> None:
    """Runs of which each filter finds some."""
    for index in range(30):
        store.create(histories.run(f"run-{index}", index, 2, ended=index % 4 != 0))
    odd = histories.run("odd", 1, 2)
    odd.status.reason = "the STRASSE had 100%_ of it\0"
    store.create(odd)


def check_filter(store: Store, wanted: Filter, runs: list[Run]) -> None:
    """What is found of these is what they say, at once and in pages."""
    found = [each.name for each in store.summaries(Run, wanted)]
    assert found == [run.metadata.name for run in runs if _matches(wanted, run)]
    assert store.count(Run, wanted) == len(found)
    paged: list[str] = []
    cursor = ""
    while page := store.summaries(Run, wanted, 4, cursor):
        paged += [each.name for each in page]
        cursor = page[-1].cursor
    assert paged == found


def _matches(where: Filter, run: Run) -> bool:
    status, meta = run.status, run.metadata
    words = [meta.name, run.spec.experiment, run.spec.creator, status.reason, str(status.verdict)]
    words += [*meta.labels, *meta.labels.values()]
    return (
        where.labels.items() <= meta.labels.items()
        and (not where.names or meta.name in where.names)
        and (not where.experiments or run.spec.experiment in where.experiments)
        and (not where.creators or run.spec.creator in where.creators)
        and (not where.phases or status.phase in where.phases)
        and (not where.verdicts or status.verdict in where.verdicts)
        and (where.since is None or meta.creation_timestamp >= where.since)
        and (where.until is None or meta.creation_timestamp < where.until)
        and (where.ended is None or (status.ended is not None) is where.ended)
        and any(where.text.casefold() in word.casefold() for word in words)
    )


def test_a_cursor_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="cursor"):
        store.summaries(Run, after="yesterday")


def test_a_restored_run_keeps_its_uid_and_time(store: Store) -> None:
    made = store.create(histories.run("one"))
    store.delete(Run, "one")
    again = store.restore(made)
    assert again.metadata.uid == made.metadata.uid
    assert again.metadata.creation_timestamp == made.metadata.creation_timestamp
    assert again.status == made.status
    with pytest.raises(Exists):
        store.restore(made)


# ---------------------------------------------------------------------- leases


def test_what_is_claimed_is_not_claimed_again_until_it_is_let_go(
    store: Store, opener: Callable[[], Store]
) -> None:
    other = opener()
    for index in range(5):
        store.create(histories.run(f"run-{index}", ended=index == 0))
    mine = store.claim(Run, 2, "a", 60)
    assert [each.resource.metadata.name for each in mine] == ["run-1", "run-2"]
    assert all(each.lease.sure and each.lease.fence == 1 for each in mine)
    theirs = other.claim(Run, 9, "b", 60)
    assert [each.resource.metadata.name for each in theirs] == ["run-3", "run-4"]
    assert other.claim(Run, 9, "b", 60) == []
    store.release(mine[0].lease)
    (again,) = other.claim(Run, 9, "b", 60, Filter(names=("run-1", "run-2")))
    assert (again.lease.name, again.lease.fence) == ("run-1", 2)
    store.release(mine[0].lease)  # is not ours any more: nothing happens
    assert other.renew([again.lease], 60) != []


def test_a_lease_that_ran_out_goes_to_the_next_and_its_writer_is_refused(
    store: Store, opener: Callable[[], Store]
) -> None:
    other = opener()
    store.create(histories.run("one", ended=False))
    (old,) = store.claim(Run, 1, "a", 0.05)
    store.write_status(old.resource)
    time.sleep(0.06)
    assert not old.lease.sure
    new = taken_over(other, "b")
    assert new.lease.fence > old.lease.fence
    assert store.renew([old.lease], 60) == []
    now = store.get(Run, "one")
    for late in (lambda: store.write_status(now), lambda: other.write_status(now, fence=1)):
        with pytest.raises(Fenced, match="taken over by b"):
            late()
    written = other.write_status(now)
    assert other.write_status(written, fence=new.lease.fence).status == now.status


def taken_over(store: Store, holder: str) -> Claimed[Run]:
    """Where others are watched for whether they live, that takes as long as their lease lasts."""
    until = time.monotonic() + 10
    while not (taken := store.claim(Run, 1, holder, 60)):
        assert time.monotonic() < until, "it is never free"
        time.sleep(0.01)
    return taken[0]


def test_a_renewed_lease_lasts(store: Store, opener: Callable[[], Store]) -> None:
    store.create(histories.run("one", ended=False))
    (mine,) = store.claim(Run, 1, "a", 0.05)
    (kept,) = store.renew([mine.lease], 60)
    time.sleep(0.06)
    assert kept.sure
    assert opener().claim(Run, 1, "b", 60) == []


def test_leases_are_kept_by_a_thread_and_let_go_at_its_end(
    store: Store, opener: Callable[[], Store]
) -> None:
    store.create(histories.run("one", ended=False))
    keeping, other = Renewal(store, ttl=1.0), Renewal(opener(), ttl=1.0)
    keeping.take(Run, "one")
    time.sleep(1.4)
    with pytest.raises(Conflict, match="another engine"):
        other.take(Run, "one")
    with pytest.raises(UnknownName):
        other.take(Run, "none")
    keeping.close()
    assert other.take(Run, "one").lease.fence == 2
    other.close()
