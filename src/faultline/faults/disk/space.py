"""Faults of file systems: no space, no inodes, nothing can be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Flag, Percent, Size, text
from faultline.changes.model import Change, Record
from faultline.errors import Unsupported
from faultline.injection import guards
from faultline.injection.file_target import folder, opened, verdict
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import filesystem, mounts, reconfigure
from faultline.places.model import Place

# Who cannot write there cannot run the host, nor keep its own journal.
_SYSTEM = ("/", "/usr", "/etc", "/var", "/var/lib", "/run", "/tmp")  # noqa: S108 - not written to
_POINT = 1.0  # percentage points that a file system's own records may differ by


class FolderParams(Params):
    """Parameters of faults that act on a whole file system."""

    folder: Annotated[str, Field(max_length=4095, pattern="^/"), Flag("d", ("dir",))] = "/tmp"  # noqa: S108 - what peers default to
    """An absolute path of a folder on the file system that is meant."""


def protect_host(fd: int, path: str) -> None:
    """Raise Protected if the open folder lies on a file system that this host cannot do without."""
    device = os.fstat(fd).st_dev
    for own in _SYSTEM:
        if Path(own).exists() and Path(own).stat().st_dev == device:
            guards.current().refuse(
                "system-filesystem", f"{path} is on the file system that holds {own} of this host"
            )


class FillParams(FolderParams):
    """Parameters of `disk fill`: either `percent` or `bytes`."""

    percent: Annotated[Percent | None, Between("1%", "100%"), Flag("p")] = None
    """How full the file system shall be, as `df` counts it: of what users can reach."""
    bytes: Annotated[Size | None, Between("4KiB", "1024TiB"), Flag("b")] = None
    """How much to take, instead."""
    leave: Annotated[Size, Between("0B", "1TiB")] = text("0B")
    """How much to leave available in any case."""
    reserve: bool = False
    """Also take what the file system keeps for root: then nothing of the host can write."""

    @model_validator(mode="after")
    def _one(self) -> FillParams:
        if (self.percent is None) == (self.bytes is None):
            raise ValueError("expected either percent or bytes")
        return self


class DiskFill(Fault[FillParams]):
    """Fill a file system.

    At 100 % every write of an ordinary user fails (ENOSPC) until it is undone. What the file
    system keeps for root is left unless `reserve` asks for it.
    """

    id = "disk.fill"
    ending = Ending.KEEPER
    does = "Makes one file of ours (0600), its name the mark, by fallocate, else by writing."
    cannot = (
        "Quotas of single users are not seen. On file systems that compress or share blocks the "
        "share is reached, and may drift as they tidy up."
    )
    measures = (
        "A percentage by the file system's own count (statvfs); a number of bytes by the blocks of "
        "our file, since others write meanwhile."
    )
    restores = "Removes the file, by its mark; needs no space."
    example: ClassVar[dict[str, str]] = {"folder": "{folder}", "bytes": "8MiB"}
    scratch = "file"

    def plan(self, place: Place, params: FillParams) -> list[Change]:
        spec: dict[str, Any] = {
            "folder": folder(place, params.folder),
            "percent": float(params.percent or 0),
            "bytes": int(params.bytes or 0),
            "leave": int(params.leave),
            "reserve": params.reserve,
        }
        if params.reserve and os.geteuid() != 0:
            raise Unsupported(
                "what is kept for root can be taken by root alone", hint="run as root"
            )
        return [Change("disk_fill", spec)]

    def observe(self, place: Place, params: FillParams, record: Record) -> Reading:
        with opened(place, params.folder) as fd:
            now = filesystem.space(fd)
            held = _blocks(fd, f".faultline-{record.uid}-0.fill")
        reason = "somebody has freed space since"
        if params.percent is not None:
            asked = f"{params.percent} used"
            short = float(params.percent) - now.percent
            left = now.free if params.reserve else now.available
            ok = short <= _POINT or left <= int(params.leave) + now.block
            values = {"asked": float(params.percent), "measured": now.percent}
            measured = f"{now.percent:.2f}% used, {now.available} bytes available"
        else:
            asked, wanted = f"{params.bytes} taken", int(params.bytes or 0)
            fewer = record.steps[0].prior["free"] - now.free
            ok = held >= 0.99 * wanted
            values = {"asked": float(wanted), "measured": float(held)}
            measured = f"{held} bytes taken by ours, {fewer} fewer free than before"
            reason = "somebody has cut our file"
        effect = Effect.EFFECTIVE if ok else Effect.INEFFECTIVE
        return Reading(effect, asked, measured, self.measures, "" if ok else reason, values)


def _blocks(folder: int, name: str) -> int:
    """How many bytes of its file system a file takes; 0 where there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0


class InodesParams(FolderParams):
    """Parameters of `disk inodes`: either `percent` or `count`."""

    percent: Annotated[Percent | None, Between("1%", "100%"), Flag("p")] = None
    """How many of the inodes shall be used, as `df -i` counts them."""
    count: Annotated[int | None, Between(1, 10**9), Flag("C")] = None
    """How many to take, instead."""

    @model_validator(mode="after")
    def _one(self) -> InodesParams:
        if (self.percent is None) == (self.count is None):
            raise ValueError("expected either percent or count")
        return self


class DiskInodes(Fault[InodesParams]):
    """Use up the inodes of a file system: space is left, but no file can be made."""

    id = "disk.inodes"
    ending = Ending.KEEPER
    does = "Makes a folder of ours (0700), its name the mark, with empty files in it."
    cannot = (
        "File systems that make inodes as they are needed (btrfs; xfs while space is left) do not "
        "run out. Making and removing takes about a second per 100,000."
    )
    measures = (
        "A percentage by the file system's own count (statvfs); a number by what is in the folder, "
        "since others make and remove files too."
    )
    restores = "Removes the folder with all in it; goes on where it was cut off."
    example: ClassVar[dict[str, str]] = {"folder": "{folder}", "count": "50"}
    scratch = "file"

    def plan(self, place: Place, params: InodesParams) -> list[Change]:
        spec: dict[str, Any] = {
            "folder": folder(place, params.folder),
            "percent": float(params.percent or 0),
            "count": params.count or 0,
        }
        return [Change("disk_inodes", spec)]

    def observe(self, place: Place, params: InodesParams, record: Record) -> Reading:
        with opened(place, params.folder) as fd:
            now = filesystem.space(fd)
        if params.percent is not None:
            asked, value = f"{params.percent} of the inodes used", now.inode_percent
            ok = value >= float(params.percent) - _POINT or not now.inodes_available
            values = {"asked": float(params.percent), "measured": value}
            measured = f"{value:.2f}% used, {now.inodes_available} available"
        else:
            wanted = params.count or 0
            with opened(place, params.folder) as fd:
                taken = _entries(fd, f".faultline-{record.uid}-0.inodes")
            # What others make and remove meanwhile says nothing of ours.
            fewer = record.steps[0].prior["available"] - now.inodes_available
            asked = f"{wanted} inodes taken"
            measured = f"{taken} taken by ours, {fewer} fewer available than before"
            ok = taken >= 0.98 * wanted
            values = {"asked": float(wanted), "measured": float(taken)}
        effect = Effect.EFFECTIVE if ok else Effect.INEFFECTIVE
        reason = "" if ok else "somebody has freed inodes since"
        return Reading(effect, asked, measured, self.measures, reason, values)


def _entries(folder: int, name: str) -> int:
    """How many inodes a folder takes with everything in it; 0 where there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        with os.scandir(fd) as found:
            names = [(each.name, each.is_dir(follow_symlinks=False)) for each in found]
        return 1 + sum(_entries(fd, inner) if is_dir else 1 for inner, is_dir in names)
    finally:
        os.close(fd)


class ReadonlyParams(Params):
    """Parameters of `disk readonly`."""

    path: Annotated[str, Field(max_length=4095, pattern="^/"), Flag("p")]
    """Where the file system is mounted."""


class DiskReadonly(Fault[ReadonlyParams]):
    """Make a file system read-only, as the kernel does it after a disk error."""

    id = "disk.readonly"
    ending = Ending.KEEPER
    does = "Sets the file system read-only by its root (fsconfig(2)), for all that have it mounted."
    cannot = (
        "The kernel refuses while files on it are open for writing; they are named then. It keeps "
        "the file system from being unmounted until it is undone."
    )
    measures = "Tries to make a file on it."
    restores = "Makes it writable again, unless somebody has done so."
    example: ClassVar[dict[str, str]] = {"path": "{disk}"}
    needs = frozenset({"root"})
    scratch = "disk"

    def plan(self, place: Place, params: ReadonlyParams) -> list[Change]:
        if os.geteuid() != 0:
            raise Unsupported("file systems are set read-only by root alone", hint="run as root")
        path = folder(place, params.path, "path")
        with opened(place, params.path) as fd:
            mount = mounts.mount_of_fd(fd, place.pid)
            if not reconfigure.is_mount_root(fd):
                where = f"; it lies on {mount.point}" if mount else ""
                raise Unsupported(f"nothing is mounted at {path}{where}", hint="name a mount point")
            device = os.fstat(fd).st_dev
            protect_host(fd, path)
        others = [each.point for each in mounts.mounts() if os.makedev(*each.device) == device]
        if len(others) > 1:
            guards.current().note(f"the file system is mounted at {', '.join(others[:5])}")
        return [Change("mount_readonly", {"path": path})]

    def observe(self, place: Place, params: ReadonlyParams, record: Record) -> Reading:
        asked = f"nothing can be written to {params.path}"
        name = f".faultline-{record.uid}-0.try"
        try:
            with opened(place, params.path) as fd:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=fd))
                os.unlink(name, dir_fd=fd)
        except OSError as error:
            right = error.errno == errno.EROFS
            told = f"making a file fails: {error.strerror}"
            return verdict(asked, told, self.measures, right, "it fails for another reason")
        reason = "somebody has made it writable"
        return verdict(asked, "a file can be made", self.measures, False, reason)
