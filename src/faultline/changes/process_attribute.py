"""The change that sets an attribute of a process: its priority, a limit; put back thread by thread.

What is there is ours only while it reads as what was set. Threads and child processes that begin
meanwhile inherit it; they are put back to what the process itself had. An attribute cannot carry a
mark, so a note lies in the store's run folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

from faultline.changes import marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import ApplyFailed, Refused, TargetGone, Unsupported
from faultline.kernel import attributes, clock, procfs
from faultline.kernel.attributes import ATTRIBUTES, Value
from faultline.kernel.netlink import Netlink
from faultline.kernel.procfs import ProcessId

_ROUNDS = 20  # how often is looked for threads that have begun meanwhile


class ProcessAttribute(Kind):
    """spec: {pid, start, name, attribute, value: [numbers]}; see `kernel.attributes`."""

    name: ClassVar[str] = "process_attribute"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"{spec['attribute']} of process {spec['pid']}:{spec['start']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        before = {
            str(each.pid): [each.start, value]
            for each in _members(spec)
            if (value := _read(spec, each)) is not None
        }
        if not before:
            raise TargetGone(f"{_who(spec)} has ended")
        if all(value == spec["value"] for _, value in before.values()):
            raise Refused(f"{_what(spec)} is {_say(spec, spec['value'])} already")
        for tid in before:
            try:
                why = attributes.one_way(spec["attribute"], int(tid), spec["value"])
            except ProcessLookupError:
                continue
            if why:
                raise Unsupported(f"{_what(spec)} cannot be put back: {why}", hint="try as root")
        return {"boot": clock.boot_id(), "at": clock.now(), "before": before}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        done: set[ProcessId] = set()
        for _ in range(_ROUNDS):  # a thread that begins now inherits what its maker had
            left = [each for each in _members(spec) if each not in done]
            if not left:
                break
            done.update(left)
            for each in left:
                _write(spec, each, spec["value"])
        if not any(_read(spec, each) == spec["value"] for each in done):
            raise TargetGone(f"{_who(spec)} has ended")
        return {"threads": len(done)}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if prior.get("boot", clock.boot_id()) != clock.boot_id():
            return Presence.GONE
        now = [(_read(spec, each), before) for each, before in _touched(spec, prior)]
        there = [(value, before) for value, before in now if value is not None]
        if any(value == spec["value"] for value, _ in there):
            return Presence.OURS
        if not there:
            return Presence.ABSENT if _process(spec).alive() else Presence.GONE
        return Presence.ABSENT if all(v == before for v, before in there) else Presence.FOREIGN

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data) -> Outcome:
        if prior.get("boot", clock.boot_id()) != clock.boot_id():
            return Outcome(Undone.GONE, "the host was started anew since")
        back, foreign, short = 0, 0, 0
        for each, before in _touched(spec, prior):
            now = _read(spec, each)
            if now == spec["value"]:
                _write(spec, each, before)
                back += 1
                short += _read(spec, each) not in (before, None)
            elif now not in (before, None):
                foreign += 1
        what = _what(spec)
        if short:
            detail = f"{what} is not what it was for {short}: the hard limit was lowered meanwhile"
            return Outcome(Undone.KEPT, detail)
        if foreign:
            return Outcome(Undone.KEPT, f"somebody else has set {what} meanwhile: that is left")
        if back:
            return Outcome(
                Undone.UNDONE, f"{what} is what it was, of {back} thread(s) or process(es)"
            )
        if not _process(spec).alive():
            return Outcome(Undone.GONE, f"{_who(spec)} has ended")
        return Outcome(Undone.ABSENT, f"{what} is what it was")

    def describe(self, spec: Data) -> tuple[str, str]:
        what = _what(spec)
        return (
            f"set {what} to {_say(spec, spec['value'])}",
            f"put back {what}, of it and of what it has started since, where nobody else set it",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return tuple(
            _typed(spec["attribute"], str(each.pid), before)
            for each, before in _touched(spec, prior)
            if _read(spec, each) == spec["value"]
        )

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


def _process(spec: Data) -> ProcessId:
    return ProcessId(spec["pid"], spec["start"])


def _who(spec: Data) -> str:
    return f"{spec['name']} (pid {spec['pid']})"


def _what(spec: Data) -> str:
    return f"{spec['attribute']} of {_who(spec)}"


def _say(spec: Data, value: Value) -> str:
    return attributes.words(spec["attribute"], value)


def _members(spec: Data, pid: int = 0) -> list[ProcessId]:
    """Whatever of the process, or of one that it has started, has the attribute by itself."""
    if not pid and not _process(spec).alive():
        return []
    threads = procfs.threads(pid or spec["pid"])
    if ATTRIBUTES[spec["attribute"]].per_thread:
        return threads
    return [each for each in threads if each.pid == (pid or spec["pid"])]


def _touched(spec: Data, prior: Data) -> list[tuple[ProcessId, Value]]:
    """Everything that was set or has inherited it, with what it is to have again."""
    before = prior.get("before", {})
    found = [
        (ProcessId(int(tid), start), value)
        for tid, (start, value) in before.items()
        if value != spec["value"]
    ]
    _, usual = before.get(str(spec["pid"])) or next(iter(before.values()), (0, spec["value"]))
    if usual == spec["value"] or not _process(spec).alive():
        return found
    known = {int(tid) for tid in before}
    since = prior["at"] * os.sysconf("SC_CLK_TCK") // 10**9 - 1
    for process in procfs.descendants(spec["pid"]):
        if process.pid != spec["pid"] and process.id.start < since:
            continue
        found += [
            (each, usual)
            for each in _members(spec, process.pid)
            if each.pid not in known and _read(spec, each) == spec["value"]
        ]
    return found


def _read(spec: Data, each: ProcessId) -> Value | None:
    """What it has now; None if it has ended."""
    try:
        if not each.alive():
            return None
        return ATTRIBUTES[spec["attribute"]].read(each.pid)
    except ProcessLookupError:
        return None
    except PermissionError as error:
        raise Unsupported(f"{_who(spec)} is not yours to change", hint="try as root") from error


def _write(spec: Data, each: ProcessId, value: Value) -> None:
    try:
        if each.alive():
            ATTRIBUTES[spec["attribute"]].write(each.pid, value)
    except ProcessLookupError:
        return
    except (PermissionError, ValueError) as error:
        raise ApplyFailed(
            f"{_what(spec)} could not be set to {_say(spec, value)}: {error}", hint="try as root"
        ) from error


def _typed(attribute: str, pid: str, value: Value) -> tuple[str, ...]:
    """The command by which a person sets it."""
    if attribute == "nice":
        return ("renice", "-n", str(value[0]), "-p", pid)
    if attribute == "policy":
        option = {1: "-f", 2: "-r", 3: "-b", 5: "-i"}.get(value[0], "-o")
        return ("chrt", option, "-p", str(value[1]), pid)
    if attribute == "io":
        return ("ionice", "-c", str(value[0]), "-n", str(value[1]), "-p", pid)
    name = attribute.removeprefix("limit ")
    return ("prlimit", "--pid", pid, f"--{name}={attributes.words(attribute, value)}:")
