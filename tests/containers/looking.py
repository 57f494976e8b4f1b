"""Looks into a container from outside, and what befalls its keepers."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from tests.containers.grounds import until

from faultline.changes.model import Record, State
from faultline.errors import TargetGone
from faultline.injection.injector import Injector
from faultline.kernel import files, procfs
from faultline.places.find import Target, find
from faultline.places.model import Place


def took(place: Place, size: int = 1) -> float | None:
    """Seconds that a datagram takes on lo inside of a place; None if it is lost."""
    with place.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 0))
        here.settimeout(0.4)
        begun = time.monotonic()
        here.sendto(bytes(size), here.getsockname())
        try:
            here.recv(size)
        except TimeoutError:
            return None
        return time.monotonic() - begun


def inside(place: Place, path: str) -> str:
    """A file as the container has it."""
    with place.root() as root:
        folder, name = files.locate(path, root)
        try:
            fd = files.open_regular(folder, name)
        finally:
            os.close(folder)
    with os.fdopen(fd) as file:
        return file.read()


def ended(injector: Injector, uid: str) -> Record:
    until(lambda: injector.get(uid).state is State.ENDED)
    return injector.get(uid)


def killed(injector: Injector) -> None:
    """SIGKILL to both keepers; stopped first, since each starts the other again."""
    mark = f"keeper:{injector.store.state}"
    found = [each for each in procfs.processes() if mark in each.cmdline]
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for each in found:
            each.id.send(signum)
    for each in found:
        each.id.wait(5.0)


def began(store: Path, name: str) -> bool:
    """Whether the change of a fault on this container is being made."""
    with Injector(store) as injector:
        found = [each for each in injector.query() if name in str(each.place["name"])]
        return any(step.state == "applying" for each in found for step in each.steps)


def hit_place(name: str) -> Place:
    """The container under this name now, once packets are lost in it."""
    found: list[Place] = []

    def lost() -> bool:
        try:
            found[:] = [find(Target(container=name))]
            return took(found[0]) is None
        except TargetGone:
            return False

    until(lost, 30.0)
    return found[0]
