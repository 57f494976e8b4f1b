"""Where the counters of a target are read: the host, a control group, or a tree of processes."""

from __future__ import annotations

import time
from typing import Protocol

from faultline.kernel import cpustat, memory, tally
from faultline.places.model import PROCESS, Place
from faultline.watching import reading
from faultline.watching.reading import Found

_SHARE = 100  # looking for new processes of a tree takes at most one part in so many of the time


class Gone(Exception):
    """The target is not there any more; says why."""


class Source(Protocol):
    """The counters of one target. Used by one thread."""

    missing: list[str]

    def read(self) -> Found:
        """All counters by their names; raises Gone."""
        ...

    def room(self) -> tuple[float | None, int | None]:
        """How many cores and bytes it may use."""
        ...


class HostSource:
    """This host, with the devices of the network namespace that we are in."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        if not reading.known(reading.pressures(reading.PROC / "pressure", "").values()):
            self.missing.append("pressure: this kernel keeps none")

    def read(self) -> Found:
        return reading.host()

    def room(self) -> tuple[float | None, int | None]:
        return float(len(cpustat.online_cores())), memory.host_memory().total


class GroupSource:
    """A place with a control group of its own; what that does not count is asked of the processes
    in it.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.held = reading.groups(place)
        counted = reading.group(self.held)
        self._tree = _Members(place)
        # Version 1 counts no transfers of devices without a limit.
        self._own = [name for name in ("cpu", "memory", "read") if counted.get(name) is None]
        self.missing = _of_network(place)
        if not reading.known(counted.get(f"{n}_pressure") for n in ("cpu", "memory", "io")):
            self.missing.append(
                "pressure: its control group is in no tree of version 2 that has it"
            )
        if "read" in self._own:
            self.missing.append("disk: of its processes, not of its control group (version 1)")

    def read(self) -> Found:
        _alive(self.place)
        if not any(held.exists() for held in self.held.values()):
            raise Gone("its control group was removed")
        found = reading.group(self.held)
        if self._own or found.get("processes") is None:
            counted = self._tree.read()
            wanted = [*self._own, *(("written",) if "read" in self._own else ())]
            found |= {name: counted.get(name) for name in wanted}
            if found.get("processes") is None:
                found["processes"] = counted.get("processes")
        return found | _network(self.place)

    def room(self) -> tuple[float | None, int | None]:
        return reading.room(self.held)


class TreeSource:
    """A process with everything that it started."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._tree = _Members(place)
        self.missing = [*_of_network(place), "pressure: kept of control groups alone"]
        if tally.transfers(place.pid) is None:
            self.missing.append("disk: not ours to see")

    def read(self) -> Found:
        _alive(self.place)
        found = self._tree.read()
        if not found.get("processes"):
            raise Gone("it has ended")
        return found | _network(self.place)

    def room(self) -> tuple[float | None, int | None]:
        held = reading.groups(self.place)
        return reading.room(held)


class _Members:
    """The processes of a place; new ones are looked for as often as it is cheap."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._pids: list[int] = []
        self._next = 0.0

    def read(self) -> Found:
        now = time.monotonic()
        if now >= self._next:
            self._pids = self._find()
            self._next = now + (time.monotonic() - now) * _SHARE
        used = [each for pid in self._pids if (each := tally.usage(pid)) is not None]
        moved = [each for pid in self._pids if (each := tally.transfers(pid)) is not None]
        return {
            "cpu": sum(each.cpu for each in used) if used else None,
            "memory": sum(each.resident for each in used) if used else None,
            "processes": len(used),
            "read": sum(read for read, _ in moved) if moved else None,
            "written": sum(written for _, written in moved) if moved else None,
        }

    def _find(self) -> list[int]:
        if self._place.group:
            return [each.pid for each in self._place.processes()]
        return tally.tree(self._place.pid)


def source(place: Place) -> Source:
    """How a place is read; raises Gone."""
    if place.is_host:
        return HostSource()
    try:
        if place.group and place.kind != PROCESS:
            return GroupSource(place)
        return TreeSource(place)
    except ProcessLookupError as error:
        raise Gone("it has ended") from error


def _alive(place: Place) -> None:
    if place.ends_with and place.process is not None and not place.process.alive():
        raise Gone("it has ended")


def _network(place: Place) -> Found:
    return reading.network(place.pid) if place.own_network else {}


def _of_network(place: Place) -> list[str]:
    return [] if place.own_network else ["network: it shares that of the host"]
