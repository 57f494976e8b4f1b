"""SQL against a real PostgreSQL, and against SQLite over SQLAlchemy."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.traffic.harness import turns, users
from tests.traffic.servers import free_port, program, serving

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("sqlalchemy")

NOBODY = "nobody"  # the server refuses to run as root
FOLDERS = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A PostgreSQL that wants a password of everybody."""
    initdb = program("initdb", "postgresql", *FOLDERS)
    server = program("postgres", "postgresql", *FOLDERS)
    user = NOBODY if os.geteuid() == 0 else ""
    with tempfile.TemporaryDirectory(prefix="faultline-pg-", dir="/tmp") as name:
        folder, number = Path(name), free_port()
        if user:
            shutil.chown(folder, user)
        secret = folder / "secret"
        secret.write_text("open-sesame")
        secret.chmod(0o644)
        words = [initdb, "-D", f"{name}/data", "-U", "me", "-A", "scram-sha-256", "--no-sync"]
        subprocess.run(
            [*words, f"--pwfile={secret}", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, user=user or None, cwd=name,
        )  # fmt: skip
        settings = ["-c", "fsync=off", "-c", "max_connections=30", "-k", name, "-h", "127.0.0.1"]
        words = [server, "-D", f"{name}/data", "-p", str(number), *settings]
        with serving(words, number, folder / "log", user, signal.SIGINT):
            _answers(number)
            yield number


def _answers(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="me", password="open-sesame",
                            dbname="postgres").close()  # fmt: skip
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    with psycopg.connect(
        host="127.0.0.1", port=port, user="me", password="open-sesame", dbname="postgres",
        autocommit=True,
    ) as found:  # fmt: skip
        found.execute("drop table if exists cart")
        found.execute("create table cart (id bigint primary key, what text)")
        yield found


@pytest.fixture
def sql(port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SESAME", "open-sesame")

    def make(*statements: dict[str, Any], **fields: Any) -> dict[str, Any]:
        url = f"postgresql://me@127.0.0.1:{port}/postgres"
        given = {"type": "sql", "url": url, "password": {"env": "SESAME"}}
        return {**given, "statements": list(statements), **fields}

    return make


INSERT = {
    "name": "put",
    "sql": "insert into cart values (:id, :what || ' 100%'::text)",
    "params": {"id": "{{number}}", "what": "{{word}}"},
}
FEED = {"rows": [{"word": "tea"}, {"word": "it's; drop table cart"}]}


def test_a_turn_is_all_statements_with_its_parameters(sql: Any, client: Any) -> None:
    read = {"sql": "select what from cart where id = :id", "params": {"id": "{{number}}"}}
    tick = turns(sql(INSERT, read, feed=FEED), 4)
    assert (tick.sent, tick.ok, tick.errors) == (8, 8, {})
    assert {name: part.ok for name, part in tick.parts.items()} == {"put": 4, "SELECT 2": 4}
    rows = client.execute("select id, what from cart order by id").fetchall()
    assert rows[:2] == [(0, "tea 100%"), (1, "it's; drop table cart 100%")]
    assert len(rows) == 4


def test_a_transaction_is_committed_or_not_at_all(sql: Any, client: Any) -> None:
    tick = turns(sql(INSERT, transaction=True, feed=FEED), 3)
    assert {name: part.ok for name, part in tick.parts.items()} == {"put": 3, "commit": 3}
    assert client.execute("select count(*) from cart").fetchone() == (3,)
    once = {"sql": "insert into cart values (100, 'x')"}
    tick = turns(sql(once, INSERT, transaction=True, feed=FEED, connections=1), 2, apart=True)
    assert tick.errors == {"UniqueViolation": 2}
    assert client.execute("select count(*) from cart where id = 100").fetchone() == (0,)


def test_how_postgresql_fails_has_a_name(
    sql: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "guess")
    one = {"sql": "select 1"}
    cases = [
        (sql({"sql": "selec 1"}), "SyntaxError"),
        (sql({"sql": "select 1/0"}), "DivisionByZero"),
        (sql(one, url=f"postgresql://me@127.0.0.1:{free_port()}/x"), "refused"),
        (sql(one, password={"env": "WRONG"}), "login refused"),
        (sql(one, url="postgresql://me@no-such-host.invalid/x"), "name not found"),
    ]
    for data, kind in cases:
        assert turns(data, 1).errors == {kind: 1}, data


def test_a_statement_that_hangs_is_left_behind_at_its_timeout(sql: Any, client: Any) -> None:
    slow = sql({"sql": "select pg_sleep(20)"}, timeout="200ms", connections=1)
    tick = turns(slow, 2)
    assert tick.errors == {"timeout": 2}
    # A server that does not even answer a request to cancel, as while its processes are stopped.
    (pid,) = client.execute("select pg_backend_pid()").fetchone()
    with psycopg.connect(client.info.dsn, password="open-sesame") as other:
        other.execute("insert into cart values (1, 'locked')")
        waits = sql({"sql": "insert into cart values (1, 'x')"}, timeout="200ms", connections=1)
        assert turns(waits, 2).errors == {"timeout": 2}
    assert pid


def test_a_server_that_is_stopped_shows_as_timeouts_and_comes_back(sql: Any, client: Any) -> None:
    pids = [row[0] for row in client.execute("select pid from pg_stat_activity").fetchall()]
    assert pids
    one = sql({"sql": "select 1"}, timeout="200ms")
    parent = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGSTOP)
    try:
        assert turns(one, 3).errors == {"timeout": 3}
    finally:
        os.kill(parent, signal.SIGCONT)
    assert turns(one, 3).ok == 3


def test_users_keep_to_so_many_connections(sql: Any, client: Any) -> None:
    count = {"sql": "select count(*) from pg_stat_activity where application_name = 'faultline'"}
    tick = users({**sql(count, connections=2), "concurrency": 6}, 0.3)
    assert tick.ok == tick.sent > 6
    deadline = time.monotonic() + 5  # the server ends its side a moment later
    while client.execute(count["sql"]).fetchone() != (0,):
        assert time.monotonic() < deadline, "all are closed at the end"
        time.sleep(0.02)


def test_any_other_database_by_sqlalchemy(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("create table cart (id integer primary key, what text)")
    given = {"type": "sql", "url": f"sqlite:///{path}", "feed": FEED, "connections": 2}
    put = {"sql": "insert into cart values (:id, :what)", "params": INSERT["params"]}
    assert turns({**given, "statements": [put]}, 4).ok == 4
    both = [put, {"sql": "select * from cart"}]
    tick = turns({**given, "statements": both, "transaction": True}, 2)
    assert tick.errors == {"IntegrityError": 2}
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("select count(*) from cart").fetchone() == (4,)
        made.execute("begin exclusive")
        tick = turns({**given, "statements": [put], "timeout": "200ms"}, 2)
        assert tick.errors == {"timeout": 2}
