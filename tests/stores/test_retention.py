"""What is kept of runs, and for how long; runs in files."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores import histories

from faultline.api.model import Metadata
from faultline.api.run import Run
from faultline.errors import InvalidDocument, UsageError
from faultline.stores import archive, retention
from faultline.stores.model import Filter, Store, Summary
from faultline.stores.opening import open_store
from faultline.stores.retention import Retention

DAY = 86400.0
NOW = 100 * DAY
ENDINGS = [
    "tar.gz",
    pytest.param("tar.zst", marks=pytest.mark.skipif(not shutil.which("zstd"), reason="no zstd")),
]


def summary(number: int, age: float | None, experiment: str, verdict: str) -> Summary:
    ended = None if age is None else NOW - age
    created = NOW - (age or 0) - 60
    return Summary(
        "Run", f"r{number}", str(number), 1, created, created, ended, experiment, "me",
        "ended", verdict, "", {},
    )  # fmt: skip


RUNS = st.lists(
    st.tuples(
        st.none() | st.floats(0, 90 * DAY),
        st.sampled_from("ab"),
        st.sampled_from(["held", "broke", "error"]),
    ),
    max_size=12,
).map(lambda given: [summary(number, *each) for number, each in enumerate(given)])
POLICY = st.builds(
    Retention,
    keep=st.none() | st.integers(0, 4),
    older_than=st.none() | st.floats(0, 90 * DAY),
    keep_failed=st.none() | st.floats(0, 90 * DAY),
)


@given(runs=RUNS, policy=POLICY)
def test_only_what_no_rule_keeps_goes_and_never_before_it_has_ended(
    runs: list[Summary], policy: Retention
) -> None:
    gone = policy.surplus(runs, NOW)
    assert all(each.ended is not None for each in gone)
    if policy.keep is None and policy.older_than is None:
        assert gone == []
    for each in runs:
        newer = [
            other
            for other in runs
            if other.ended is not None
            and other.experiment == each.experiment
            and (other.created, other.name) > (each.created, each.name)
        ]
        age = NOW - (each.ended or NOW)
        if policy.keep is not None and len(newer) < policy.keep:
            assert each not in gone
        if policy.older_than is not None and age < policy.older_than:
            assert each not in gone
        if each.verdict != "held" and policy.keep_failed is not None and age < policy.keep_failed:
            assert each not in gone
        if policy.keep == 0 and policy.older_than is None and policy.keep_failed is None:
            assert (each in gone) == (each.ended is not None)


def test_what_somebody_wrote_meanwhile_stays(store: Store) -> None:
    made = [store.create(histories.run(f"r{index}", index)) for index in range(3)]
    store.create(histories.run("going", ended=False))
    chosen = retention.surplus(store, Retention(keep=0), histories.BEGAN + 9 * DAY)
    assert {each.name for each in chosen} == {"r0", "r1", "r2"}
    store.update(made[1].model_copy(update={"metadata": _labelled(made[1], note="mine")}))
    assert {each.name for each in retention.remove(store, chosen)} == {"r0", "r2"}
    assert {each.name for each in store.summaries("Run")} == {"r1", "going"}


def _labelled(run: Run, **labels: str) -> Metadata:
    return run.metadata.model_copy(update={"labels": {**run.metadata.labels, **labels}})


@pytest.mark.parametrize("ending", ENDINGS)
def test_runs_come_back_from_a_file_as_they_were(store: Store, tmp_path: Path, ending: str) -> None:
    made = [store.create(histories.run(f"r{index}", index, 150)) for index in range(3)]
    file = tmp_path / f"old.{ending}"
    assert archive.write(store, ["r0", "r1", "r2"], file) == 3
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="there already"):
        archive.write(store, ["r0"], file)
    store.delete("Run", "r0")
    store.delete("Run", "r1")
    store.create(histories.run("r1"))
    found = archive.load(store, file)
    assert (found.added, found.taken, found.present) == (["r0"], ["r1"], ["r2"])
    again = store.get(Run, "r0")
    assert (again.spec, again.status) == (made[0].spec, made[0].status)
    assert again.metadata.uid == made[0].metadata.uid
    assert again.metadata.creation_timestamp == made[0].metadata.creation_timestamp
    with open_store(tmp_path / "other.db") as other:
        assert archive.load(other, file).added == ["r0", "r1", "r2"]
        assert other.count("Run", Filter(labels={"team": "team-1"})) == 1


def test_a_run_that_has_not_ended_goes_into_no_file_and_comes_from_none(
    store: Store, tmp_path: Path
) -> None:
    made = store.create(histories.run("going", ended=False))
    with pytest.raises(UsageError, match="has not ended"):
        archive.write(store, ["going"], tmp_path / "old.tar.gz")
    assert list(tmp_path.glob("*old*")) == [], "nothing half-written is left"
    file = _packed(tmp_path, {"runs/x.json": made.to_json(), "archive.json": {"format": 1}})
    with pytest.raises(InvalidDocument, match="has not ended"):
        archive.load(store, file)


def _packed(folder: Path, documents: dict[str, object]) -> Path:
    file = folder / "made.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        for name, data in documents.items():
            text = json.dumps(data).encode()
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return file


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"runs/x.json": {"kind": "Run"}}, "not valid"),
        ({"runs/x.json": []}, "not valid"),
        ({"archive.json": {"format": 2}}, "another format"),
        ({}, "not complete"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(
    store: Store, tmp_path: Path, content: dict[str, object], why: str
) -> None:
    with pytest.raises(InvalidDocument, match=why):
        archive.load(store, _packed(tmp_path, content))


def test_a_file_that_is_cut_or_nothing_at_all_is_refused(store: Store, tmp_path: Path) -> None:
    store.create(histories.run("one", 0, 500))
    file = tmp_path / "whole.tar.gz"
    archive.write(store, ["one"], file)
    for number, data in enumerate((file.read_bytes()[:-200], b"", b"x", gzip.compress(b"x" * 9))):
        other = tmp_path / f"{number}.tar.gz"
        other.write_bytes(data)
        with pytest.raises(InvalidDocument):
            archive.load(store, other)
    with pytest.raises(UsageError, match="ends in none"):
        archive.load(store, tmp_path / "x.zip")


def test_a_link_in_a_file_leads_nowhere(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "link.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        info = tarfile.TarInfo("runs/x.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(InvalidDocument, match="no document of ours"):
        archive.load(store, file)
