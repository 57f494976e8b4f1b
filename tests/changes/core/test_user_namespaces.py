"""A store in user namespaces: keepers of their own, owners that are checked, numbers that fit."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import leftover, store
from faultline.changes.model import Record
from faultline.errors import UntrustedStore
from faultline.injection import trial
from faultline.kernel import clock, syscalls, userns

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_userns]


def _inside(act: Callable[[], Any], mapping: str = "0 0 1") -> Any:
    """What `act` tells in a user namespace with this mapping of users."""

    def enter() -> Any:
        syscalls.unshare(syscalls.Namespace.USER)
        if mapping:
            Path("/proc/self/uid_map").write_text(mapping)
        return act()

    return trial.in_child(enter)


def test_users_are_told_by_what_they_are_outside() -> None:
    assert store.real_user() == os.geteuid()
    assert _inside(store.real_user) == 0
    assert _inside(lambda: [userns.outside(0), userns.outside(7)], "0 0 1") == [
        0,
        userns.overflow(),
    ]
    assert _inside(store.real_user, "") == userns.overflow()


def test_each_user_namespace_has_keepers_of_its_own(tmp_path: Path) -> None:
    def run() -> str:
        return str(store.open_store(tmp_path / "state").run)

    here, there = run(), _inside(run)
    assert here != there
    assert Path(there).name.startswith(Path(here).name + "-")
    assert Path(there).exists()
    run()
    assert not Path(there).exists(), "what a namespace left that is gone is removed"


def test_a_store_of_somebody_else_is_refused_inside_too(tmp_path: Path) -> None:
    """There everybody else is the overflow user, who may own what lies above and no more."""
    strange = tmp_path / "strange"
    strange.mkdir(mode=0o700)
    os.chown(strange, 1234, 1234)

    def trusted() -> str:
        try:
            store.check_trust(strange)
        except UntrustedStore as error:
            return error.message
        return "trusted"

    assert "owned by user" in trusted()
    assert "owned by user" in _inside(trusted)


def test_a_fault_of_another_living_namespace_is_left_to_its_keepers(tmp_path: Path) -> None:
    kept = store.open_store(tmp_path / "state")

    def made(number: int) -> Record:
        place = {"user_namespace": number}
        return Record("u", "x", {}, place, [], 0, 0, clock.boot_id(), 0.0)

    assert not leftover.elsewhere(kept, made(0))
    assert not leftover.elsewhere(kept, made(userns.current()))
    assert not leftover.elsewhere(kept, made(1)), "nobody lives there"
    run = Path(f"{kept.run}-1")
    run.mkdir(mode=0o700)
    with (run / "keeper.a.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert leftover.elsewhere(kept, made(1)), "a keeper runs there, though it cannot be seen"
    outside = userns.current()
    assert _inside(lambda: leftover.elsewhere(kept, made(outside)))
