"""sql against a real PostgreSQL and real SQLite files."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultline.api.probe import Measurement

pytest.importorskip("sqlalchemy", reason="needs SQLAlchemy")

Measure = Callable[..., Measurement]


@pytest.fixture(scope="module")
def shop(postgres: Any) -> Any:
    pytest.importorskip("psycopg", reason="needs psycopg")
    postgres.run(
        "CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric(12,2))",
        "INSERT INTO account SELECT n, 'o' || n, n FROM generate_series(1, 100) n",
        "CREATE FUNCTION waste() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO account VALUES (0, 'x', 0); RETURN 1; END $$",
    )
    return postgres


def test_a_query_gives_its_number_and_its_row(
    measure: Measure, shop: Any, password: dict[str, str]
) -> None:
    query = (
        "SELECT 'it' AS what, sum(balance) AS total, now() AS at, '{\"a\": 1}'::json AS j, '100%'"
    )
    found = measure("sql", url=shop.url, password=password, query=query + " FROM account")
    assert found.ok is True, found.text
    assert found.value == 5050
    assert found.result["row"]["total"] == 5050
    assert found.result["row"]["j"] == {"a": 1}
    assert found.text == "total is 5050"


def test_a_column_can_be_named(measure: Measure, shop: Any, password: dict[str, str]) -> None:
    query = "SELECT 1 AS a, 2.5 AS b"
    fields = {"url": shop.url, "password": password, "query": query}
    assert measure("sql", **fields, column="b").value == 2.5
    found = measure("sql", **fields, column="c")
    assert (found.ok, found.value) == (None, None)
    assert "no column 'c': a, b" in found.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1 WHERE false", "no row"),
        ("SELECT generate_series(1, 100000000)", "more than one row"),
        ("SELECT nothing FROM nowhere", "nowhere"),
        ("DELETE FROM account", "read-only"),
        ("SELECT waste()", "read-only"),
        ("SET application_name = 'x'", "no row"),
    ],
)
def test_a_query_that_is_wrong_is_unmeasured(
    measure: Measure, shop: Any, password: dict[str, str], query: str, said: str
) -> None:
    found = measure("sql", url=shop.url, password=password, query=query, timeout="20s")
    assert found.ok is None
    assert said in found.text
    again = measure("sql", url=shop.url, password=password, query="SELECT count(*) FROM account")
    assert again.value == 100


def test_what_is_no_select_is_asked_too(
    measure: Measure, shop: Any, password: dict[str, str]
) -> None:
    found = measure("sql", url=shop.url, password=password, query="SHOW port", column="port")
    assert found.result["row"] == {"port": str(shop.port)}
    assert (found.ok, found.value) == (True, None)  # a text; an expression may judge it


def test_a_query_ends_at_its_limit_in_the_database_too(
    measure: Measure, shop: Any, password: dict[str, str]
) -> None:
    begun = time.monotonic()
    query = "SELECT pg_sleep(30), 1"
    found = measure("sql", url=shop.url, password=password, query=query, timeout="700ms")
    assert found.ok is False
    assert time.monotonic() - begun < 10
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%'"
    deadline = time.monotonic() + 10
    while measure(
        "sql", url=shop.url, password=password, query=running + " AND pid <> pg_backend_pid()"
    ).value:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_wrong_password_and_a_dead_server_are_the_service_failing(
    measure: Measure, shop: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "very wrong")
    found = measure("sql", url=shop.url, password={"env": "WRONG"}, query="SELECT 1")
    assert found.ok is False
    assert "password authentication failed" in found.text
    assert "very wrong" not in found.text
    url = f"postgresql://owner@127.0.0.1:{closed_port}/postgres"
    found = measure("sql", url=url, query="SELECT 1")
    assert found.ok is False
    assert "refused" in found.text


def test_a_secret_that_is_not_there_is_unmeasured(measure: Measure, shop: Any) -> None:
    found = measure("sql", url=shop.url, password={"env": "NOT_THERE"}, query="SELECT 1")
    assert found.ok is None
    assert "NOT_THERE" in found.text


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as made:
        made.executescript("CREATE TABLE t (n int); INSERT INTO t VALUES (3), (4)")
    made.close()
    return path


def test_sqlite_is_asked_and_never_written(measure: Measure, database: Path) -> None:
    url = f"sqlite:///{database}"
    assert measure("sql", url=url, query="SELECT sum(n) FROM t").value == 7
    found = measure("sql", url=url, query="DELETE FROM t RETURNING n")
    assert found.ok is None
    assert "readonly" in found.text
    assert measure("sql", url=url, query="SELECT count(*) FROM t").value == 2
    assert measure("sql", url=url, query="SELECT no FROM t").ok is None


def test_sqlite_makes_no_file(measure: Measure, tmp_path: Path) -> None:
    found = measure("sql", url=f"sqlite:///{tmp_path / 'no.db'}", query="SELECT 1")
    assert found.ok is False
    assert list(tmp_path.iterdir()) == []


def test_sqlite_ends_at_the_limit(measure: Measure, database: Path) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
    begun, before = time.monotonic(), threading.active_count()
    found = measure("sql", url=f"sqlite:///{database}", query=endless, timeout="300ms")
    assert found.ok is False
    assert time.monotonic() - begun < 5
    deadline = time.monotonic() + 5
    while threading.active_count() > before:  # the query itself is ended, not only left
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_sqlalchemy_does_not_know_is_unmeasured(measure: Measure) -> None:
    assert measure("sql", url="nothing://host/db", query="SELECT 1").ok is None
    found = measure("sql", url="mssql+pyodbc://host/db", query="SELECT 1")
    assert found.ok is None
    assert "pyodbc" in found.text
