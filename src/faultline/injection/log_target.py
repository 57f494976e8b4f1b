"""The log of an application: its last lines, and how many of ours stand in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from faultline.changes import file_lines
from faultline.changes.model import Record
from faultline.changes.sidecar import Folder
from faultline.errors import Refused, TargetGone
from faultline.injection.file_target import opened, readable, status_of
from faultline.injection.log_form import TAIL
from faultline.kernel import files
from faultline.places.model import Place
from faultline.workers.line_ledger import located

READ_BACK: Final = 20_000  # lines that are looked for; of more, the last ones


def tail(place: Place, path: str) -> bytes:
    """The end of a log in a place; raises TargetGone, Refused, PermissionError."""
    with readable(place, path) as fd:
        if fd is None and status_of(place, path) is not None:
            raise Refused(f"{path} is not a plain file", hint="links are never followed")
        if fd is None:
            raise TargetGone(f"{path} does not exist", hint="name the log that is written now")
        size = os.fstat(fd).st_size
        return os.pread(fd, TAIL, max(0, size - TAIL))


@dataclass(frozen=True, slots=True)
class Counted:
    """How far the appending has come."""

    written: int  # lines that were appended, by the books
    looked: int  # those of them that were looked for in the files
    found: int  # those that stand there as they were written
    begun: int  # when the first was written, CLOCK_BOOTTIME ns; 0: not yet
    files: int  # how many files they went to


def count(place: Place, record: Record) -> Counted:
    """Read our lines back out of the log and out of what it was rotated to.

    Raises TargetGone when the folder has gone.
    """
    prior = record.steps[0].prior
    where = prior["folder"]["path"]
    try:
        with opened(place, where) as fd:
            folder = Folder(where, fd)
            parts = [
                _in_file(folder, record.uid, each)
                for each in file_lines.written_to(folder, record.uid, 0, prior)
            ]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TargetGone(f"the folder {where} is gone") from error
    known = [part for part in parts if part.begun]
    return Counted(
        sum(part.written for part in parts),
        sum(part.looked for part in parts),
        sum(part.found for part in parts),
        min((part.begun for part in known), default=0),
        sum(part.written > 0 for part in parts),
    )


def _in_file(folder: Folder, uid: str, file: file_lines.Written) -> Counted:
    ledger = file_lines.ledger_of(folder, uid, 0, file.number)
    if ledger is None:
        return Counted(0, 0, 0, 0, 0)
    try:
        lines = ledger.lines()
    finally:
        os.close(ledger.fd)
    some = lines[-READ_BACK:]
    found = 0
    fd = _open(folder, file.known)
    if fd is not None:
        try:
            found = sum(located(line, fd) is not None for line in some)
        finally:
            os.close(fd)
    return Counted(len(lines), len(some), found, ledger.begun, 1)


def _open(folder: Folder, known: dict[str, Any]) -> int | None:
    """The file that lines went to, under whatever name it has in its folder now."""
    name = known["names"][0]
    found = name if folder.holds(name, known) else folder.find(known)
    try:
        return files.open_regular(folder.fd, found) if found else None
    except FileNotFoundError:  # renamed at this very moment
        return None
