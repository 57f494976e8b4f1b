"""Faults that send signals: which, to whom, and what became of them."""

from __future__ import annotations

import signal
import time
from typing import Any

from faultline.changes.model import Change, Record
from faultline.injection import guards
from faultline.injection.process_target import identity
from faultline.injection.reading import Effect, Reading
from faultline.kernel import procfs

_PATIENCE = 2.0  # seconds until a signal that was sent has had its effect
_PENDING = "is pending"
_ON_THEIR_OWN = frozenset({signal.SIGKILL, signal.SIGSTOP})  # nobody can ignore these


def signal_name(value: str) -> str:
    """The name of a signal without SIG, of its name or number; ValueError for no signal."""
    name = value.upper().removeprefix("SIG")
    found = {each.name.removeprefix("SIG"): each for each in signal.Signals}
    if name.isdigit() and int(name) in {int(each) for each in signal.Signals}:
        return signal.Signals(int(name)).name.removeprefix("SIG")
    if name not in found:
        raise ValueError("expected a signal by name or number, such as KILL, TERM, HUP or 9")
    return name


def signals(found: list[procfs.Process], number: int) -> list[Change]:
    """One change for each; the end of one of several may have ended the next already."""
    several = {"several": True} if len(found) > 1 else {}
    for each in found:
        if why := _spared_by_kernel(each.pid, each.name, number):
            guards.current().note(why)
    return [Change("signalled", {**identity(each), "signal": number, **several}) for each in found]


def outcome(record: Record, name: str, method: str) -> Reading:
    """What became of the signals of a record."""
    hit = [step.change.spec for step in record.steps if step.change.kind == "signalled"]
    asked = f"{name} to {len(hit)} process(es)"
    until = time.monotonic() + _PATIENCE
    states = [_state(spec) for spec in hit]
    # One that is pending may just not have been scheduled yet, on a busy machine.
    while any(not state or _PENDING in state for state in states) and time.monotonic() < until:
        time.sleep(0.005)
        states = [_state(spec) for spec in hit]
    gone = states.count("ended")
    others = [state for state in states if state not in ("ended", "")]
    values = {"asked": float(len(hit)), "measured": float(gone)}
    measured = f"{gone} of {len(hit)} ended"
    if others:
        why = "; ".join(sorted(set(others)))
        return Reading(Effect.INEFFECTIVE, asked, measured, method, why, values)
    if states.count(""):
        # It took the signal and went on: its own affair, which cannot be seen from outside.
        why = "the signal was taken; what the process made of it cannot be seen from outside"
        return Reading(Effect.UNMEASURED, asked, measured, method, why, values)
    return Reading(Effect.EFFECTIVE, asked, measured, method, "", values)


def _state(spec: dict[str, Any]) -> str:
    """What became of a signal: 'ended', a reason why it had no effect, or '' for nothing to be
    seen.
    """
    process = procfs.ProcessId(spec["pid"], spec["start"])
    found = procfs.status(spec["pid"])
    if not process.alive() or not found:
        return "ended"
    bit = 1 << (spec["signal"] - 1)
    masks = ("SigIgn", "ShdPnd", "SigPnd")
    set_in = {mask for mask in masks if int(found.get(mask, "0"), 16) & bit}
    name = signal.Signals(spec["signal"]).name
    if "SigIgn" in set_in:
        return f"{spec['name']} ignores {name}"
    if set_in & {"ShdPnd", "SigPnd"}:
        return f"{name} {_PENDING}: {spec['name']} blocks it or hangs in the kernel"
    return _spared_by_kernel(spec["pid"], spec["name"], spec["signal"])


def _spared_by_kernel(pid: int, name: str, number: int) -> str:
    """Why the kernel drops a signal; '' if it does not.

    The first process of a pid namespace is sent only what it handles, and what ends or stops anyone
    (pid_namespaces(7)).
    """
    found = procfs.status(pid)
    numbers = found.get("NSpid", "").split()
    handled = int(found.get("SigCgt", "0"), 16) >> (number - 1) & 1
    if len(numbers) < 2 or numbers[-1] != "1" or handled or number in _ON_THEIR_OWN:
        return ""
    what = signal.Signals(number).name
    return f"{name} is process 1 of its pid namespace and handles no {what}: the kernel drops it"
