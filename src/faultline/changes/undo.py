"""Applying and undoing a record, step by step. The same code runs in the command and in the
keepers.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from faultline.changes import spawning
from faultline.changes.kind import Context, Data, Kind, kinds
from faultline.changes.lock import STEAL, FaultLock
from faultline.changes.model import End, Outcome, Presence, Record, Step, StepState, Undone
from faultline.errors import ApplyFailed, FaultlineError, RecoveryIncomplete
from faultline.kernel import clock, machine
from faultline.kernel.netlink import Netlink
from faultline.kernel.procfs import ProcessId

Note = Callable[[int, Step], None]


def contexts(record: Record, netlink: Netlink | None, run: str, code: str) -> list[Context]:
    """One context per step; `release` lets go of what they hold."""
    root = _open_root(record)
    return [
        Context(
            record.uid,
            index if step.number is None else step.number,
            record.deadline,
            netlink,
            run,
            code,
            record.place,
            root,
        )
        for index, step in enumerate(record.steps)
    ]


def _open_root(record: Record) -> int | None:
    """The root directory of the record's place where that has one of its own and still lives.

    That of the machine is there after a reboot too, and may be ours or not: what was injected from
    a pod can be undone without it, and the other way round.
    """
    if record.place.get("kind") == "host":
        if record.place.get("rooted") and record.boot_id == clock.boot_id():
            with suppress(OSError):
                return ProcessId(record.place["pid"], record.place["start"]).open_root()
        around = machine.pid()
        if not around and not record.place.get("rooted"):
            return None
        path = f"/proc/{around}/root" if around else "/"
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not record.place.get("rooted") or record.boot_id != clock.boot_id():
        return None
    try:
        return ProcessId(record.place["pid"], record.place["start"]).open_root()
    except ProcessLookupError:
        return None


def release(made_with: list[Context]) -> None:
    """Close what the contexts of one record hold: their root, and what was handed to them."""
    for fd in {ctx.root_fd for ctx in made_with if ctx.root_fd is not None}:
        os.close(fd)
    for ctx in made_with:
        ctx.root_fd = None
        while ctx.handed:
            os.close(ctx.handed.pop())


def ended_with_target(record: Record) -> bool:
    """Whether the process that the place is known by has ended, in this boot."""
    place = record.place
    if not place.get("pid") or record.boot_id != clock.boot_id():
        return False
    return not ProcessId(place["pid"], place["start"]).alive()


def kind_of(step: Step) -> Kind:
    """The kind of a step; a record of a newer version may name one that we do not have."""
    try:
        return kinds()[step.change.kind]
    except KeyError:
        raise RecoveryIncomplete(
            f"this version does not know changes of kind {step.change.kind!r}"
        ) from None


def apply_steps(record: Record, made_with: list[Context], lock: FaultLock, note: Note) -> None:
    """Make the changes in order, noting each before and after; raises ApplyFailed or the kind's
    error.

    The fence is read again after each change: if a keeper took over while we stood still, the
    change just made is ours to undo.
    """
    for step, ctx in zip(record.steps, made_with, strict=True):
        kind = kind_of(step)
        step.state = StepState.APPLYING
        note(ctx.index, step)
        step.made = kind.apply(step.change.spec, step.prior, ctx)
        if not lock.ours:
            kind.undo(step.change.spec, step.prior, step.made, ctx)
            raise ApplyFailed("a keeper took over while the fault was being applied; it is undone")
        step.state = StepState.APPLIED
        note(ctx.index, step)


def undo_steps(record: Record, made_with: list[Context], lock: FaultLock | None = None) -> End:
    """Undo in reverse, going on past a failing item. Every step is tried, whatever its noted state:
    the note may have been lost, and undoing nothing is harmless.
    """
    for step, ctx in reversed(list(zip(record.steps, made_with, strict=True))):
        if lock is not None and not lock.ours:
            break
        outcome = undo_step(step, ctx)
        first = step.outcome
        if first is None or not first.settled or outcome.end is not Undone.ABSENT:
            step.outcome = outcome  # a second undo finds nothing; the first answer tells more
        if outcome.settled:
            step.state = StepState.UNDONE
    return end_of(record)


def undo_step(step: Step, ctx: Context) -> Outcome:
    """Undo one change and look whether it is gone."""
    outcome = _guarded(lambda: _undo(step, ctx))
    if outcome.settled or outcome.commands:
        return outcome
    # Asked for only now: looking for them may fail by itself, and must not keep us from undoing.
    told = _guarded(
        lambda: replace(outcome, commands=kind_of(step).commands(step.change.spec, step.prior, ctx))
    )
    return told if told.end is outcome.end and told.commands else outcome


def _undo(step: Step, ctx: Context) -> Outcome:
    spec, prior, made = step.change.spec, step.prior, step.made
    kind = kind_of(step)
    outcome = kind.undo(spec, prior, made, ctx)
    if not outcome.settled or kind.instant:
        return outcome
    if kind.presence(spec, prior, made, ctx) is Presence.OURS:
        return Outcome(Undone.FAILED, f"{outcome.detail}; but it is still there")
    return outcome


def _guarded(act: Callable[[], Outcome]) -> Outcome:
    """What was answered; whatever was raised is an answer too, and the other steps go on."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - undoing must not stop at what nobody foresaw
        return Outcome(Undone.FAILED, f"{type(error).__name__}: {error}")


def patience(record: Record) -> float:
    """Seconds for which a silent owner of the undo may be at work and not stuck."""
    known = kinds()
    steps = [step.change for step in record.steps if step.change.kind in known]
    return STEAL + sum(known[change.kind].takes(change.spec) for change in steps)


def end_of(record: Record) -> End:
    """How the fault ended, from the answers of its steps."""
    ends = [step.outcome.end if step.outcome else Undone.FAILED for step in record.steps]
    if any(end in (Undone.FAILED, Undone.LEFT) for end in ends):
        return End.PERSON
    if all(kind_of(step).instant for step in record.steps):
        return End.NOTHING
    if ends and all(end is Undone.GONE for end in ends):
        return End.GONE
    if record.place.get("ends_with") and ended_with_target(record):
        return End.GONE
    return End.RECOVERED


def by_hand(record: Record) -> str:
    """What a person would type for what could not be undone."""
    left = [step.outcome for step in record.steps if step.outcome and not step.outcome.settled]
    lines = [f"{one.detail}" for one in left]
    lines += [f"by hand: {shlex.join(words)}" for one in left for words in one.commands]
    return "\n  ".join(lines)


def residue(record: Record, made_with: list[Context]) -> list[str]:
    """What of a fault is still there now; empty is the proof of recovery."""
    left: list[str] = []
    for step, ctx in zip(record.steps, made_with, strict=True):
        try:
            kind = kind_of(step)
            if kind.instant:
                continue
            here = kind.presence(step.change.spec, step.prior, step.made, ctx)
        except (FaultlineError, OSError) as error:
            left.append(f"step {ctx.index} ({step.change.kind}): could not look: {error}")
            continue
        if here is Presence.OURS:
            left.append(f"step {ctx.index}: {kind.describe(step.change.spec)[0]}")
    return left


def survivors(record: Record) -> list[int]:
    """The steps that a reboot does not undo by itself."""
    known = kinds()  # what this version does not know it must not declare gone
    return [
        i
        for i, step in enumerate(record.steps)
        if step.change.kind not in known or known[step.change.kind].survives_reboot
    ]


def claims(record: Record) -> frozenset[str]:
    """Everything that the record's changes need for themselves alone."""
    found: set[str] = set()
    for step in record.steps:
        found |= kind_of(step).claims(step.change.spec, step.prior)
    return frozenset(found)


def capture(record: Record, made_with: list[Context]) -> None:
    """Look at what each step will change; raises Refused, Unsupported or TargetGone with nothing
    done.
    """
    for step, ctx in zip(record.steps, made_with, strict=True):
        prior: Data = kind_of(step).capture(step.change.spec, ctx)
        step.prior = prior


def load_workers(record: Record, code: str) -> None:
    """Have what will start its workers come up, from outside of the place: it outlives the fault.

    What goes wrong is told when a worker is started.
    """
    for step in record.steps:
        module = kind_of(step).loads(step.change.spec)
        if module:
            with suppress(OSError):
                spawning.ready(code, module)
