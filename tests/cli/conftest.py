"""Stores, namespaces and users for the tests of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command import Cli

from faultline.changes import keepers
from faultline.changes.store import open_store
from faultline.injection.recovery import Recovery
from faultline.kernel import link, netns
from faultline.kernel.netlink import Netlink

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel" / "packets_plain"))

import plain as plains


@pytest.fixture
def plain() -> Iterator[plains.Plain]:
    """An ordinary user, who has no rights over anything."""
    python, why = plains.interpreter()
    if not python:
        pytest.skip(why)
    with plains.user() as made:
        yield made


def _closed(state: Path) -> None:
    with Recovery(state) as recovery:
        recovery.lift()
        recovery.recover_all()
    keepers.retire(open_store(state))


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Cli]:
    """The command line with a store of its own, in the namespaces of the test."""
    state = tmp_path / "state"
    yield Cli(state, -1)
    if (state / "journal.db").exists():
        _closed(state)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The same in a network namespace of its own, with its loopback device up."""
    state = tmp_path / "state"
    namespace = netns.create()
    try:
        with netns.entered(namespace), Netlink.open() as nl:
            link.set_up(nl, "lo")
        yield Cli(state, namespace)
        with netns.entered(namespace):
            if state.exists():
                _closed(state)
    finally:
        os.close(namespace)
