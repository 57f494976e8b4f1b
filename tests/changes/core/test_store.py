"""A store is used only if nobody else could have written what it makes us do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.changes import store
from faultline.changes.journal import Journal
from faultline.errors import UntrustedStore

NOBODY = 65534
pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(0o700)
    return made


def _loose(folder: Path) -> None:
    folder.chmod(0o777)


def _group(folder: Path) -> None:
    folder.chmod(0o770)


def _sticky(folder: Path) -> None:
    folder.chmod(0o1777)


def _foreign(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)


def _loose_parent(folder: Path) -> None:
    folder.parent.chmod(0o777)


def _foreign_parent(folder: Path) -> None:
    os.chown(folder.parent, NOBODY, NOBODY)


def _link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _foreign_journal(folder: Path) -> None:
    path = folder / "journal.db"
    path.touch(0o600)
    os.chown(path, NOBODY, NOBODY)


def _loose_journal(folder: Path) -> None:
    path = folder / "journal.db-wal"
    path.touch()
    path.chmod(0o666)


def _linked_journal(folder: Path) -> None:
    (folder / "journal.db").symlink_to(folder / "other.db")


SPOILT = [
    _loose, _group, _sticky, _foreign, _loose_parent, _foreign_parent, _link,
    _foreign_journal, _loose_journal, _linked_journal,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_others_could_have_written_is_refused_whatever_the_environment_says(
    spoil: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(folder)
    monkeypatch.setenv(store.ENVIRONMENT, str(folder))
    with pytest.raises(UntrustedStore):
        store.open_store()
    assert UntrustedStore.exit_code == 3


def test_a_link_above_it_that_leads_to_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "state").mkdir(parents=True, mode=0o700)
    os.chown(theirs, NOBODY, NOBODY)
    (tmp_path / "way").symlink_to(theirs)
    with pytest.raises(UntrustedStore, match="theirs is owned by user"):
        store.open_store(tmp_path / "way" / "state")


def test_a_sticky_parent_such_as_tmp_is_accepted(tmp_path: Path) -> None:
    parent = tmp_path / "shared"
    parent.mkdir()
    parent.chmod(0o1777)
    assert store.open_store(parent / "state").state.is_dir()


def test_what_is_made_is_ours_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = store.open_store(tmp_path / "deep" / "er" / "state")
        with Journal(made) as journal:
            journal.grow()
    finally:
        os.umask(before)
    for path in (tmp_path / "deep", tmp_path / "deep" / "er", made.state, made.run, made.journal):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert store.open_store(made.state) == made


def test_the_environment_names_the_store_and_root_has_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(store.ENVIRONMENT, str(tmp_path / "named"))
    assert store.default_state() == tmp_path / "named"
    monkeypatch.delenv(store.ENVIRONMENT)
    assert store.default_state() == Path("/var/lib/faultline")


def test_two_stores_share_neither_locks_nor_sockets(tmp_path: Path) -> None:
    one, two = store.open_store(tmp_path / "one"), store.open_store(tmp_path / "two")
    assert one.run != two.run
    assert len(os.fsencode(one.socket("a"))) < 108  # the room in a socket's address, unix(7)
