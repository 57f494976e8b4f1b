"""Programs of a test's own in a folder that is allowed, and an injector to run them as faults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.injection.manifest import ENVIRONMENT

MANIFEST = """
name = "probe"
summary = "A program of a test"
executable = "probe"
[parameters.path]
type = "path"
help = "A file that is made."
[limits]
{limits}
[[examples]]
path = "/tmp/x"
"""

# What a conforming program does with a file, and {more} before it.
PROGRAM = """#!/bin/sh
set -eu
path=$FAULTLINE_PARAMETER_PATH
case $1 in
apply) {apply}
    echo "$FAULTLINE_MARK" >"$path"; echo '{{}}' ;;
observe) if [ -e "$path" ]; then echo '{{"present": "ours", "effect": "effective"}}'
    else echo '{{"present": "absent", "effect": "ineffective"}}'; fi ;;
undo) {undo}
    if [ -e "$path" ]; then rm "$path"; echo '{{"end": "undone"}}'
    else echo '{{"end": "absent"}}'; fi ;;
*) {check}
    echo '{{}}' ;;
esac
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    return folder


@pytest.fixture
def write(plugins: Path) -> Callable[..., Path]:
    """Writes the program and its manifest: write(apply=, undo=, check=, limits=)."""

    def made(apply: str = ":", undo: str = ":", check: str = ":", limits: str = "") -> Path:
        (plugins / "probe.toml").write_text(MANIFEST.format(limits=limits))
        program = plugins / "probe"
        fresh = plugins / ".new"
        fresh.write_text(PROGRAM.format(apply=apply, undo=undo, check=check))
        fresh.chmod(0o755)
        fresh.rename(program)
        return program

    return made


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "state") as found:
        yield found
        keepers.retire(found.store)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    assert os.geteuid() == 0
    folder = tmp_path / "target"
    folder.mkdir()
    return folder / "made"
