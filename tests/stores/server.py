"""A PostgreSQL server of our own: data in a folder that goes with it, reached by a unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Self

START = 60.0  # seconds on a busy machine
_USERS = ("postgres", "nobody")  # who runs it when we are root, which it refuses to be
_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@cache
def program(name: str) -> str:
    """Where a program of PostgreSQL is; empty if it is not installed."""
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(packaged[-1]) if packaged else "")


def missing() -> str:
    """Why there can be no server here; empty if there can."""
    if not (program("initdb") and program("postgres")):
        return "needs PostgreSQL: install postgresql"
    return ""


class Server:
    """Runs from construction to `close`. With `durable` off it may lose data with the machine."""

    def __init__(self, *, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="faultline-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = next(each for each in _USERS if _known(each))
            who = pwd.getpwnam(user)
            os.chown(self.folder, who.pw_uid, who.pw_gid)
            self._as = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
        # Not our environment: whoever looks for processes of a test run must not find it.
        self._as |= {"env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, "cwd": self.folder}
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        words = ["-U", "faultline", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        subprocess.run(
            [program("initdb"), "-D", str(self._data), *words],
            check=True, capture_output=True, **self._as,
        )  # fmt: skip
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "dynamic_shared_memory_type": "mmap",
            "max_connections": "200",
            **({} if durable else _QUICK),
        }
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        words = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", str(self._data), *words],
                stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        import psycopg

        until = time.monotonic() + START
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it at once in good order, SIGQUIT as a crash would."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(START)

    def close(self) -> None:
        self.stop(signal.SIGQUIT)  # nobody needs what it would still write
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def url(self, database: str) -> str:
        return f"postgresql://faultline@/{database}?host={self.folder}"

    def database(self, template: str = "template1") -> str:
        """The URL of a new database."""
        self._count += 1
        name = f"d{self._count}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            found = connection.execute(statement)  # pyright: ignore[reportArgumentType]
            return found.fetchall() if found.description else []


def _known(user: str) -> bool:
    return any(each.pw_name == user for each in pwd.getpwall())
