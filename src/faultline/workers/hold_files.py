"""Hold open files until the kernel's table of them is as full as asked.

Children hold them, each as many as one process may. The level stands while others open and close:
what is missing is opened, several times a second. One child without rights tries to open a file, as
anybody on the host does; root goes beyond the limit (CAP_SYS_ADMIN).

Order (spec), beside `deadline` and `stats`: `level`, open files of the host in all; or `count`, of
ours.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from faultline.errors import Refused
from faultline.kernel import tables
from faultline.workers.figures import Figures
from faultline.workers.lifetime import Lifetime, become, end_children, reap

_LOOK: Final = 0.1  # seconds between two looks
_BATCH: Final = 20_000  # files between two looks
_SPARE: Final = 64  # numbers that a holder needs for itself
_NOBODY: Final = 65534
_HOLDERS: Final = 256
_SLACK: Final = 64  # the kernel counts files by processor and is never exact
_PAIR: Final = struct.Struct("qq")


class Board:
    """Pairs of numbers in memory that parent and children share: one for each child."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, (_HOLDERS + 1) * _PAIR.size)

    def put(self, slot: int, first: int, second: int) -> None:
        _PAIR.pack_into(self._memory, slot * _PAIR.size, first, second)

    def get(self, slot: int) -> tuple[int, int]:
        return _PAIR.unpack_from(self._memory, slot * _PAIR.size)

    def set_first(self, slot: int, value: int) -> None:
        struct.pack_into("q", self._memory, slot * _PAIR.size, value)

    def set_second(self, slot: int, value: int) -> None:
        struct.pack_into("q", self._memory, slot * _PAIR.size + 8, value)


def capacity() -> int:
    """Allow this process and its children as many files as it may, and tell how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(hard, tables.files_per_process())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, PermissionError):  # without CAP_SYS_RESOURCE
        most = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most - _SPARE


def _hold(board: Board, slot: int) -> int:
    """A holder: opens and closes until it has as many as the board asks of it."""
    held: list[int] = []
    while True:
        wanted = board.get(slot)[0]
        for _ in range(min(_BATCH, max(0, wanted - len(held)))):
            try:
                held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                if error.errno not in (errno.ENFILE, errno.ENOMEM):
                    raise
                break
        while len(held) > wanted:
            os.close(held.pop())
        before = board.get(slot)[1]
        board.set_second(slot, len(held))
        if before == len(held):
            time.sleep(_LOOK / 4)


def _probe(board: Board) -> int:
    """The one that tries, as nobody: counts tries and refusals."""
    become(_NOBODY, _NOBODY)
    tries = refused = 0
    while True:
        tries += 1
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            refused += error.errno == errno.ENFILE
        board.put(_HOLDERS, tries, refused)
        time.sleep(_LOOK / 2)


class Filler:
    """The parent: tells each holder how many, and watches the table."""

    def __init__(self, spec: dict[str, Any], lifetime: Lifetime) -> None:
        self._lifetime = lifetime
        self._level: int | None = spec.get("level")
        self._count = int(spec.get("count") or 0)
        self._board = Board()
        self.children: dict[int, int] = {}  # pid to slot
        self._each = capacity()
        self._asked = 0
        if os.geteuid() == 0:
            self._fork("fl-try-files", lambda: _probe(self._board), _HOLDERS)

    def _fork(self, name: str, work: Callable[[], int], slot: int) -> None:
        self.children[self._lifetime.fork(name, work)] = slot

    def held(self) -> int:
        return sum(self._board.get(slot)[1] for slot in range(self._holders()))

    def _holders(self) -> int:
        return sum(slot != _HOLDERS for slot in self.children.values())

    def step(self) -> bool:
        """Ask for what is missing; whether nothing is."""
        held = self.held()
        if held != self._asked:
            return False  # they are still at it
        total = self._count if self._level is None else held + self._level - tables.files()
        self._ask(total)
        return abs(total - held) <= (0 if self._level is None else _SLACK) or total <= 0

    def _ask(self, total: int) -> None:
        self._asked = max(0, total)
        left, slot = self._asked, 0
        while left > 0 or slot < self._holders():
            if slot == _HOLDERS:
                raise Refused(f"more than {_HOLDERS * self._each} open files cannot be held")
            self._board.set_first(slot, min(left, self._each))
            if slot >= self._holders():
                self._fork("fl-hold-files", partial(_hold, self._board, slot), slot)
            left -= min(left, self._each)
            slot += 1

    def figures(self) -> dict[str, Any]:
        tries, refused = self._board.get(_HOLDERS)
        return {"held": self.held(), "tries": tries, "refused": refused}


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Hold until the deadline or SIGTERM."""
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    filler = Filler(spec, lifetime)
    told = False
    try:
        while not lifetime.wait(_LOOK if told else 0.02):
            for status in reap(filler.children).values():
                what = os.strerror(status) if status > 0 else "somebody has ended a holder"
                raise OSError(max(status, 0) or errno.ESRCH, f"files cannot be held: {what}")
            stands = filler.step()
            figures.publish(filler.figures())
            if stands and not told:
                ready({**filler.figures(), "stats": spec.get("stats", "")})
                told = True
    finally:
        end_children(filler.children)
    return 0
