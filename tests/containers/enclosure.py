"""Containers of a real runtime as places to try faults on: one for each trial."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.containers.grounds import Containerd, NotStarted, prepared, until

from faultline.errors import Unsupported
from faultline.injection.trial import Enclosed, Enclosure
from faultline.places.find import Target, find
from faultline.places.model import CONTAINER

INSIDE = "/trial"
MEMORY = 256 << 20
NEEDED = ("containerd", "ctr", "runc", "containerd-shim-runc-v2", "busybox")
_numbers = itertools.count()


@contextmanager
def enclosures() -> Generator[dict[str, Enclosure]]:
    """A containerd of our own for as long as the block lasts; none where it does not start."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        sys.stderr.write(f"no containers: needs root and {', '.join(missing or NEEDED)}\n")
        yield {}
        return
    try:
        with prepared(Containerd) as runtime:
            assert isinstance(runtime, Containerd)
            runtime.commands["box"] = ("/bin/sh", "-c", "sleep 100000 & exec sleep 100000")
            yield {CONTAINER: partial(container, runtime)}
    except NotStarted as why:
        sys.stderr.write(f"no containers: {why}\n")
        yield {}


@contextmanager
def container(runtime: Containerd, folder: Path) -> Generator[Enclosed]:
    """A container with a folder of ours in it, two processes, and little memory and processor."""
    name = f"trial-{os.getpid()}-{next(_numbers)}"
    mount = f"type=bind,src={folder},dst={INSIDE},options=rbind:rw"
    try:
        runtime.run(name, "box", "--mount", mount, "--memory-limit", str(MEMORY))
    except AssertionError as error:
        raise Unsupported(f"the container for it does not start: {error}") from error
    try:
        place = find(Target(container=name))
        until(lambda: len(place.processes()) == 2)
        (sleeper,) = (each.pid for each in place.processes() if each.pid != place.pid)
        yield Enclosed(place.pid, sleeper, Target(container=name), INSIDE)
    finally:
        if name in runtime.ctr("containers", "list", "-q").split():
            runtime.remove(name)
