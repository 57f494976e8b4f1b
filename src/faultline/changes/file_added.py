"""A file that was not there, with the folders it needs; removed again while it is as we made it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator, Iterator
from typing import ClassVar

from faultline.changes import sidecar
from faultline.changes.content_restore import write_all
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import Refused, TargetGone, Unsupported
from faultline.kernel import files, filesystem
from faultline.kernel.digest import blake2b
from faultline.kernel.netlink import Netlink


class FileAdded(Kind):
    """spec: {path, content: text, mode, parents: make missing folders, replaces: another step
    clears the name}.
    """

    name: ClassVar[str] = "file_added"
    survives_reboot: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"path:{prior['folder']['path']}/{'/'.join(prior['names'])}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        where, name = sidecar.split(spec["path"])
        base, missing = _nearest(where, ctx)
        with base as folder:
            if missing and folder.stat(missing[0]) is not None:
                raise Refused(f"{folder.join(missing[0])} is not a folder")
            if missing and not spec["parents"]:
                raise Refused(
                    f"the folder {where} does not exist", hint="force makes missing folders"
                )
            sidecar.changeable(folder, ctx)
            if not missing and folder.stat(name) is not None and not spec["replaces"]:
                raise Refused(f"{spec['path']} exists", hint="force puts the new file in its place")
            room = filesystem.space(folder.fd).free
            if len(spec["content"]) + (1 << 16) > room:
                raise Unsupported(f"{folder.path} has only {room} bytes free")
            return {"folder": folder.identity(), "names": [*missing, name]}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["folder"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        *folders, name = prior["names"]
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(Folder.reopen(prior["folder"], ctx))
            sidecar.write(base, ctx, self.name, spec, prior)
            here = base
            for part in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here.fd)
                here = stack.enter_context(_below(here, part))
            scratch = own_name(ctx, "new")
            fd = here.open_file(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            stack.callback(os.close, fd)
            write_all(fd, spec["content"].encode(), 0)
            os.fchmod(fd, spec["mode"])
            os.fsync(fd)
            made = {**prior, "file": sidecar.identify(fd)}
            # The inode is noted before it gets its name: from then on it is known to be ours.
            sidecar.write(base, ctx, self.name, spec, made)
            here.rename(scratch, name)
            here.sync()
        return {"file": made["file"]}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as base:
                if not sidecar.exists(base, ctx):
                    return Presence.ABSENT
                with _walk(base, prior) as here:
                    ours = here and _is_ours(here, spec, prior, self._inode(base, made, ctx))
                    return Presence.FOREIGN if ours is False else Presence.OURS
        except TargetGone:
            return Presence.GONE

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        try:
            with Folder.reopen(prior["folder"], ctx) as base:
                if not sidecar.exists(base, ctx):
                    return Outcome(Undone.ABSENT, "nothing of ours lies in the folder")
                outcome = self._remove(spec, prior, self._inode(base, made, ctx), base, ctx)
                if outcome.settled:
                    _remove_folders(base, prior["names"][:-1])
                    sidecar.remove(base, ctx)
                return outcome
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def _inode(self, base: Folder, made: Data, ctx: Context) -> Data | None:
        """What we noted of the file that we made, if it came to that."""
        note = sidecar.read(base, own_name(ctx, "json"))
        return (note or {}).get("prior", {}).get("file") or made.get("file")

    def _remove(
        self, spec: Data, prior: Data, inode: Data | None, base: Folder, ctx: Context
    ) -> Outcome:
        name = prior["names"][-1]
        with _walk(base, prior) as here:
            if here is None:
                return Outcome(Undone.ABSENT, "the file is gone, and its folder")
            started = here.remove(own_name(ctx, "new"))
            ours = _is_ours(here, spec, prior, inode)
            if ours is None:
                how = Undone.UNDONE if started else Undone.ABSENT
                return Outcome(
                    how, "the file had not got its name" if started else "the file is gone"
                )
            if not ours:
                detail = f"{spec['path']} was changed or replaced meanwhile; it stays"
                return Outcome(Undone.LEFT, detail, self.commands(spec, prior, ctx))
            here.remove(name)
            here.sync()
        return Outcome(Undone.UNDONE, f"{spec['path']} is removed")

    def describe(self, spec: Data) -> tuple[str, str]:
        size = len(spec["content"].encode())
        return (
            f"make the file {spec['path']} with {size} bytes and mode {spec['mode']:04o}",
            "remove it and the folders made for it, unless somebody has used them meanwhile",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        base = sidecar.typed(prior["folder"], ctx)
        note = os.path.join(base, own_name(ctx, "json"))
        return ("rm", "--", os.path.join(base, *map(str, prior["names"]))), ("rm", "-f", "--", note)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, folders)


def _nearest(path: str, ctx: Context) -> tuple[Folder, list[str]]:
    """The folder at `path`, or the nearest one above it that exists, and what is missing below."""
    missing = list[str]()
    while True:
        try:
            return Folder.open(path, ctx), missing
        except TargetGone:
            if path == "/":
                raise
        missing.insert(0, os.path.basename(path))
        path = os.path.dirname(path)


def _below(folder: Folder, part: str) -> Folder:
    """A folder in a folder, never through a link."""
    try:
        return Folder(folder.join(part), folder.open_file(part, os.O_RDONLY | os.O_DIRECTORY))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TargetGone(f"{folder.join(part)} is gone or not a folder") from error


@contextlib.contextmanager
def _walk(base: Folder, prior: Data) -> Generator[Folder | None]:
    """The folder of the file, below the one that was there before; None if it is gone."""
    with contextlib.ExitStack() as stack:
        here: Folder | None = base
        for part in prior["names"][:-1]:
            try:
                here = stack.enter_context(_below(here, part))
            except TargetGone:
                here = None
                break
        yield here


def _is_ours(here: Folder, spec: Data, prior: Data, inode: Data | None) -> bool | None:
    """Whether the file is the one that we made, and unchanged; None if there is none."""
    name = prior["names"][-1]
    info = here.stat(name)
    if info is None or inode is None:
        return None  # without a noted inode ours never got its name: whatever is there is not ours
    content = spec["content"].encode()
    if not here.holds(name, inode) or not stat.S_ISREG(info.st_mode):
        return False
    if (stat.S_IMODE(info.st_mode), info.st_size) != (spec["mode"], len(content)):
        return False
    fd = files.open_regular(here.fd, name)
    try:
        return files.digest(fd) == blake2b(content, digest_size=32).hexdigest()
    finally:
        os.close(fd)


def _remove_folders(base: Folder, parts: list[str]) -> None:
    """Remove the folders that were missing before, innermost first, while they are empty."""
    for depth in range(len(parts), 0, -1):
        try:
            os.rmdir(os.path.join(*parts[:depth]), dir_fd=base.fd)
        except OSError:  # gone already, or somebody keeps something in it
            return
