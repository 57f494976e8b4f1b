"""Faults outlive the package that made them: keepers and workers run from a copy in the store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lifeground import SOURCE, Ground, keepers_of, kill, until

from faultline.changes import frozen
from faultline.changes.model import End
from faultline.kernel import procfs

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]

INJECT = """
import json, sys
from pathlib import Path
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.units import Duration
with Injector(Path(sys.argv[1])) as injector:
    for uid, fault, params, duration in json.loads(sys.argv[2]):
        injector.inject(Order(fault, params, Duration.parse(duration), uid))
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A copy of the package, as if installed there; the test takes it away."""
    copy = tmp_path / "installed"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    shutil.rmtree(copy, ignore_errors=True)


def _inject(package: Path, ground: Ground, *orders: Any) -> None:
    words = [sys.executable, "-c", INJECT, str(ground.state), json.dumps(orders)]
    subprocess.run(words, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(package)})


def _add(ground: Ground, uid: str, duration: str) -> tuple[Any, ...]:
    params = {"path": str(ground.folder / uid), "content": "x"}
    return uid, "file.add", params, duration


def _append(ground: Ground, uid: str, duration: str) -> tuple[Any, ...]:
    """Lines at a rate, written by a worker."""
    params = {"path": str(ground.kept), "content": "more", "interval": "20ms", "count": 1000}
    return uid, "file.append", params, duration


def test_keepers_and_workers_go_on_when_the_package_is_gone(package: Path, ground: Ground) -> None:
    _inject(package, ground, _add(ground, "short", "2s"), _append(ground, "lines", "3s"))
    workers = procfs.find_marked("faultline:lines")
    assert workers
    shutil.rmtree(package)
    size = ground.kept.stat().st_size
    assert until(lambda: ground.kept.stat().st_size > size), "the worker writes no more"
    # A keeper that dies is started again, from the copy.
    before = keepers_of(ground.store)["a"]
    kill(before)
    assert until(lambda: "a" in keepers_of(ground.store))
    assert ground.ended("short") is End.RECOVERED
    assert ground.ended("lines") is End.RECOVERED
    assert ground.names() == ["kept"]
    assert ground.kept.read_text() == "as it was\n"
    assert not procfs.find_marked("faultline:lines")


def test_another_version_recovers_what_an_uninstalled_one_left(
    package: Path, ground: Ground
) -> None:
    _inject(package, ground, _add(ground, "long", "60s"))
    shutil.rmtree(package)
    for process in keepers_of(ground.store).values():
        kill(process)
    with ground.injector() as injector:
        assert injector.recover("long").end is End.RECOVERED
    assert ground.names() == ["kept"]


def test_the_copy_is_made_once_complete_and_ours_alone(ground: Ground) -> None:
    code = frozen.code_folder(ground.store)
    assert frozen.code_folder(ground.store) == code
    assert [each.name for each in code.parent.iterdir()] == [code.name]
    for part in frozen.PARTS:
        assert (code / "faultline" / part).exists()
    assert (code / "faultline" / "changes" / "__pycache__").is_dir()
    assert code.stat().st_mode & 0o077 == 0


def test_threads_that_make_it_at_once_get_the_same_one(ground: Ground) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(frozen.code_folder, [ground.store] * 4))
    (code,) = found
    assert sorted(path.name for path in code.parent.iterdir()) == [code.name]


def test_a_changed_package_gets_a_copy_of_its_own(package: Path, ground: Ground) -> None:
    program = (
        "import sys; from pathlib import Path; from faultline.changes import frozen, store;"
        "print(frozen.code_folder(store.open_store(Path(sys.argv[1]))))"
    )

    def code() -> str:
        words = [sys.executable, "-c", program, str(ground.state)]
        environment = {**os.environ, "PYTHONPATH": str(package)}
        return subprocess.run(
            words, check=True, capture_output=True, text=True, env=environment
        ).stdout

    before = code()
    assert code() == before
    with (package / "faultline" / "units.py").open("a") as file:
        file.write("# another version\n")
    assert code() != before
