"""What the faults of files look at, in the root directory of their place: the entry, its other
names, the content.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator

from faultline.changes.model import Record
from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.injection import guards
from faultline.injection.reading import Effect, Reading
from faultline.kernel import files, walk
from faultline.places.model import Place

_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@contextlib.contextmanager
def opened(place: Place, path: str) -> Generator[int]:
    """A descriptor of the folder `path` of a place; raises FileNotFoundError and other OSErrors."""
    with place.root() as root:
        fd = files.open_folder(path, root)
    try:
        yield fd
    finally:
        os.close(fd)


def folder(place: Place, path: str, name: str = "folder") -> str:
    """The path of a folder of a place, links resolved; InvalidParameter `name` if there is none."""
    note_root(place, path)
    try:
        with opened(place, path), place.root() as root:
            return walk.resolve(path, root)
    except OSError as error:
        raise InvalidParameter(name, path, f"a folder ({error.strerror})") from error


def note_root(place: Place, path: str) -> None:
    """Tell in the plan that a target shares its files with the host, so that others are hit too."""
    if not place.is_host and not place.rooted:
        guards.current().note(
            f"{place.words} has the root directory of this host: {path} is the host's"
        )


def linked(place: Place, path: str) -> int:
    """How many names the file has; more than one is told in the plan."""
    note_root(place, path)
    info = status_of(place, path)
    if info is None:
        raise TargetGone(f"{path} does not exist")
    if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
        guards.current().note(f"{path} has {info.st_nlink} names (hard links): all show the change")
    return info.st_nlink


def verdict(asked: str, measured: str, method: str, ok: bool, reason: str) -> Reading:
    """A reading of something that is either there or not."""
    effect = Effect.EFFECTIVE if ok else Effect.INEFFECTIVE
    return Reading(effect, asked, measured, method, "" if ok else reason)


def status_of(place: Place, path: str) -> os.stat_result | None:
    """Status of the entry itself; None if there is none."""
    where, name = os.path.split(path)
    try:
        with opened(place, where) as fd:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return None


@contextlib.contextmanager
def readable(place: Place, path: str) -> Generator[int | None]:
    """The open file, if it is a plain one; None if there is none."""
    where, name = os.path.split(path)
    try:
        with opened(place, where) as handle:
            fd = files.open_regular(handle, name)
    except (OSError, Refused) as error:
        if isinstance(error, OSError) and error.errno not in _NOWHERE:
            raise
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def content_of(place: Place, path: str, record: Record) -> tuple[str, bytes] | None:
    """Digest and first 64 MiB of the file, if it is the one that was changed."""
    with readable(place, path) as fd:
        if fd is None or os.fstat(fd).st_ino != record.steps[0].prior["ino"]:
            return None
        return files.digest(fd), os.pread(fd, 64 << 20, 0)
