"""Processes that are sent a signal: ended, crashed, stopped."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from faultline.api.quantities import Between, Duration, Flag
from faultline.changes.model import MARK, Change, Record
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.process_target import (
    ProcessParams,
    RestartParams,
    bounds,
    identity,
    restart,
    selection,
    targets,
)  # fmt: skip
from faultline.injection.reading import Effect, Reading
from faultline.injection.signals import outcome, signal_name, signals
from faultline.kernel import clock, procfs
from faultline.kernel.selection import Spared
from faultline.places.model import Place

_PATIENCE = 0.5  # seconds until a signal that was sent has had its effect
_SAMPLE = 0.05  # seconds over which a stopped process must use no processor time


class KillParams(ProcessParams, RestartParams):
    """Parameters of `process kill`."""

    signal: Annotated[str, AfterValidator(signal_name), Flag("s")] = "KILL"
    """Which signal, by name or number."""
    interval: Annotated[Duration | None, Between("10ms", "1h"), Flag("i")] = None
    """Send again after this time, to whatever fits then; without it the signal is sent once."""
    count: Annotated[int, Between(0, 10**6), Flag("C")] = 0
    """How many rounds; 0 for as many as fit in until the end. Needs `interval`."""

    @model_validator(mode="after")
    def _rounds(self) -> KillParams:
        if self.count and self.interval is None:
            raise ValueError("expected interval together with count")
        return self


def _spared(allow: frozenset[str]) -> Spared:
    """Whom a worker that selects by itself must never hit."""
    session: set[tuple[int, int]] = set()
    for pid in () if "session" in allow else procfs.ourselves():
        try:
            session.add((pid, procfs.ProcessId.of(pid).start))
        except ProcessLookupError:
            continue
    marks = (f"{MARK}:", "keeper:")
    return Spared(guards.PROGRAMS - allow, frozenset(session), marks, "pid-1" not in allow)


class ProcessKill(Fault[KillParams]):
    """Send a signal to processes, once or again and again.

    With `interval` a worker looks again each time and hits what was started anew, to see whether
    whoever supervises it keeps up or gives up.
    """

    id = "process.kill"
    ending = Ending.SELF
    does = (
        "Sends the signal through a pidfd; with `interval` from a worker that ends at the deadline."
    )
    cannot = (
        "Bring back what a process held in memory. A process that ignores or blocks the signal, or "
        "that hangs in the kernel, does not end; the reading says so."
    )
    measures = (
        "Whether these processes are still there, and whether the signal is pending or ignored."
    )
    restores = "Nothing by itself; runs `restart` once, if given."
    example: ClassVar[dict[str, str]] = {"pid": "{pid}"}
    scratch = "process"
    outlives_target = True

    def plan(self, place: Place, params: KillParams) -> list[Change]:
        found = targets(params, place)
        number = int(signal.Signals[f"SIG{params.signal}"])
        changes = [restart(params)] if params.restart else []
        if params.interval is None:
            return [*changes, *signals(found, number)]
        wanted = selection(params, place)
        work: dict[str, Any] = {
            "selection": wanted.to_json(),
            "spared": _spared(guards.current().allow).to_json(),
            "signal": number,
            "interval": int(params.interval),
            "count": params.count,
            "most": bounds(params, wanted)[1],
        }
        what = f"sends SIG{params.signal} every {params.interval} to what fits {wanted}"
        return [
            *changes,
            Change("worker", {"module": "kill_processes", "spec": work, "what": what}),
        ]

    def observe(self, place: Place, params: KillParams, record: Record) -> Reading:
        if params.interval is not None:
            return self._repeated(place, params, record)
        return outcome(record, f"SIG{params.signal}", self.measures)

    def _repeated(self, place: Place, params: KillParams, record: Record) -> Reading:
        """Nobody who fits may be older than a round."""
        interval = params.interval.seconds if params.interval else 0.0
        asked = f"SIG{params.signal} every {params.interval}"
        spared = Spared.from_json(record.steps[-1].change.spec["spec"]["spared"])
        found = [each for each in selection(params, place).find() if not spared.covers(each)]
        ages = [_age(each) for each in found]
        old = [age for age in ages if age > 2 * interval + _PATIENCE]
        oldest = f", the oldest for {max(ages):.2f} s" if ages else ""
        measured = f"{len(found)} processes fit now{oldest}"
        rounds = params.count * interval
        began = (record.deadline - record.duration) / 1e9
        if params.count and clock.now() / 1e9 - began > rounds:
            return Reading.unmeasured(asked, self.measures, f"all {params.count} rounds are over")
        effect = Effect.INEFFECTIVE if old else Effect.EFFECTIVE
        reason = f"{len(old)} are older than a round" if old else ""
        return Reading(effect, asked, measured, self.measures, reason, {"n": float(len(found))})


class CrashParams(ProcessParams, RestartParams):
    """Parameters of `process crash`."""

    signal: Annotated[
        Literal["SEGV", "ABRT", "BUS", "FPE", "ILL", "QUIT", "SYS", "TRAP", "XCPU", "XFSZ"],
        Flag("s"),
    ] = "SEGV"
    """Which of the signals that write a core file and end the process."""


class ProcessCrash(Fault[CrashParams]):
    """Let processes crash: a signal that ends them and writes a core file, if they may have one.

    The plan says how large a core each may write and where the kernel puts it.
    """

    id = "process.crash"
    ending = Ending.INSTANT
    does = "Sends the signal through a pidfd, once."
    cannot = (
        "Bring back what a process held in memory, or remove the core file. A program that handles "
        "the signal decides for itself. The first process of a container is spared by the kernel "
        "from signals that it does not handle."
    )
    measures = ProcessKill.measures
    restores = ProcessKill.restores
    example: ClassVar[dict[str, str]] = {"pid": "{pid}"}
    scratch = "process"
    outlives_target = True

    def plan(self, place: Place, params: CrashParams) -> list[Change]:
        found = targets(params, place)
        pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
        for each in found:
            guards.current().note(f"{each.name} (pid {each.pid}): {_core(each.pid, pattern)}")
        changes = [restart(params)] if params.restart else []
        return [*changes, *signals(found, int(signal.Signals[f"SIG{params.signal}"]))]

    def observe(self, place: Place, params: CrashParams, record: Record) -> Reading:
        return outcome(record, f"SIG{params.signal}", self.measures)


def _core(pid: int, pattern: str) -> str:
    """What will become of the core file of a process, as core(5) has it."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_CORE)
    except (ProcessLookupError, PermissionError):
        return "whether it may write a core file is not known"
    if pattern.startswith("|"):
        return f"its core is given to {pattern[1:].split(maxsplit=1)[0]}"
    if soft == 0:
        return "it writes no core file (its limit of core files is 0)"
    size = "of any size" if soft == resource.RLIM_INFINITY else f"of at most {soft} bytes"
    return f"a core file {size}, named {pattern}"


class StopParams(ProcessParams):
    """Parameters of `process stop`."""


class ProcessStop(Fault[StopParams]):
    """Stop processes, as if they hung: connections stay open, nothing answers."""

    id = "process.stop"
    ending = Ending.KEEPER
    does = "Sends SIGSTOP through a pidfd; a note of each lies in the store's run folder."
    cannot = (
        "A shell notices that its job was stopped. A process in the middle of an uninterruptible "
        "call stops when that returns."
    )
    measures = "The state of every thread, and that no processor time is used."
    restores = "SIGCONT to the same process, if it is still stopped."
    example: ClassVar[dict[str, str]] = {"pid": "{pid}"}
    scratch = "process"

    def plan(self, place: Place, params: StopParams) -> list[Change]:
        return [Change("stopped", identity(each)) for each in targets(params, place)]

    def observe(self, place: Place, params: StopParams, record: Record) -> Reading:
        hit = [step.change.spec for step in record.steps]
        asked = f"{len(hit)} process(es) stopped"
        until = time.monotonic() + 4 * _PATIENCE
        while time.monotonic() < until and not all(_stopped(spec) for spec in hit):
            time.sleep(0.005)
        before = [_ticks(spec) for spec in hit]
        time.sleep(_SAMPLE)
        still = [spec for spec, used in zip(hit, before, strict=True) if _ticks(spec) == used]
        stopped = sum(_stopped(spec) for spec in still)
        values = {"asked": float(len(hit)), "measured": float(stopped)}
        measured = f"{stopped} of {len(hit)} stopped"
        if all(used is None for used in before):
            return Reading.unmeasured(asked, self.measures, "all of them have ended")
        effect = Effect.EFFECTIVE if stopped == len(hit) else Effect.INEFFECTIVE
        reason = "" if stopped == len(hit) else "somebody continued or ended the others"
        return Reading(effect, asked, measured, self.measures, reason, values)


def _age(process: procfs.Process) -> float:
    return clock.now() / 1e9 - process.id.start / os.sysconf("SC_CLK_TCK")


def _stopped(spec: dict[str, Any]) -> bool:
    """Whether every thread of this very process is stopped."""
    if not procfs.ProcessId(spec["pid"], spec["start"]).alive():
        return False
    states = procfs.thread_states([spec["pid"]])
    return set(states) == {"T"}


def _ticks(spec: dict[str, Any]) -> int | None:
    """Processor time of this very process, in clock ticks; None if it has ended."""
    if not procfs.ProcessId(spec["pid"], spec["start"]).alive():
        return None
    try:
        text = Path(f"/proc/{spec['pid']}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
