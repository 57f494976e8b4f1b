"""What the faults of files look at: the entry, its other names, the content."""

from __future__ import annotations

import os
import stat

from faultline.changes.model import Record
from faultline.errors import TargetGone
from faultline.injection import guards
from faultline.injection.reading import Effect, Reading
from faultline.kernel import files


def linked(path: str) -> int:
    """How many names the file has; more than one is told in the plan."""
    try:
        info = os.lstat(path)
    except FileNotFoundError as error:
        raise TargetGone(f"{path} does not exist") from error
    if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
        guards.current().note(f"{path} has {info.st_nlink} names (hard links): all show the change")
    return info.st_nlink


def verdict(asked: str, measured: str, method: str, ok: bool, reason: str) -> Reading:
    """A reading of something that is either there or not."""
    effect = Effect.EFFECTIVE if ok else Effect.INEFFECTIVE
    return Reading(effect, asked, measured, method, "" if ok else reason)


def status_of(path: str) -> os.stat_result | None:
    """Status of the entry itself; None if there is none."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def content_of(path: str, record: Record) -> tuple[str, bytes] | None:
    """Digest and first 64 MiB of the file, if it is the one that was changed."""
    folder, name = os.path.split(path)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fd = files.open_regular(handle, name)
    except FileNotFoundError:
        return None
    finally:
        os.close(handle)
    try:
        if os.fstat(fd).st_ino != record.steps[0].prior["ino"]:
            return None
        return files.digest(fd), os.pread(fd, 64 << 20, 0)
    finally:
        os.close(fd)
