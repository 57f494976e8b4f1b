"""The file that is a halt: who may write it, what it says, and that being there is enough."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command import SOURCES

from faultline.changes import halt
from faultline.changes.store import Store
from faultline.errors import Halted, UsageError

SILENT = "no reason given"


def test_nothing_is_halted_by_itself(store: Store) -> None:
    assert halt.standing(store) == []
    halt.check(store)
    assert halt.lift(store) == []


def test_a_file_that_somebody_touched_is_a_halt(store: Store) -> None:
    store.halt.touch()
    with pytest.raises(Halted, match=SILENT) as raised:
        halt.check(store)
    assert raised.value.hint == "lift it: faultline halt --lift"
    assert raised.value.exit_code == 3
    store.halt.write_text("the database is being moved\n")
    found = halt.current(store)
    assert found is not None
    assert found.why == "the database is being moved"
    assert str(store.halt) in str(found)


def test_a_refusal_names_who_when_why_and_how_to_lift_it(store: Store) -> None:
    halt.at_once(store, "incident 42", by="alice")
    with pytest.raises(Halted, match=r"incident 42 \(alice, 20\d\d-.*halt\)") as raised:
        halt.check(store)
    assert "faultline halt --lift" in raised.value.hint
    assert halt.lift(store) == [store.run / "halt"]
    halt.check(store)


def test_it_stands_in_memory_at_once_and_for_good_afterwards(store: Store) -> None:
    assert not halt.lasting(store)
    halt.at_once(store, "now")
    assert not halt.lasting(store), "what is in memory is gone with the next boot"
    halt.for_good(store, "now")
    assert halt.lasting(store)
    assert [each.path for each in halt.standing(store)] == [store.halt, store.run / "halt"]
    assert stat.S_IMODE(store.halt.stat().st_mode) == 0o600
    assert halt.lift(store) == [store.halt, store.run / "halt"]


def test_a_new_reason_replaces_the_old_one_and_none_keeps_it(store: Store) -> None:
    for why in ("a long reason of several words", "short", ""):
        halt.for_good(store, why)
    found = halt.current(store)
    assert found is not None
    assert found.why == "short"


def test_a_full_disk_keeps_the_reason_away_and_not_the_halt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        halt.for_good(store, "full")
    with pytest.raises(Halted, match=SILENT):
        halt.check(store)


def test_where_memory_cannot_be_written_the_lasting_file_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Path, *rest: int) -> int:
        if Path(path).parent == store.run:
            raise OSError(28, "No space left on device")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert halt.at_once(store, "x") == store.halt


def test_what_it_says_cannot_steer_a_terminal(store: Store) -> None:
    store.halt.write_bytes(b"\x1b[2Jgone\x07\nby: a\x1b]0;b\xff\n" + b"x" * 5000)
    found = halt.current(store)
    assert found is not None
    assert str(found).isprintable()
    assert found.why == "[2Jgone"


@pytest.mark.needs_root
def test_a_file_of_somebody_else_does_not_count_and_is_named(store: Store) -> None:
    store.halt.touch()
    os.chown(store.halt, 65534, 65534)
    halt.check(store)
    assert halt.ignored(store) == [f"{store.halt} is owned by user 65534"]


def test_a_link_is_a_halt_and_is_not_followed(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    store.halt.symlink_to(secret)
    with pytest.raises(Halted, match=SILENT):
        halt.check(store)
    with pytest.raises(OSError, match="symbolic link"):
        halt.for_good(store, "overwritten")
    assert secret.read_text() == "a secret"


def test_the_whole_host_is_halted_in_the_first_place_that_can_be_written(
    store: Store, tmp_path: Path
) -> None:
    assert halt.host("all of it") == tmp_path / "etc" / "halt"
    found = halt.current(store)
    assert found is not None
    assert found.host
    assert found.how_to_lift == "lift it: faultline halt --lift --host"
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o644
    assert halt.lift(store) == []
    with pytest.raises(Halted):
        halt.check(store)
    assert halt.lift(store, whole_host=True) == [found.path]
    (tmp_path / "etc").rmdir()
    (tmp_path / "etc").write_text("no folder: nothing can be written there")
    assert halt.host("again") == tmp_path / "host" / "halt"
    assert stat.S_IMODE((tmp_path / "host").stat().st_mode) == 0o711
    (tmp_path / "host" / "halt").unlink()
    (tmp_path / "host").rmdir()
    (tmp_path / "host").touch()
    with pytest.raises(UsageError, match="the host cannot be halted"):
        halt.host("never")


HOST = """
import subprocess, sys
from faultline.kernel import syscalls
syscalls.unshare(syscalls.Namespace.MOUNT)
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
for folder in ("/etc", "/run"):
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
def said(*words):
    done = subprocess.run([sys.executable, "-m", "faultline.cli.main", *words],
                          capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
print(said("halt", "--host", "--reason", "an audit"))
print(said("halt", "--lift"))
print(said("inject", "file", "add", "--path", sys.argv[1]))
print(said("halt", "--lift", "--host"))
print(said("halt", "--status"))
"""


@pytest.mark.needs_root
def test_a_halt_of_the_host_holds_in_every_store_until_the_host_is_lifted(tmp_path: Path) -> None:
    """With the real paths, in a mount namespace where /etc and /run are empty."""
    env = {**os.environ, "PYTHONPATH": str(SOURCES), "FAULTLINE_STATE": str(tmp_path / "state")}
    done = subprocess.run([sys.executable, "-c", HOST, str(tmp_path / "made")], env=env,
                          capture_output=True, text=True, check=True)  # fmt: skip
    halted, lifted, refused, host, status = map(eval, done.stdout.splitlines())
    assert halted[0] == 0, halted
    assert lifted[0] == 0
    assert "still halted: an audit" in lifted[1]
    assert "--lift --host" in lifted[1]
    assert refused[0] == 3
    assert "everything is halted: an audit" in refused[1]
    assert "/etc/faultline/halt" in refused[1]
    assert host == (0, "lifted\n")
    assert status == (0, "not halted\n")
    assert not (tmp_path / "made").exists()
