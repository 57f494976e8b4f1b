"""One schema, whoever made it: the store itself or Alembic, on SQLite or on PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.stores import histories
from tests.stores.server import Server

from faultline.api.fault import Fault
from faultline.api.model import Metadata
from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidDocument
from faultline.stores import schema
from faultline.stores.model import Filter
from faultline.stores.opening import open_store

sa = pytest.importorskip("sqlalchemy", reason="needs the extra: faultline[sql]")
pytest.importorskip("alembic")

KEYS = {
    "resources": ["kind", "name"],
    "summaries": ["kind", "name"],
    "labels": ["kind", "label", "value", "name"],
    "series": ["kind", "name", "path", "part"],
    "leases": ["kind", "name"],
    "deletions": ["version"],
    "counter": ["only"],
    "horizon": ["only"],
}
OLD = """
CREATE TABLE resources (
    kind TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
    version INTEGER NOT NULL, generation INTEGER NOT NULL, created REAL NOT NULL,
    metadata TEXT NOT NULL, spec TEXT NOT NULL, status TEXT,
    PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE UNIQUE INDEX resources_version ON resources (version);
CREATE INDEX resources_created ON resources (kind, created DESC, name DESC);
CREATE TABLE deletions (version INTEGER PRIMARY KEY, kind TEXT, name TEXT);
CREATE TABLE counter (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER);
CREATE TABLE horizon (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER);
PRAGMA user_version = 1;
"""  # as the first version of the product made it


def shape(engine: Any) -> dict[str, Any]:
    """Tables with their columns and keys, and the indexes, in words that databases share."""
    looked = sa.inspect(engine)
    words = {"TEXT": "text", "INTEGER": "int", "BIGINT": "int", "REAL": "real"}
    found: dict[str, Any] = {}
    for table in sorted(set(looked.get_table_names()) - {"alembic_version"}):
        columns = {
            each["name"]: (
                words.get(str(each["type"]).split(" ", maxsplit=1)[0], "real"),
                each["nullable"] and each["name"] not in KEYS[table],
            )
            for each in looked.get_columns(table)
        }
        indexes = {
            (each["name"], tuple(each["column_names"]), bool(each["unique"]))
            for each in looked.get_indexes(table)
        }
        key = looked.get_pk_constraint(table)["constrained_columns"]
        found[table] = (columns, key, sorted(indexes))
    return found


def engine_of(where: str) -> Any:
    if where.startswith("/"):
        return sa.create_engine(f"sqlite:///{where}")
    return sa.create_engine(where.replace("postgresql://", "postgresql+psycopg://"))


def migrated(engine: Any, target: str) -> None:
    from faultline.stores import postgres

    step = postgres.downgrade if target in ("base", "1") else postgres.upgrade
    with engine.begin() as connection:
        step(connection, target)


def test_the_store_and_alembic_make_the_same_schema(tmp_path: Path, postgres: Server) -> None:
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    open_store(ours).close()
    shapes: list[dict[str, Any]] = []
    for where in (str(ours), str(theirs), postgres.database("template0"), postgres.database()):
        engine = engine_of(where)
        if where != str(ours):
            migrated(engine, "head")
        shapes.append(shape(engine))
        engine.dispose()
    assert all(each == shapes[0] for each in shapes)
    assert {table: key for table, (_, key, _) in shapes[0].items()} == KEYS
    assert open_store(theirs).summaries("Run") == []


def test_every_migration_goes_down_and_up_again(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if where.startswith("/"):
        engine = engine_of(where)
        migrated(engine, "head")
    else:
        engine = engine_of(where)
    before = shape(engine)
    with open_store(where) as store:
        made = store.write_status(store.create(histories.run("one", 0)))
        whole = store.get(type(made), "one")
        told = store.summaries("Run")
    migrated(engine, "1")
    assert "series" not in shape(engine)
    migrated(engine, "head")
    assert shape(engine) == before
    with open_store(where) as store:
        assert store.get(type(made), "one") == whole
        assert store.summaries("Run") == told
        assert [each.lease.fence for each in store.claim(type(made), 9, "me", 9)] == []
    migrated(engine, "base")
    assert shape(engine) == {}
    engine.dispose()


def test_the_number_of_the_newest_schema_is_that_of_the_migrations() -> None:
    assert len(schema.NAMES) == schema.HEAD
    numbers = [int(each.revision) for each in schema.revisions()]
    assert numbers == list(range(1, schema.HEAD + 1))


def old_file(path: Path, count: int = 3) -> list[Any]:
    """A file of schema 1 with runs in it, as they were when the series lay in the status."""
    import json

    runs = [histories.run(f"run-{index}", index) for index in range(count)]
    with sqlite3.connect(path) as db:
        db.executescript(OLD)
        for index, run in enumerate(runs, 1):
            data = run.to_json()
            meta = {"labels": run.metadata.labels, "annotations": {}}
            db.execute(
                "INSERT INTO resources VALUES ('Run', ?, ?, ?, 1, ?, ?, ?, ?)",
                (run.metadata.name, f"uid{index}", index, 1000.0 + index, json.dumps(meta),
                 json.dumps(data["spec"]), json.dumps(data["status"])),
            )  # fmt: skip
        db.execute("INSERT INTO counter VALUES (1, ?)", (count,))
        db.execute("INSERT INTO horizon VALUES (1, 0)")
    db.close()
    path.chmod(0o600)
    return runs


def test_a_file_of_the_first_schema_is_taken_over_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "resources.db"
    runs = old_file(path)
    with open_store(path) as store:
        assert [each.name for each in store.summaries("Run")] == ["run-2", "run-1", "run-0"]
        assert store.version() == len(runs)
        for run in runs:
            read = store.get(type(run), run.metadata.name)
            assert (read.spec, read.status) == (run.spec, run.status)
            assert read.metadata.labels == run.metadata.labels
            told = store.summaries("Run", Filter(names=(run.metadata.name,)))[0]
            assert (told.phase, told.verdict) == (run.status.phase, run.status.verdict or "")
            assert told.ended == run.status.ended
        first = store.get(type(runs[0]), "run-0")
        assert store.write_status(first).status == first.status
        assert store.get(type(runs[0]), "run-0").status == first.status
        store.delete("Run", "run-1")
        assert store.count("Run") == len(runs) - 1
    with open_store(path) as store:
        assert store.count("Run") == len(runs) - 1


def test_a_server_of_a_newer_schema_is_refused(postgres: Server) -> None:
    url = postgres.database()
    postgres.ask("UPDATE alembic_version SET version_num = '99'", url.split("/")[3].split("?")[0])
    with pytest.raises(InvalidDocument, match="schema 99"):
        open_store(url)


def test_two_that_come_first_make_one_schema(postgres: Server) -> None:
    import threading

    url = postgres.database("template0")
    failed: list[BaseException] = []

    def come() -> None:
        try:
            with open_store(url) as store:
                spec = AimedFaultSpec(fault="file.add", params={})
                name = f"by-{threading.get_native_id()}"
                store.create(Fault(metadata=Metadata(name=name), spec=spec))
        except BaseException as error:  # noqa: BLE001 (told below)
            failed.append(error)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with open_store(url) as store:
        assert store.count("Fault") == len(threads)
