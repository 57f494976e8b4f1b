"""Name resolution that goes wrong, and what is left of it when others edit the same files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import edits, keepers
from faultline.changes.model import End
from faultline.errors import InvalidParameter, Refused
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import syscalls
from faultline.units import Duration

HOSTS = "127.0.0.1\tlocalhost\n::1  localhost ip6\n198.51.100.7   db.example.test   db # main\n"
RESOLVER = (
    "search example.test\nnameserver 198.51.100.53\nnameserver 198.51.100.54\noptions ndots:2\n"
)


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    path = tmp_path / "etc"
    path.mkdir()
    (path / "hosts").write_text(HOSTS)
    (path / "resolv.conf").write_text(RESOLVER)
    return path


def record(path: Path, **params: Any) -> Order:
    return Order("dns.record", {"path": str(path), **params}, Duration.parse("60s"))


def server(path: Path, **params: Any) -> Order:
    return Order("dns.server", {"path": str(path), **params}, Duration.parse("60s"))


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("new.test", "192.0.2.1", "192.0.2.1\tnew.test # faultline\n" + HOSTS),
        (
            "DB",
            "192.0.2.1,2001:db8::1",
            "192.0.2.1\tDB # faultline\n2001:db8::1\tDB # faultline\n"
            + HOSTS.replace("   db #", " #"),
        ),
        ("localhost", "", "::1 ip6\n198.51.100.7   db.example.test   db # main\n"),
    ],
)
def test_names_are_put_into_the_table_and_out_of_it(host, address, expected):
    spec = {"hosts": {"names": [host], "addresses": address.split(",") if address else []}}
    assert edits.edited(spec, HOSTS.encode()).decode() == expected.replace("::1 ip6", "::1 ip6")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("replace", ["192.0.2.53"]),
        ("add", ["192.0.2.53", "198.51.100.53", "198.51.100.54"]),
    ],
)
def test_servers_are_replaced_or_preceded(mode, expected):
    spec = {"servers": {"mode": mode, "addresses": ["192.0.2.53"]}}
    made = edits.edited(spec, RESOLVER.encode())
    assert edits.servers_of(made) == expected
    assert made.splitlines()[-1] == b"options ndots:2"


def test_a_file_without_an_end_of_line_is_not_run_together():
    spec = {"servers": {"mode": "replace", "addresses": ["192.0.2.53"]}}
    assert edits.edited(spec, b"search a") == b"search a\nnameserver 192.0.2.53\n"


def test_the_same_inode_is_changed_and_put_back(injector, etc):
    hosts = etc / "hosts"
    before = hosts.stat()
    held = hosts.open()  # as a file that is mounted alone, it is known by its inode only
    with held:
        made = injector.inject(record(hosts, host="db.example.test", address="192.0.2.9"))
        assert "192.0.2.9\tdb.example.test" in held.read()
        assert injector.observe(made.uid).effect is Effect.EFFECTIVE
        ended = injector.recover(made.uid)
        assert ended.end is End.RECOVERED, ended.steps
    after = hosts.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert hosts.read_text() == HOSTS
    assert injector.residue(made.uid) == []


def test_lines_that_others_add_stay_also_right_beside_ours(injector, etc):
    hosts = etc / "hosts"
    made = injector.inject(record(hosts, host="db", address="192.0.2.9"))
    first, rest = hosts.read_text().split("\n", 1)
    hosts.write_text(f"10.0.0.1 before\n{first}\n10.0.0.2 behind\n{rest}10.0.0.3 last\n")
    assert injector.recover(made.uid).end is End.RECOVERED
    left = hosts.read_text()
    assert "192.0.2.9" not in left
    assert edits.addresses_of(left.encode(), "db") == ["198.51.100.7"]
    for name in ("before", "behind", "last"):
        assert edits.addresses_of(left.encode(), name)


def test_a_resolver_that_was_written_anew_is_left_alone(injector, etc):
    path = etc / "resolv.conf"
    made = injector.inject(server(path, server="192.0.2.53"))
    path.write_text("nameserver 203.0.113.1\n")
    reading = injector.observe(made.uid)
    assert reading.effect is Effect.INEFFECTIVE
    assert injector.recover(made.uid).end is End.RECOVERED
    assert path.read_text() == "nameserver 203.0.113.1\n"
    assert not list(etc.glob(".faultline-*"))


def test_a_link_at_the_usual_place_is_followed_and_a_missing_file_is_made(injector, etc):
    real = etc / "stub.conf"
    real.write_text(RESOLVER)
    (etc / "link.conf").symlink_to("stub.conf")
    made = injector.inject(server(etc / "link.conf", server="192.0.2.53", mode="add"))
    assert edits.servers_of(real.read_bytes())[0] == "192.0.2.53"
    assert injector.recover(made.uid).end is End.RECOVERED
    assert real.read_text() == RESOLVER
    assert (etc / "link.conf").is_symlink()
    made = injector.inject(record(etc / "none", host="db", address="192.0.2.9"))
    assert injector.observe(made.uid).effect is Effect.EFFECTIVE
    assert injector.recover(made.uid).end is End.RECOVERED
    assert not (etc / "none").exists()


def test_what_cannot_be_is_refused(injector, etc):
    for bad in (
        record(etc / "hosts", host="db"),
        record(etc / "hosts", host="db", address="1.2.3"),
        record(etc / "hosts", host="a b", address="192.0.2.1"),
        record(etc / "hosts", host="db", address="192.0.2.1", mode="remove"),
        server(etc / "resolv.conf", server="a.example"),
        server(etc / "resolv.conf", server="192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4"),
    ):
        with pytest.raises(InvalidParameter):
            injector.plan(bad)
    with pytest.raises(Refused, match="nothing in it would change"):
        injector.inject(record(etc / "hosts", host="not.there", mode="remove"))


_PROGRAM = """
import socket, sys
print(*sorted({each[4][0] for each in socket.getaddrinfo(sys.argv[1], None)}))
"""


def _ask(name: str) -> str:
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.mark.needs_root
def test_a_fresh_program_is_told_the_wrong_address(tmp_path):
    """In a mount namespace of its own with a table of its own, as in a container."""
    (tmp_path / "hosts").write_text(HOSTS)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _with_own_hosts(tmp_path)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "hosts").read_text() == HOSTS


def _with_own_hosts(folder: Path) -> int:
    syscalls.unshare(syscalls.Namespace.MOUNT)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(folder / "hosts"), "/etc/hosts"], check=True)
    with Injector(folder / "store") as injector:
        order = record(Path("/etc/hosts"), host="db.example.test", address="192.0.2.9")
        before = _ask("db.example.test")
        made = injector.inject(order)
        during, reading = _ask("db.example.test"), injector.observe(made.uid)
        end = injector.recover(made.uid).end
        after = _ask("db.example.test")
        keepers.retire(injector.store)
    told = (before, during, after)
    right = told == ("198.51.100.7", "192.0.2.9", "198.51.100.7")
    right = right and reading.effect is Effect.EFFECTIVE and end is End.RECOVERED
    if not right:
        print(told, reading, end, file=sys.stderr)
    return 0 if right else 1
