"""The change of a file's content in place: cut off, or edited (`faultline.changes.edits`).

Undo brings back content, times, mode and capabilities on the same inode. What the program wrote
meanwhile is kept where it can be told apart from what we did (`faultline.changes.merge`); where
it cannot, nothing is touched and a person decides between the backup and the file.

Files of ours in the folder, in the order in which they appear: the note (.json), the copy (.copy,
renamed to .backup once it is complete and durable), the reserve (.reserve, renamed to .redo once
it holds what an undo is about to write). They go in the order .reserve, .redo, .backup, .json.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from faultline.changes import content_restore as restore
from faultline.changes import edits, sidecar
from faultline.changes import merge as merging
from faultline.changes.content_restore import Goal
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.merge import How
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import ApplyFailed, Refused, TargetGone
from faultline.kernel import files, filesystem
from faultline.kernel.netlink import Netlink

_ROLES: Final = ("copy", "reserve", "redo", "backup")
_TRIES: Final = 5
_KEPT: Final = {
    How.UNTOUCHED: "what was appended at the last moment is kept",
    How.APPENDED: "what was appended meanwhile stands behind the original",
    How.POSITIONED: "what was written behind the original's end meanwhile is kept",
    How.MERGED: "lines changed by others meanwhile are kept as they are",
}


@dataclass(slots=True)
class _Open:
    """Everything an undo works with."""

    folder: Folder
    name: str  # where the inode is now
    fd: int
    backup: int
    small: int  # the reserve, or the redo
    redo: bool


class FileContent(Kind):
    """spec: {path, links: how many names it has, truncate: bytes} or {path, links, EDIT}.

    EDIT is one of replace: {find, put, regex, line, count}, hosts: {names, addresses} and servers:
    {mode: replace, add or remove, addresses}.
    """

    name: ClassVar[str] = "file_content"
    survives_reboot: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"file:{prior['dev']}:{prior['ino']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        where, name = sidecar.split(spec["path"])
        with Folder.open(where, ctx) as folder:
            sidecar.changeable(folder, ctx)
            info, same = sidecar.regular(folder, name, ctx)
            sidecar.refuse_claimed(folder, name, ctx)
            _check_size(spec, info.st_size, filesystem.space(folder.fd).free)
            fd = files.open_regular(folder.fd, name, os.O_RDWR)
            try:
                state = files.state_of(fd)
                if "truncate" not in spec:
                    _check_changes(spec, _content(fd))
            finally:
                os.close(fd)
            return {
                **same, "folder": folder.identity(), "file": state.to_json(), "names": [name],
            }  # fmt: skip

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["folder"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        name = prior["names"][0]
        before = files.FileState.from_json(prior["file"])
        with Folder.reopen(prior["folder"], ctx) as folder, contextlib.ExitStack() as stack:
            fd = files.open_regular(folder.fd, name, os.O_RDWR)
            stack.callback(os.close, fd)
            if not sidecar.is_same(fd, prior):
                raise TargetGone(
                    f"{spec['path']} was replaced by another file since the plan was made"
                )
            sidecar.write(folder, ctx, self.name, spec, prior)
            backup = self._back_up(folder, ctx, fd, before)
            stack.callback(os.close, backup)
            small = _create(folder, own_name(ctx, "reserve"))
            stack.callback(os.close, small)
            restore.prepare(small)
            folder.sync()
            end = self._break(spec, fd, backup)
            if restore.keep_blocks(fd, backup, end if "truncate" in spec else 0):
                restore.note_reserved(small)
        return {"size": end}

    def _back_up(self, folder: Folder, ctx: Context, fd: int, before: files.FileState) -> int:
        folder.remove(own_name(ctx, "copy"))
        backup = _create(folder, own_name(ctx, "copy"))
        try:
            restore.copy_sparse(fd, backup)
            if files.digest(backup) != before.digest or os.fstat(fd).st_size != before.size:
                raise ApplyFailed(
                    "the file was written to since the plan was made; nothing was changed"
                )
            folder.rename(own_name(ctx, "copy"), own_name(ctx, "backup"))
        except BaseException:
            os.close(backup)
            raise
        return backup

    def _break(self, spec: Data, fd: int, backup: int) -> int:
        if "truncate" in spec:
            os.ftruncate(fd, spec["truncate"])
            return int(spec["truncate"])
        content = edits.edited(spec, _content(backup))
        restore.write_all(fd, content, 0)
        if os.fstat(fd).st_size > len(content):
            os.ftruncate(fd, len(content))
        return len(content)

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Presence.ABSENT
                with _opened(folder, prior, ctx) as at:
                    if at is None:
                        return Presence.OURS  # before the change was made: our files are there
                    if isinstance(at, Outcome):
                        return Presence.FOREIGN if at.end is Undone.LEFT else Presence.OURS
                    return Presence.OURS if at.redo or goal_of(spec, at) else Presence.FOREIGN
        except TargetGone:
            return Presence.GONE

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Outcome(Undone.ABSENT, "nothing of ours lies in the folder")
                with _opened(folder, prior, ctx) as at:
                    if at is None:
                        outcome = Outcome(Undone.ABSENT, "the file had not been changed yet")
                    elif isinstance(at, Outcome):
                        outcome = at
                    else:
                        outcome = self._bring_back(spec, prior, at, ctx)
                if outcome.settled:
                    sidecar.remove(folder, ctx, "copy", "reserve", "redo", "backup")
                    return outcome
                return Outcome(outcome.end, outcome.detail, self.commands(spec, prior, ctx))
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def _bring_back(self, spec: Data, prior: Data, at: _Open, ctx: Context) -> Outcome:
        before = files.FileState.from_json(prior["file"])
        info, how = os.fstat(at.fd), None
        if not at.redo:
            for _ in range(_TRIES):
                info = os.fstat(at.fd)
                found = goal_of(spec, at)
                if found is None:
                    return Outcome(Undone.LEFT, _undecided(at))
                goal, how = found
                _fix(at, goal, info.st_size, ctx)
                now = os.fstat(at.fd)
                if (now.st_size, now.st_mtime_ns) == (info.st_size, info.st_mtime_ns):
                    break  # nobody wrote while we looked
        fixed = restore.fixed(at.small)
        if fixed is None:
            return Outcome(Undone.FAILED, "what the file shall hold could not be written down")
        restore.write_back(at.fd, at.backup, at.small, fixed)
        whole = fixed.length == 0 and os.fstat(at.fd).st_size == before.size
        if whole and files.digest(at.fd) != before.digest:
            return Outcome(
                Undone.FAILED, "the content differs from the original after it was put back"
            )
        _settle(at.fd, before, info, whole)
        os.fsync(at.fd)
        notes = [f"{before.size} bytes are back"]
        if not whole:
            notes.append(_KEPT[how] if how else "what was written meanwhile is kept")
        if at.name != prior["names"][0]:
            notes.append(f"the file is now called {at.name}")
        return Outcome(Undone.KEPT if notes[1:] else Undone.UNDONE, "; ".join(notes))

    def describe(self, spec: Data) -> tuple[str, str]:
        path, more = spec["path"], _linked(spec)
        if "truncate" in spec:
            return (
                f"cut {path} off at {spec['truncate']} bytes{more}",
                "put the rest back, same inode",
            )
        does = f"edit {path}{more}: {edits.words(spec)}"
        return does, "put the original lines back, same inode; lines that others change stay"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        folder = sidecar.typed(prior["folder"], ctx)
        path = os.path.join(folder, str(prior["names"][0]))
        ours = [os.path.join(folder, own_name(ctx, role)) for role in (*_ROLES, "part", "json")]
        return ("cp", "--", ours[3], path), ("rm", "-f", "--", *ours)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, folders)


def goal_of(spec: Data, at: _Open) -> tuple[Goal, How] | None:
    """What the file shall hold now, or None if that is for a person to say."""
    original, size = os.fstat(at.backup).st_size, os.fstat(at.fd).st_size
    if "truncate" not in spec:
        if size > 2 * restore.MOST:
            return None
        content = _content(at.backup)
        found = edits.taken_back(spec, content, _content(at.fd))
        if found is None:
            return None
        same = merging.common_prefix(content, found.content)
        return Goal(same, found.content[same:]), found.how
    end = int(spec["truncate"])
    if size == original and restore.same_head(at.fd, at.backup, original):
        return Goal(original), How.UNTOUCHED
    if size < end or not restore.same_head(at.fd, at.backup, end) or _cut_again(at, end):
        return None
    if size == end:
        return Goal(original), How.UNTOUCHED
    if size > original and restore.is_blank(at.fd, end, original):
        return Goal(original, None), How.POSITIONED
    return Goal(original, source=((end, size),)), How.APPENDED


def _cut_again(at: _Open, end: int) -> bool:
    """Whether somebody cut the file off after us: then the blocks that we had reserved are gone.

    A program that writes its file anew looks like one that appends, but does not mean that.
    """
    if at.redo or not restore.reserved(at.small):
        return False
    kept = sum(high - low for low, high in restore.segments(at.backup, end))
    return os.fstat(at.fd).st_blocks * 512 < kept + restore.SLACK


def _fix(at: _Open, goal: Goal, seen: int, ctx: Context) -> None:
    restore.fix(at.small, goal, at.fd, seen)
    if not at.redo:
        at.folder.remove(own_name(ctx, "redo"))
        at.folder.rename(own_name(ctx, "reserve"), own_name(ctx, "redo"))
        at.folder.sync()
        at.redo = True


def _check_size(spec: Data, size: int, free: int) -> None:
    path = spec["path"]
    if "truncate" in spec and spec["truncate"] >= size:
        raise Refused(f"{path} has {size} bytes: cutting it at {spec['truncate']} changes nothing")
    if "truncate" not in spec and size > restore.MOST:
        raise Refused(f"{path} has {size} bytes; files up to {restore.MOST} are edited")
    if size + 4 * restore.SLACK > free:
        raise Refused(f"{path}: {free} bytes are free, its backup needs {size + 4 * restore.SLACK}")


def _check_changes(spec: Data, content: bytes) -> None:
    if edits.edited(spec, content) == content:
        why = "nothing in it would change"
        if "replace" in spec:
            why = f"the text {spec['replace']['find']!r} is not in it"
        raise Refused(f"{spec['path']}: {why}")


@contextlib.contextmanager
def _opened(folder: Folder, prior: Data, ctx: Context) -> Generator[_Open | Outcome | None]:
    """What an undo needs, opened; None if nothing was changed; an Outcome if that is all."""
    with contextlib.ExitStack() as stack:

        def get(role: str, flags: int) -> int:
            if folder.stat(own_name(ctx, role)) is None:
                return -1
            fd = folder.open_file(own_name(ctx, role), flags)
            stack.callback(os.close, fd)
            return fd

        redo = get("redo", os.O_RDWR)
        small = redo if redo >= 0 else get("reserve", os.O_RDWR)
        backup = get("backup", os.O_RDONLY)
        if small < 0:
            yield None
            return
        if backup < 0 or not _is_backup(backup, prior):
            gone = "was removed" if backup < 0 else "is not what we wrote"
            yield Outcome(Undone.LEFT, f"the backup {own_name(ctx, 'backup')} {gone}")
            return
        name = prior["names"][0]
        if not folder.holds(name, prior):
            here = folder.find(prior)
            if here is None and folder.stat(name) is None:
                yield Outcome(Undone.GONE, f"{name} was removed meanwhile")
                return
            if here is None:
                yield Outcome(
                    Undone.LEFT, f"{name} was replaced by another file meanwhile; it stays"
                )
                return
            name = here
        fd = files.open_regular(folder.fd, name, os.O_RDWR)
        stack.callback(os.close, fd)
        goal = restore.fixed(small) if redo >= 0 else None
        if redo >= 0 and (goal is None or not restore.begun(fd, goal)):
            folder.rename(own_name(ctx, "redo"), own_name(ctx, "reserve"))
            goal = None  # nothing was written yet: the file is looked at anew
        yield _Open(folder, name, fd, backup, small, goal is not None)


def _is_backup(fd: int, prior: Data) -> bool:
    info = os.fstat(fd)
    ours = info.st_uid in (0, os.geteuid()) and stat.S_ISREG(info.st_mode) and info.st_nlink == 1
    return (
        ours
        and info.st_size == prior["file"]["size"]
        and files.digest(fd) == prior["file"]["digest"]
    )


def _settle(fd: int, before: files.FileState, info: os.stat_result, whole: bool) -> None:
    """Put back the times, and what the kernel takes away when a file is written."""
    mode = stat.S_IMODE(info.st_mode)
    lost = before.mode & ~mode & 0o6000
    if lost:
        os.fchmod(fd, mode | lost)
    capability = before.xattrs.get("security.capability")
    if capability is not None and "security.capability" not in os.listxattr(fd):
        os.setxattr(fd, "security.capability", capability)
    if whole:
        os.utime(fd, ns=(before.accessed, before.modified))
    else:
        os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def _create(folder: Folder, name: str) -> int:
    fd = folder.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.fchmod(fd, 0o600)  # whatever the umask
    return fd


def _content(fd: int) -> bytes:
    pieces: list[bytes] = []
    offset = 0
    while chunk := os.pread(fd, 1 << 20, offset):
        pieces.append(chunk)
        offset += len(chunk)
    return b"".join(pieces)


def _undecided(at: _Open) -> str:
    return (
        f"{at.name} was rewritten meanwhile in places that we had changed too: it stays as it is, "
        "and the backup stays beside it; take either"
    )


def _linked(spec: Data) -> str:
    more = int(spec.get("links", 1)) - 1
    return f" (and under {more} more name(s): hard links share their content)" if more > 0 else ""
