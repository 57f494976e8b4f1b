"""Who may call, and where the engine listens at all."""

from __future__ import annotations

import http.client
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.server.conftest import Client, Served

from faultline.errors import InvalidParameter, Refused, UsageError
from faultline.server import access, protocol


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.com:80", "127.0.0.1", "127.0.0.1:x", ":80",
     "127.0.0.1:65536", "unix:", "unix:/" + "x" * 200, "", "tcp:127.0.0.1:80"],
)  # fmt: skip
def test_nothing_that_others_could_reach_is_listened_at(text: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        access.address(text)
    assert refused.value.exit_code == 2


def test_what_may_be_listened_at() -> None:
    assert str(access.address("unix:/run/x.sock")) == "unix:/run/x.sock"
    assert str(access.address("localhost:80")) == "http://127.0.0.1:80"
    assert str(access.address("[::1]:80")) == "http://[::1]:80"


# ----------------------------------------------------------------------------------- unix socket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_socket_is_its_owners_alone_and_goes_with_its_engine(folder: Path) -> None:
    file = folder / "new" / "engine.sock"
    with access.unix_socket(file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        with pytest.raises(Refused, match=r"use|already"), access.unix_socket(file):
            pass
    assert not file.exists()


DEAD = """
import os, signal, sys
from pathlib import Path
from faultline.server import access
with access.unix_socket(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_socket_of_a_dead_engine_is_replaced(folder: Path) -> None:
    file = folder / "engine.sock"
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-c", DEAD, str(file)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert stat.S_ISSOCK(file.stat().st_mode)
    with access.unix_socket(file), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(file))


def test_what_is_no_socket_of_a_dead_engine_is_left_alone(folder: Path) -> None:
    file = folder / "engine.sock"
    file.write_text("precious")
    with pytest.raises(Refused), access.unix_socket(file):
        pass
    assert file.read_text() == "precious"
    with socket.socket(socket.AF_UNIX) as somebody:
        somebody.bind(str(folder / "other.sock"))
        somebody.listen()
        with pytest.raises(Refused, match="already"), access.unix_socket(folder / "other.sock"):
            pass


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_no_socket_where_others_can_write(folder: Path, mode: int) -> None:
    below = folder / "below"
    below.mkdir()
    below.chmod(mode)
    with pytest.raises(Refused, match="others"), access.unix_socket(below / "engine.sock"):
        pass


def test_other_users_are_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "peer", lambda _connection: 4711)
    with pytest.raises((http.client.HTTPException, OSError)):
        served.unix("GET", "/health")
    monkeypatch.undo()
    assert served.unix("GET", "/health").status == 200


# -------------------------------------------------------------------------------------- loopback


def test_without_the_token_nothing_is_answered_but_that_it_is_there(served: Served) -> None:
    nobody = Client(served.loopback.where)
    for method, path in (("GET", "/runs"), ("POST", "/halt"), ("GET", "/openapi.json")):
        answer = nobody(method, path)
        assert (answer.status, answer.json()["code"]) == (401, "no-token")
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer x", "Bearer ", f"Basic {served.loopback.token}", "Bearer \xfc"):
        assert nobody("GET", "/runs", authorization=wrong).status == 401
    assert served.loopback("GET", "/runs").status == 200
    assert nobody("GET", "/health").status == 200


def test_pages_in_browsers_get_nothing(served: Served) -> None:
    for client in (served.loopback, served.unix):
        assert client("GET", "/runs", origin="http://localhost").status == 403
        assert client("GET", "/runs", sec_fetch_mode="no-cors").status == 403
    for host in ("evil.example", "evil.example:80", "10.0.0.1", "127.0.0.1.evil.example", ""):
        answer = served.loopback("GET", "/health", host=host)
        assert answer.status == 403, host
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert served.loopback("GET", "/runs", host=host).status == 200


def test_a_token_is_made_once_and_kept_from_others(folder: Path) -> None:
    file = folder / "token"
    made = access.token(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(made) >= 43
    assert access.token(file) == made
    file.chmod(0o640)
    with pytest.raises(Refused, match="others"):
        access.token(file)
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(UsageError, match="short"):
        access.token(file)
    (folder / "link").symlink_to(file)
    with pytest.raises(UsageError):
        access.token(folder / "link")


# ------------------------------------------------------------------------------------- time-outs


def _dribbled(client: Client, text: bytes) -> bytes:
    connection = client.connection()
    connection.connect()
    with connection.sock:
        connection.sock.sendall(text)
        return connection.sock.recv(65536)


def test_who_does_not_finish_is_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from faultline.server import gate

    monkeypatch.setattr(protocol, "PATIENCE", 0.3)
    monkeypatch.setattr(gate, "PATIENCE", 0.3)
    assert _dribbled(served.unix, b"GET /v1/hea") == b""
    head = b"POST /v1/plan HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{"
    assert b" 408 " in _dribbled(served.unix, head)
    assert served.unix("GET", "/health").status == 200


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(filter(None, sys.path))
        return subprocess.run(
            [sys.executable, "-m", "faultline.cli.main", "engine", *words],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    return call


WITHOUT = """
import sys
sys.modules["fastapi"] = None
sys.argv = ["faultline", "engine", "--listen", "unix:" + sys.argv[1]]
from faultline.cli.main import main
main()
"""


def test_without_its_packages_it_says_which_extra_has_them(folder: Path) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(folder / "x.sock")], timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 7, done
    assert "faultline[engine]" in done.stderr
    assert not (folder / "x.sock").exists()


def test_the_command_refuses_to_be_open(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = command("--listen", "0.0.0.0:8080")
    assert done.returncode == 2
    assert "--listen" in done.stderr
