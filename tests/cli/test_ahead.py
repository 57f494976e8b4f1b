"""What a command begins before it is loaded, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faultline.changes import launch
from faultline.changes.store import Store, open_store
from faultline.cli import ahead

DELAY = ["network", "delay", "-i", "lo", "-l", "50ms"]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keepers that would have been started."""
    roles: list[str] = []

    def begin(_store: Store, *missing: str) -> None:
        roles.extend(missing)

    monkeypatch.setattr(launch, "begin", begin)
    return roles


def test_both_keepers_come_up_while_the_command_loads(begun: list[str], tmp_path: Path) -> None:
    state = open_store(tmp_path / "state").state
    ahead.keepers(str(state), DELAY)
    assert begun == ["a", "b"]


@pytest.mark.parametrize(
    "words", [[], ["network"], ["--help"], ["network", "--help"], [*DELAY, "-h"]]
)
def test_who_asks_for_help_starts_nobody(
    words: list[str], begun: list[str], tmp_path: Path
) -> None:
    ahead.keepers(str(open_store(tmp_path / "state").state), words)
    assert not begun


def test_no_store_is_made_for_them(begun: list[str], tmp_path: Path) -> None:
    ahead.keepers(str(tmp_path / "state"), DELAY)
    assert not begun
    assert not (tmp_path / "state").exists()


def test_a_store_that_is_not_trusted_is_told_of_later(begun: list[str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    ahead.keepers(str(tmp_path / "state"), DELAY)
    assert not begun


def test_pydantic_looks_for_plug_ins_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
    with ahead.no_plugins():
        assert os.environ["PYDANTIC_DISABLE_PLUGINS"] == "__all__"
    assert "PYDANTIC_DISABLE_PLUGINS" not in os.environ
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "mine")
    with ahead.no_plugins():
        assert os.environ["PYDANTIC_DISABLE_PLUGINS"] == "mine"
