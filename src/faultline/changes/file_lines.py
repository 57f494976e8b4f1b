"""Lines that a worker appends to a file: the book of where they stand, and taking exactly them
out again.

Taking lines out makes the file shorter. A program that reads it by offset, such as a log shipper,
takes a shorter file for a new one and sends all of it again; one that writes can add a line at
the very moment. So by default (`keep: held`) lines are removed only if nobody has the file open;
else they stay, the answer says who holds it, and nothing is torn. `all` always keeps them, `none`
always removes them.

A worker that follows the name over a rotation has a book for each file that it wrote to; each file
is undone on its own, found in the folder by its inode.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from faultline.changes import content_restore as restore
from faultline.changes import sidecar
from faultline.changes.content_restore import Goal
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.changes.sidecar import Folder, own_name
from faultline.errors import Refused, TargetGone
from faultline.kernel import clock, files, filesystem, procfs
from faultline.kernel.netlink import Netlink
from faultline.workers.line_ledger import MOST_FILES, Ledger, located, role

MOST_LINES: Final = 2_000_000
_SPARE: Final = 16
_EACH: Final = 15e-6  # seconds that taking out one line takes at most
_PARTS: Final = ("lines", "redo", "reserve")  # of each file that lines went to
_SHARED: Final = ("boot", "folder", "names")  # what is the same for all files of a fault
_WORST: Final = (Undone.FAILED, Undone.KEPT, Undone.UNDONE, Undone.GONE, Undone.ABSENT)


@dataclass(frozen=True, slots=True)
class Written:
    """One file that lines went to: which of them, and what it was before the first line."""

    number: int
    known: Data


class FileLines(Kind):
    """spec: {path, count, interval: ns, keep: 'all', 'held' or 'none'}; must be step 0 of its
    fault.
    """

    name: ClassVar[str] = "file_lines"
    survives_reboot: ClassVar[bool] = True

    def takes(self, spec: Data) -> float:
        # Each line is read again before it is taken out; a fault seldom lasts longer than an hour.
        lines = spec["count"] or 3600 * 10**9 // max(1, spec["interval"])
        return min(lines, MOST_LINES) * _EACH

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"file:{prior['dev']}:{prior['ino']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        where, name = sidecar.split(spec["path"])
        with Folder.open(where, ctx) as folder:
            sidecar.changeable(folder, ctx)
            info, same = sidecar.regular(folder, name, ctx)
            sidecar.refuse_claimed(folder, name, ctx)
            if filesystem.space(folder.fd).free < 1 << 20:
                raise Refused(f"{folder.path} is full: no line can be appended")
            times = {"accessed": info.st_atime_ns, "modified": info.st_mtime_ns}
            return {
                **same, **times, "folder": folder.identity(), "size": info.st_size, "names": [name],
            }  # fmt: skip

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [Folder.open_exactly(prior["folder"], ctx)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with Folder.reopen(prior["folder"], ctx) as folder, contextlib.ExitStack() as stack:
            if not folder.holds(prior["names"][0], prior):
                raise TargetGone(
                    f"{spec['path']} was replaced by another file since the plan was made"
                )
            sidecar.write(folder, ctx, self.name, spec, prior)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            for part in ("reserve", "lines"):
                fd = folder.open_file(own_name(ctx, part), flags)
                stack.callback(os.close, fd)
                os.fchmod(fd, 0o600)  # whatever the umask
                if part == "reserve":
                    restore.prepare(fd)
                    continue
                fits = max(0, ctx.deadline - clock.now()) // max(1, spec["interval"]) + _SPARE
                slots = min(spec["count"] or MOST_LINES, fits, MOST_LINES)
                info = folder.stat(prior["names"][0])
                if info is None:
                    raise TargetGone(f"{spec['path']} is gone")
                Ledger.create(fd, info, prior["birth"], slots)
            folder.sync()
        return {"slots": slots}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                return Presence.OURS if sidecar.exists(folder, ctx) else Presence.ABSENT
        except TargetGone:
            return Presence.GONE

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        try:
            with Folder.reopen(prior["folder"], ctx) as folder:
                if not sidecar.exists(folder, ctx):
                    return Outcome(Undone.ABSENT, "nothing of ours lies in the folder")
                found = [
                    self._undo(spec, each, folder, ctx)
                    for each in written_to(folder, ctx.uid, ctx.index, prior)
                ]
                outcome = _together(found)
                if outcome.settled:
                    sidecar.remove(folder, ctx, *_roles())
                return outcome
        except TargetGone as gone:
            return Outcome(Undone.GONE, gone.message)

    def _undo(self, spec: Data, file: Written, folder: Folder, ctx: Context) -> Outcome:
        known = file.known
        name = known["names"][0]
        if not folder.holds(name, known):
            found = folder.find(known)
            if found is None:
                return Outcome(
                    Undone.GONE, f"{name} was removed or replaced, and the lines with it"
                )
            name = found
        with contextlib.ExitStack() as stack:
            own = {part: own_name(ctx, role(part, file.number)) for part in _PARTS}

            def get(part: str) -> int | None:
                if folder.stat(own[part]) is None:
                    return None
                fd = folder.open_file(own[part], os.O_RDWR)
                stack.callback(os.close, fd)
                return fd

            redo, book, reserve = get("redo"), get("lines"), get("reserve")
            ledger = Ledger.open(book) if book is not None else None
            small = redo if redo is not None else reserve
            if small is None or (ledger is None and redo is None):
                return Outcome(Undone.ABSENT, "no line had been appended yet")
            fd = files.open_regular(folder.fd, name, os.O_RDWR)
            stack.callback(os.close, fd)
            if redo is None:
                ours = sorted(_ranges(ledger, fd)) if ledger else []
                stay = self._stay(spec, ours, fd)
                if stay:
                    return stay
                size = os.fstat(fd).st_size
                restore.fix(small, Goal(ours[0][0], source=tuple(between(ours, size))), fd, size)
                folder.rename(own["reserve"], own["redo"])
                folder.sync()
            return _take_out(fd, small, known)

    def _stay(self, spec: Data, ours: list[tuple[int, int]], fd: int) -> Outcome | None:
        """The answer if no line is to be removed."""
        if not ours:
            return Outcome(Undone.ABSENT, "none of our lines is in the file")
        if spec["keep"] == "all":
            return Outcome(Undone.UNDONE, f"appending has ended; {len(ours)} lines stay as asked")
        held = holders(fd) if spec["keep"] == "held" else []
        if held:
            who = ", ".join(held)
            stay = f"{len(ours)} lines of ours stay, since {who} has the file open"
            return Outcome(Undone.KEPT, f"appending has ended; {stay}")
        return None

    def describe(self, spec: Data) -> tuple[str, str]:
        what = f"{spec['count']} lines" if spec["count"] else "lines until the end"
        undo = {
            "all": "the lines stay, as asked",
            "none": "take exactly these lines out again",
            "held": "take exactly these lines out again, unless a program has the file open",
        }
        return f"append {what} to {spec['path']}", undo[spec["keep"]]

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        folder = sidecar.typed(prior["folder"], ctx)
        base = [*_PARTS, "part", "json"]
        more = [each for each in _roles()[len(_PARTS) :] if spec.get("follow")]
        ours = [os.path.join(folder, own_name(ctx, each)) for each in (*base, *more)]
        return (("rm", "-f", "--", *ours),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, folders)


def _roles() -> list[str]:
    """Of all our files but the note, those of the first file first."""
    return [role(part, number) for number in range(MOST_FILES) for part in _PARTS]


def _together(found: list[Outcome]) -> Outcome:
    """The answers of all files as one: the worst end, and what was done to each."""
    ends = [each.end for each in found]
    end = next((worst for worst in _WORST if worst in ends), Undone.ABSENT)
    told = [each.detail for each in found if each.end is not Undone.ABSENT or len(found) == 1]
    return Outcome(end, "; ".join(dict.fromkeys(told)))


def written_to(folder: Folder, uid: str, index: int, prior: Data) -> Iterator[Written]:
    """Every file that lines of a fault may have gone to, the first one first."""
    yield Written(0, prior)
    for number in range(1, MOST_FILES):
        ledger = ledger_of(folder, uid, index, number)
        if ledger is None:
            continue
        os.close(ledger.fd)
        same = {"dev": ledger.device, "ino": ledger.inode, "birth": ledger.birth}
        yield Written(number, {**{k: prior[k] for k in _SHARED}, **same, "size": ledger.size})


def ledger_of(folder: Folder, uid: str, index: int, number: int) -> Ledger | None:
    """The book of file number `number`, its descriptor to be closed; None if there is none."""
    try:
        fd = folder.open_file(f".faultline-{uid}-{index}.{role('lines', number)}", os.O_RDWR)
    except FileNotFoundError:
        return None
    ledger = Ledger.open(fd)
    if ledger is None:
        os.close(fd)
    return ledger


def _ranges(ledger: Ledger, fd: int) -> Iterator[tuple[int, int]]:
    for line in ledger.lines():
        found = located(line, fd)
        if found:
            yield found


def between(ours: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The ranges of others behind the first of ours."""
    for (_, end), (begin, _) in zip(ours, [*ours[1:], (size, size)], strict=True):
        if begin > end:
            yield end, begin


def _take_out(fd: int, small: int, prior: Data) -> Outcome:
    """Write the lines of others over ours and cut the file off behind them."""
    fixed = restore.fixed(small)
    if fixed is None:
        return Outcome(Undone.FAILED, "what the file shall hold could not be written down")
    info = os.fstat(fd)
    restore.write_back(fd, fd, small, fixed)
    whole = os.fstat(fd).st_size == prior["size"] and "modified" in prior
    if whole:
        os.utime(fd, ns=(prior["accessed"], prior["modified"]))
        return Outcome(Undone.UNDONE, "our lines are taken out")
    os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
    return Outcome(Undone.KEPT, "our lines are taken out; those that others wrote are kept")


def holders(fd: int) -> list[str]:
    """Who else has this file open, for people; those of other users are seen by root alone."""
    info = os.fstat(fd)
    found: list[str] = []
    for pid in procfs.pids():
        if pid != os.getpid() and _has_open(pid, info):
            try:
                found.append(f"{procfs.process(pid).name} (pid {pid})")
            except ProcessLookupError:
                continue
    return found


def _has_open(pid: int, info: os.stat_result) -> bool:
    for number, target in procfs.descriptors(pid).items():
        if not target.startswith("/"):
            continue
        try:
            other = os.stat(f"/proc/{pid}/fd/{number}")
        except OSError:  # closed meanwhile, or not ours to see
            continue
        if (other.st_dev, other.st_ino) == (info.st_dev, info.st_ino):
            return True
    return False
