"""The change that spawns a process of ours which holds something: load, memory, a port, a tap.

Undo ends the process by its mark, not by a remembered pid: a crash can have swallowed that.
"""

from __future__ import annotations

import json
import os
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar, cast

from faultline.changes import spawning
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import MARK, Change, Outcome, Presence, Undone, read_mark
from faultline.errors import ApplyFailed
from faultline.kernel import clock, procfs
from faultline.kernel.netlink import Netlink

READY = 20.0  # seconds a worker may take to reach its effect, unless its spec says otherwise
GRACE = 0.5  # seconds between SIGTERM and SIGKILL


class Worker(Kind):
    """spec: {module, spec, ready: seconds, stats: bool, what: text, linger: ns}.

    A worker that has to be there until the keeper has acted may outlive the deadline by `linger`.
    """

    name: ClassVar[str] = "worker"

    def takes(self, spec: Data) -> float:
        return float(spec.get("grace", GRACE))

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset(spec.get("claims", ()))

    def capture(self, spec: Data, ctx: Context) -> Data:
        return {}

    def loads(self, spec: Data) -> str:
        return spec["module"]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        order = {
            "module": spec["module"],
            "deadline": ctx.deadline + spec.get("linger", 0),
            "target": target_of_place(ctx.inside, spec["spec"]),
            "spec": {
                **_fill(spec["spec"], ctx),
                "mark": ctx.mark,
                "deadline": ctx.deadline,
                "stats": ctx.stats,
                "root": root_of_place(ctx.inside),
            },
        }
        return {"ready": start(ctx.code, ctx.mark, order, spec.get("ready", READY))}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.OURS if procfs.find_marked(ctx.mark) else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        if ctx.stats:
            _forget(ctx.stats)
        return end_marked(ctx.mark, spec.get("grace", GRACE))

    def describe(self, spec: Data) -> tuple[str, str]:
        return f"start a process of ours: {spec['what']}", "end the process"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        pids = [str(each.pid) for each in procfs.find_marked(ctx.mark)]
        return (("kill", "-9", *pids),) if pids else ()

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        seen: set[tuple[str, int]] = set()
        for process in procfs.find_marked(MARK):
            for argument in process.cmdline:
                marked = read_mark(argument)
                if marked and marked not in seen:
                    seen.add(marked)
                    change = Change(self.name, {"module": "", "spec": {}, "what": process.program})
                    yield Found(*marked, change, {}, f"process {process.pid}")


def end_marked(mark: str, grace: float) -> Outcome:
    """End every process that carries the mark: asked first, and after `grace` seconds not asked."""
    found = procfs.find_marked(mark)
    if not found:
        return Outcome(Undone.ABSENT, "no process carries the mark")
    count = len(found)
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        until = time.monotonic() + patience
        for each in found:
            each.id.send(signum)
        for each in found:
            each.id.wait(max(0.0, until - time.monotonic()))
        # Looked for again: a worker can have had children since.
        found = procfs.find_marked(mark)
        if not found:
            return Outcome(Undone.UNDONE, f"{count} process(es) ended")
    pids = [str(each.pid) for each in found]
    return Outcome(Undone.FAILED, f"still there after SIGKILL: {pids}", (("kill", "-9", *pids),))


def start(code: str, mark: str, order: Data, patience: float) -> Data:
    """Start a worker from the code in folder `code` and return what it tells when it is ready.

    `order` is {module, deadline, spec}. Raises ApplyFailed if it does not get ready in time.
    """
    with closing(spawning.spawn(code, order["module"], mark)) as waiting:
        answer = waiting.obey(json.dumps(order).encode(), patience)
    if "ready" in answer:
        return answer["ready"]
    told = answer.get("error", spawning.SILENCE)
    over = clock.now() >= order["spec"].get("deadline", order["deadline"])
    if told == spawning.SILENCE and over:
        raise ApplyFailed(
            f"the duration was over before worker {order['module']} was in place",
            hint="ask for a longer one, or try again when the machine is less busy",
        )
    raise ApplyFailed(f"worker {order['module']}: {told}")


def tap_name(uid: str, step: int) -> str:
    """The name of the tap device of a worker; the same for the same step."""
    return f"fl{zlib.crc32(f'{uid}:{step}'.encode()):08x}t"


def _fill(value: Any, ctx: Context) -> Any:
    """A plan does not know the uid yet: `@uid`, `@tap` and `@tap+1`, which is the name of a second
    tap, stand for what depends on it.
    """
    if isinstance(value, dict):
        inside = cast("dict[str, Any]", value)
        return {name: _fill(inner, ctx) for name, inner in inside.items()}
    taps = {"@tap": tap_name(ctx.uid, ctx.index), "@tap+1": tap_name(ctx.uid, ctx.index + 1)}
    known = {"@uid": ctx.uid, **taps}
    return known.get(value, value) if isinstance(value, str) else value


def root_of_place(place: Data) -> Data | None:
    """The process whose root directory a worker walks its paths from; None for our own root."""
    if not place.get("rooted"):
        return None
    return {"pid": place["pid"], "start": place["start"]}


def target_of_place(place: Data, order: Data) -> Data | None:
    """What a worker ends with: the process of a place or, where it has joined the groups of a place
    that no single process stands for, those who are in there; None for nobody.
    """
    if place.get("ends_with"):
        return {"pid": place["pid"], "start": place["start"]}
    if place.get("kind") == "cgroup" and order.get("join"):
        return {"group": place["group"]}
    return None


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
