"""A store of its own for each test, whose keepers end with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command import Cli

from faultline.changes import halt, keepers
from faultline.changes.store import Store, open_store
from faultline.injection.recovery import Recovery
from faultline.kernel import link, netns
from faultline.kernel.netlink import Netlink


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Folders only; the files for the whole host lie in the test's own folder."""
    monkeypatch.setattr(halt, "HOST", (tmp_path / "etc" / "halt", tmp_path / "host" / "halt"))
    return open_store(tmp_path / "state")


def _closed(state: Path) -> None:
    if (state / "journal.db").exists():
        with Recovery(state) as recovery:
            recovery.lift()
            recovery.recover_all()
        keepers.retire(open_store(state))


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Cli]:
    """The command line with a store of its own."""
    yield Cli(tmp_path / "state", -1)
    _closed(tmp_path / "state")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The same in a network namespace of its own, with its loopback device up."""
    namespace = netns.create()
    try:
        with netns.entered(namespace), Netlink.open() as nl:
            link.set_up(nl, "lo")
        yield Cli(tmp_path / "state", namespace)
        with netns.entered(namespace):
            _closed(tmp_path / "state")
    finally:
        os.close(namespace)
