"""Faults of files: made, grown, hidden, moved, cut, edited, closed to their readers.

All act on one plain file by its inode and never follow a link at the end of the path. Before
anything is changed a note for whoever has to undo it lies beside the file, so that it is
recovered after a reboot and without any journal. A program's own writes meanwhile are kept.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, Size, text
from faultline.changes.merge import replaced
from faultline.changes.model import Change, Record
from faultline.injection import guards
from faultline.injection.file_target import (
    content_of,
    folder,
    linked,
    note_root,
    readable,
    status_of,
    verdict,
)
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import clock
from faultline.places.model import Place
from faultline.workers import line_template

_CANNOT = (
    "Folders, links, devices and files on network or read-only file systems are refused. The time "
    "of the last status change (ctime) cannot be set by anybody. "
)
_NOTE = "A note of ours (0600) lies in the same folder until it is undone. "


def _absolute(path: str) -> str:
    if not path.startswith("/") or os.path.normpath(path) != path or "\0" in path:
        raise ValueError("expected an absolute path of a file, without '..' and '//'")
    return path


def _mode(text: str) -> str:
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise ValueError("expected three or four octal digits, such as 0640")
    return text


FilePath = Annotated[str, AfterValidator(_absolute), Field(max_length=4095)]
Permission = Annotated[str, AfterValidator(_mode), Flag("P", ("mode",))]
Text = Annotated[str, Field(max_length=1 << 20)]


class _Path(Params):
    path: Annotated[FilePath, Flag("p", ("src",))]
    """The file, by its absolute path."""


P = TypeVar("P", bound=_Path)


class _FileFault(Fault[P]):
    """What the faults of files share."""

    ending = Ending.KEEPER
    scratch = "file"
    cannot = _CANNOT
    demands = ("delete pods", "create pods/exec")


class AddParams(_Path):
    """Parameters of `file add`."""

    content: Annotated[Text, Flag("c")] = ""
    """What the file holds."""
    permission: Permission = "0644"
    """Its mode, in octal."""
    force: Annotated[bool, Flag("f")] = False
    """Make missing folders; put the file in place of one that exists, which is hidden meanwhile."""


class FileAdd(_FileFault[AddParams]):
    """Make a file that should not be there.

    With `force` an existing file of that name is hidden first and is back, the same inode,
    afterwards.
    """

    id = "file.add"
    does = _NOTE + "The file is written under a hidden name and renamed to its own."
    cannot = _CANNOT + "A file that somebody has changed since is left for a person to remove."
    measures = "The entry of the file: size and mode (lstat)."
    restores = "Removes the file, then folders that were made for it if they are still empty."
    example: ClassVar[dict[str, str]] = {"path": "{folder}/stray.conf", "content": "mode = wild"}

    def plan(self, place: Place, params: AddParams) -> list[Change]:
        note_root(place, params.path)
        changes: list[Change] = []
        if params.force and status_of(place, params.path) is not None:
            changes.append(Change("file_moved", {"path": params.path, "to": ""}))
        mode = int(params.permission, 8)
        made: dict[str, Any] = {"path": params.path, "content": params.content, "mode": mode}
        more = {"parents": params.force, "replaces": bool(changes)}
        return [*changes, Change("file_added", {**made, **more})]

    def observe(self, place: Place, params: AddParams, record: Record) -> Reading:
        size = len(params.content.encode())
        info = status_of(place, params.path)
        ok = info is not None and info.st_size == size
        measured = f"{info.st_size} bytes, mode {stat.S_IMODE(info.st_mode):04o}" if info else ""
        asked = f"{params.path} with {size} bytes"
        return verdict(
            asked, measured or "no such file", self.measures, ok, "it is not as it was made"
        )


class AppendParams(_Path):
    """Parameters of `file append`."""

    content: Annotated[str, AfterValidator(line_template.check), Field(min_length=1), Flag("c")]
    """One line. `{now}`, `{now:%H:%M:%S}` (strftime), `{n}` and `{uid}` are filled in; `{{` is a
    brace.
    """
    count: Annotated[int, Between(0, 2_000_000), Flag("C")] = 10
    """How many lines; 0 for as many as fit in until the end."""
    interval: Annotated[Duration, Between("1ms", "1h"), Flag("i")] = text("1s")
    """Time from one line to the next."""
    keep: Literal["held", "all", "none"] = "held"
    """Which lines stay: all, none, or those of a file that a program has open (held)."""


class FileAppend(_FileFault[AppendParams]):
    """Append lines at a rate: log lines that monitoring has to find.

    Lines are taken out again exactly, those of the program stay. Shortening a file makes readers
    by offset (log shippers) send it anew, and a program that writes at that moment could lose a
    line: by default lines therefore stay in a file that somebody has open, and the answer says
    so.
    """

    id = "file.append"
    does = _NOTE + "A worker appends (O_APPEND) and keeps a book of where each line stands."
    cannot = _CANNOT + "After a rotation the lines go on in the renamed file."
    measures = "Lines of this form behind the file's former end, against those due by now."
    restores = (
        "Stops the worker; takes out the lines that are still as written, unless they are kept."
    )
    example: ClassVar[dict[str, str]] = {
        "path": "{folder}/app.log",
        "content": "{now:%Y-%m-%dT%H:%M:%S} ERROR simulated failure {n} of {uid}",
        "count": "20",
        "interval": "50ms",
    }

    def plan(self, place: Place, params: AppendParams) -> list[Change]:
        linked(place, params.path)
        interval = int(params.interval)
        shared: dict[str, Any] = {"path": params.path, "count": params.count, "interval": interval}
        what = f"appends lines to {params.path}, one every {params.interval}"
        where, name = os.path.split(params.path)
        path = f"{folder(place, where, 'path').rstrip('/')}/{name}"
        work = {**shared, "path": path, "template": params.content}
        worker = {"module": "append_lines", "spec": work, "what": what}
        return [Change("file_lines", {**shared, "keep": params.keep}), Change("worker", worker)]

    def observe(self, place: Place, params: AppendParams, record: Record) -> Reading:
        asked = f"{params.count or 'unlimited'} lines, one every {params.interval}"
        prior = record.steps[0].prior
        form = line_template.pattern(params.content, record.uid)
        with readable(place, params.path) as fd:
            if fd is None:
                return Reading.unmeasured(asked, self.measures, f"{params.path} is gone")
            found = len(form.findall(os.pread(fd, 64 << 20, prior["size"])))
        elapsed = clock.now() - (record.deadline - record.duration)
        due = elapsed // int(params.interval) + 1
        due = min(due, params.count) if params.count else due
        # The worker starts a little after the record does; half a second is granted for that.
        slack = 1 + 500_000_000 // int(params.interval) + due // 20
        values = {"asked": float(due), "measured": float(found)}
        effect = Effect.EFFECTIVE if due - slack <= found and found else Effect.INEFFECTIVE
        reason = "" if effect is Effect.EFFECTIVE else f"{due} lines were due; is the disk full?"
        return Reading(effect, asked, f"{found} lines, {due} due", self.measures, reason, values)


class ChmodParams(_Path):
    """Parameters of `file chmod`."""

    permission: Permission
    """The mode, in octal."""


class FileChmod(_FileFault[ChmodParams]):
    """Change who may read, write or run a file."""

    id = "file.chmod"
    does = _NOTE + "Sets the mode of the inode."
    cannot = _CANNOT + "Root and programs that have the file open already do not notice."
    measures = "The mode of the file (lstat)."
    restores = (
        "Sets the former mode if it is still the one that was set; access lists follow their mask."
    )
    example: ClassVar[dict[str, str]] = {"path": "{folder}/app.conf", "permission": "0000"}

    def plan(self, place: Place, params: ChmodParams) -> list[Change]:
        linked(place, params.path)
        return [Change("file_attributes", {"path": params.path, "mode": int(params.permission, 8)})]

    def observe(self, place: Place, params: ChmodParams, record: Record) -> Reading:
        info, wanted = status_of(place, params.path), int(params.permission, 8)
        if info is None:
            return Reading.unmeasured(f"mode {wanted:04o}", self.measures, "the file is gone")
        mode = stat.S_IMODE(info.st_mode)
        reason = "somebody has set another mode"
        return verdict(f"mode {wanted:04o}", f"{mode:04o}", self.measures, mode == wanted, reason)


class DeleteParams(_Path):
    """Parameters of `file delete`."""


class FileDelete(_FileFault[DeleteParams]):
    """Take a file away.

    It is hidden under a name of ours in the same folder, so it comes back as the same inode, and
    programs that have it open go on with it, as with a file that was really removed.
    """

    id = "file.delete"
    does = _NOTE + "Renames the file to a hidden name that carries the mark."
    cannot = _CANNOT + "No space is freed. Other names of the file (hard links) stay."
    measures = "That the path leads to nothing (lstat)."
    restores = "Renames it back, unless somebody has made a new file of that name."
    example: ClassVar[dict[str, str]] = {"path": "{folder}/app.conf"}

    def plan(self, place: Place, params: DeleteParams) -> list[Change]:
        if linked(place, params.path) > 1:
            guards.current().note(f"only the name {params.path} is taken away")
        return [Change("file_moved", {"path": params.path, "to": ""})]

    def observe(self, place: Place, params: DeleteParams, record: Record) -> Reading:
        gone = status_of(place, params.path) is None
        measured = "no such file" if gone else "there is a file"
        asked = f"{params.path} absent"
        return verdict(
            asked, measured, self.measures, gone, "somebody has made a new file of that name"
        )


class MoveParams(_Path):
    """Parameters of `file move`."""

    to: Annotated[FilePath, Flag("d", ("dst",))]
    """Where to, on the same file system; nothing may be there."""


class FileMove(_FileFault[MoveParams]):
    """Move a file to where nobody looks for it."""

    id = "file.move"
    does = _NOTE + "Renames the file; nothing is ever replaced."
    cannot = _CANNOT + "It cannot move to another file system: a copy would be another file."
    measures = "That the path leads to nothing and the other to the file (lstat)."
    restores = "Renames it back, unless somebody has made a new file of that name."
    example: ClassVar[dict[str, str]] = {"path": "{folder}/app.conf", "to": "{folder}/app.conf.old"}

    def plan(self, place: Place, params: MoveParams) -> list[Change]:
        linked(place, params.path)
        return [Change("file_moved", {"path": params.path, "to": params.to})]

    def observe(self, place: Place, params: MoveParams, record: Record) -> Reading:
        there, here = status_of(place, params.to), status_of(place, params.path)
        same = there is not None and there.st_ino == record.steps[0].prior["ino"]
        measured = (
            f"{'in' if same else 'not in'} its new place, {'also' if here else 'not'} in its old"
        )
        ok = same and here is None
        reason = "somebody has moved it or made a new file of that name"
        return verdict(f"{params.path} at {params.to}", measured, self.measures, ok, reason)


class ReplaceParams(_Path):
    """Parameters of `file replace`."""

    find: Annotated[str, Field(min_length=1, max_length=65536), Flag("s", ("origin-string",))]
    """The text to replace."""
    replacement: Annotated[str, Field(max_length=65536), Flag("r", ("dest-string",))] = ""
    """What to put in its place; with `regex` it may name groups."""
    regex: bool = False
    """`find` is a regular expression (Python's, on bytes); `^` and `$` stand at each line."""
    line: Annotated[int, Between(0, 10**9), Flag("l")] = 0
    """Only in this line, counted from 1; 0 for everywhere."""
    count: Annotated[int, Between(0, 10**9), Flag("C")] = 0
    """Only the first so many; 0 for all."""

    @model_validator(mode="after")
    def _works(self) -> ReplaceParams:
        try:
            replaced(b"", self.find, self.replacement, regex=self.regex, line=0, count=0)
        except (re.error, IndexError) as error:
            raise ValueError(f"not a regular expression with its replacement: {error}") from error
        return self


class FileReplace(_FileFault[ReplaceParams]):
    """Replace text in a file: a wrong setting, a broken address."""

    id = "file.replace"
    does = _NOTE + "Copies the file aside (0600) and writes the changed lines in place, same inode."
    cannot = _CANNOT + "Files up to 16 MiB. Programs that read their settings once do not notice."
    measures = "The content against its digest from before, and how often the new text is in it."
    restores = "Content, times, mode and inode; lines that others changed or added meanwhile stay."
    example: ClassVar[dict[str, str]] = {
        "path": "{folder}/app.conf",
        "find": "mode = calm",
        "replacement": "mode = wild",
    }

    def plan(self, place: Place, params: ReplaceParams) -> list[Change]:
        edit = {"find": params.find, "put": params.replacement, "regex": params.regex}
        edit |= {"line": params.line, "count": params.count}
        links = linked(place, params.path)
        return [Change("file_content", {"path": params.path, "replace": edit, "links": links})]

    def observe(self, place: Place, params: ReplaceParams, record: Record) -> Reading:
        asked = f"{params.find!r} replaced by {params.replacement!r}"
        found = content_of(place, params.path, record)
        if found is None:
            return Reading.unmeasured(asked, self.measures, "the file is gone or another one")
        digest, content = found
        changed = digest != record.steps[0].prior["file"]["digest"]
        times = content.count(params.replacement.encode()) if params.replacement else 0
        measured = "changed" if changed else "as before"
        if changed and params.replacement and not params.regex:
            measured += f", the new text is in it {times} times"
        ok = changed and (params.regex or not params.replacement or times > 0)
        return verdict(asked, measured, self.measures, ok, "somebody has put the content back")


class TruncateParams(_Path):
    """Parameters of `file truncate`."""

    bytes: Annotated[Size, Between("0B", "1TiB"), Flag("b")] = text("0B")
    """How much of the beginning stays."""


class FileTruncate(_FileFault[TruncateParams]):
    """Cut a file off, as a crash or a careless clean-up does."""

    id = "file.truncate"
    does = _NOTE + "Copies the file aside (0600), cuts it off and keeps its blocks reserved."
    cannot = (
        _CANNOT + "Needs as much free space as the file has; frees none, so undo never lacks it."
    )
    measures = "The size of the file (lstat), else its digest against that from before."
    restores = "Content, times, mode and inode; what programs wrote meanwhile stands behind it."
    example: ClassVar[dict[str, str]] = {"path": "{folder}/app.log", "bytes": "10B"}

    def plan(self, place: Place, params: TruncateParams) -> list[Change]:
        spec = {
            "path": params.path,
            "truncate": int(params.bytes),
            "links": linked(place, params.path),
        }
        return [Change("file_content", spec)]

    def observe(self, place: Place, params: TruncateParams, record: Record) -> Reading:
        asked = f"cut off at {params.bytes}"
        before = record.steps[0].prior["file"]
        info = status_of(place, params.path)
        if info is None:
            return Reading.unmeasured(asked, self.measures, "the file is gone")
        ok = info.st_size < before["size"]
        if not ok:  # programs may have written more than was cut off
            found = content_of(place, params.path, record)
            ok = found is not None and found[0] != before["digest"]
        measured = f"{info.st_size} bytes, {before['size']} before"
        return verdict(asked, measured, self.measures, ok, "somebody has put the content back")
