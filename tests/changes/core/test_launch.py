"""Where keepers are started: outside a login session where systemd keeps those."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faultline.changes import keepers, launch
from faultline.changes.store import open_store


def _program(folder: Path, text: str) -> None:
    """A stand-in for systemd-run, which is not on these machines."""
    program = folder / "systemd-run"
    program.write_text(f"#!/bin/sh\necho asked >>{folder}/asked\n{text}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    "text",
    [
        'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
        "exit 1",
    ],
    ids=["a scope is given", "a scope is refused"],
)
@pytest.mark.needs_root
def test_keepers_start_in_a_scope_or_without_one(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not systemd gives a scope, both keepers come up."""
    _program(tmp_path, text)
    monkeypatch.setattr(launch, "SYSTEMD", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    store = open_store(tmp_path / "state")
    assert launch.outside_session()[0] == str(tmp_path / "systemd-run")
    keepers.wake(store)
    try:
        assert set(keepers.armed(store)) == {"a", "b"}
        assert len((tmp_path / "asked").read_text().splitlines()) >= 2
    finally:
        keepers.retire(store)


def test_no_scope_is_asked_for_where_systemd_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without systemd starts keepers as it starts anything."""
    monkeypatch.setattr(launch, "SYSTEMD", tmp_path / "absent")
    assert launch.outside_session() == []
