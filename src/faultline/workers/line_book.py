"""The file that lines are appended to, with its book; followed by its name over a rotation.

A log that is rotated gets a new file under its name. Lines then go where the application's own
go, with one more book beside the first; a file that is cut off in place (copytruncate) stays the
same file, and appending goes on at its new end. A file is never made here: while nothing has the
name, lines go on in the file that had it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from faultline.errors import ApplyFailed, Refused, TargetGone
from faultline.kernel import clock, files, syscalls
from faultline.workers.line_ledger import MOST_FILES, Ledger, role

LOOK: Final = 100_000_000  # nanoseconds between two looks at what the name leads to
RESERVE: Final = (1 << 18) + 64  # bytes kept ready for the undo of one file
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_OURS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


class Book:
    """An open target with its ledger. `folder` is a descriptor of the folder that holds both."""

    def __init__(self, folder: int, name: str, uid: str, *, follow: bool) -> None:
        """Open what the change has prepared; raises TargetGone, ApplyFailed, OSError."""
        self._folder, self._name, self._uid, self._follow = folder, name, uid, follow
        self._looked = clock.now()
        self._number = self._slot = 0
        ledger = Ledger.open(os.open(self._own("lines"), _OURS, dir_fd=folder))
        if ledger is None:
            raise ApplyFailed("the book of lines was not finished")
        self._ledger = ledger
        self._target = files.open_regular(folder, name, os.O_RDWR | os.O_APPEND)
        info = os.fstat(self._target)
        if (info.st_ino, info.st_dev) != (ledger.inode, ledger.device):
            raise TargetGone(f"{name} was replaced by another file since the plan was made")
        self.left = ledger.slots

    def begin(self, now: int) -> None:
        """Note when the first line is written."""
        self._ledger.begin(now)

    def append(self, line: bytes) -> bool:
        """Append one line; False if the disk is full."""
        if self._follow:
            self._look()
        try:
            self._ledger.append(self._slot, self._target, line)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return False
        self._slot += 1
        self.left -= 1
        return True

    def close(self) -> None:
        """Let go of the target and its book."""
        os.close(self._ledger.fd)
        os.close(self._target)

    def _own(self, what: str) -> str:
        return f".faultline-{self._uid}-0.{role(what, self._number)}"

    def _look(self) -> None:
        """Go on to the file that has the name now, if it is another one."""
        now = clock.now()
        if now - self._looked < LOOK or self._number + 1 >= MOST_FILES:
            return
        self._looked = now
        try:
            target = files.open_regular(self._folder, self._name, os.O_RDWR | os.O_APPEND)
        except (FileNotFoundError, Refused):  # between two names; or no plain file any more
            return
        info = os.fstat(target)
        if (info.st_ino, info.st_dev) == (self._ledger.inode, self._ledger.device):
            os.close(target)
            return
        self._number += 1
        try:
            self._turn(target, info)
        except OSError as error:
            self._number -= 1
            os.close(target)
            if error.errno not in _FULL:
                raise

    def _turn(self, target: int, info: os.stat_result) -> None:
        """Make the book of another file, and what its undo needs, and go on there."""
        made: list[int] = []
        try:
            for what in ("reserve", "lines"):
                with contextlib.suppress(FileNotFoundError):  # from an attempt on a full disk
                    os.unlink(self._own(what), dir_fd=self._folder)
                flags = _OURS | os.O_CREAT | os.O_EXCL
                made.append(os.open(self._own(what), flags, 0o600, dir_fd=self._folder))
            files.reserve(made[0], RESERVE)
            ledger = Ledger.create(made[1], info, syscalls.statx(target).birth, max(1, self.left))
            os.close(made[0])
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        ledger.begin(clock.now())
        os.fsync(self._folder)
        self.close()
        self._ledger, self._target, self._slot = ledger, target, 0
