"""Commands of Redis against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.traffic.harness import turns, users
from tests.traffic.servers import free_port, program, serving

redis_py = pytest.importorskip("redis")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server = program("redis-server", "redis-server")
    folder, number = tmp_path_factory.mktemp("redis"), free_port()
    words = [server, "--port", str(number), "--bind", "127.0.0.1", "--dir", str(folder)]
    users = "user shop on >open-sesame ~* +@all"
    config = folder / "redis.conf"
    config.write_text(f'save ""\nappendonly no\n{users}\n')
    words = [server, str(config), *words[1:], "--unixsocket", str(folder / "socket")]
    with serving(words, number, folder / "log"):
        yield number


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    with redis_py.Redis(port=port) as found:
        found.flushall()
        yield found


def redis(port: int, *commands: list[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "redis", "port": port, "commands": list(commands), **fields}


def test_commands_take_turns_and_are_counted_apart(port: int, client: Any) -> None:
    tick = turns(redis(port, ["SET", "k:{{number}}", "{{uuid}}"], ["GET", "k:{{number}}"]), 6)
    assert (tick.sent, tick.ok, tick.errors) == (6, 6, {})
    assert {name: part.ok for name, part in tick.parts.items()} == {"SET": 3, "GET": 3}
    assert len(client.keys()) == 3


def test_a_pipeline_is_one_request(port: int, client: Any) -> None:
    tick = turns(redis(port, ["INCR", "a"], ["INCRBY", "b", 2], pipeline=10), 5)
    assert (tick.sent, tick.ok, tick.parts) == (5, 5, {})
    assert (client.get("a"), client.get("b")) == (b"25", b"50")


def test_users_share_no_connection_and_a_row_feeds_each_turn(port: int, client: Any) -> None:
    feed = {"rows": [{"word": "a"}, {"word": "b"}], "order": "unique"}
    tick = users({**redis(port, ["INCR", "{{word}}"], feed=feed), "concurrency": 2}, 5)
    assert (tick.sent, client.get("a"), client.get("b")) == (2, b"1", b"1")


def test_how_redis_fails_has_a_name(
    port: int, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.set("text", "x")
    monkeypatch.setenv("SESAME", "not it")
    cases = [
        (redis(port, ["LPUSH", "text", "y"]), "WRONGTYPE"),
        (redis(port, ["LPUSH", "text", "y"], pipeline=3), "WRONGTYPE"),
        (redis(port, ["NO-SUCH"]), "ERR"),
        (redis(free_port(), ["PING"]), "refused"),
        (redis(port, ["BLPOP", "nothing", "1"], timeout="100ms"), "timeout"),
        (redis(port, ["PING"], user="shop", password={"env": "SESAME"}), "login refused"),
    ]
    for data, kind in cases:
        assert turns(data, 2).errors == {kind: 2}, data


def test_a_password_is_read_where_it_is_needed(port: int, client: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open-sesame\n")
    password = {"file": str(tmp_path / "secret")}
    tick = turns(redis(port, ["ACL", "WHOAMI"], user="shop", password=password))
    assert (tick.ok, tick.errors) == (5, {})


def test_a_socket_and_a_bound_of_connections(port: int, client: Any) -> None:
    path = client.config_get("unixsocket")["unixsocket"]
    before = client.info("stats")["total_connections_received"]
    tick = turns(redis(port, ["PING"], host=path, connections=2), 20)
    assert tick.ok == 20
    assert client.info("stats")["total_connections_received"] - before == 2
