"""What becomes of a fault of objects while it lasts: it flaps, goes in steps, is held up.

All of it follows from the time since it began and from a seed. So nothing is kept, and whoever
carries the fault out after a crash goes on where it stands.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faultline.api.targets import Flap
from faultline.errors import FaultlineError, Refused
from faultline.kubefaults.change import Change, apply, present, revise, undo
from faultline.kubefaults.model import ObjectFault, View

INSIST = 1.0
"""Seconds between two looks at what somebody else sets back."""
_LASTING = ("delete", "evict")


@dataclass(frozen=True, slots=True)
class Tended:
    """What is so now."""

    there: bool  # whether it is to be there at this moment
    wake: float  # seconds after which it is to be tended again; inf: never
    told: tuple[str, ...] = ()  # what others have changed, and what could not be done


def moment(flap: Flap, seed: str, elapsed: float) -> tuple[bool, float]:
    """Whether it is to be there so many seconds after it began, and for how long that stays so."""
    lasts, period = flap.present.seconds, flap.present.seconds + flap.absent.seconds
    number, within = divmod(max(0.0, elapsed), period)
    drawn = random.Random(f"{seed}/flap/{number:.0f}").uniform(-1.0, 1.0)
    lasts = min(lasts * (1.0 + drawn * flap.jitter.ratio), 0.95 * period)
    return (True, lasts - within) if within < lasts else (False, period - within)


def check(fault: ObjectFault[Any], changes: Sequence[Change], flap: Flap | None) -> None:
    """Raise Refused if this cannot come and go."""
    if flap is None:
        return
    for each in changes:
        if each.do in _LASTING:
            raise Refused(f"{fault.id} cannot flap: {each.words} would not be the same again")


def tend(
    view: View, fault: ObjectFault[Any], params: Any, changes: Sequence[Change],
    flap: Flap | None, elapsed: float,
) -> Tended:  # fmt: skip
    """Make it so as it is to be now. Raises ApiError if the server is away; harmless to repeat."""
    seed = view.seed or view.fault
    there, wake = (True, math.inf) if flap is None else moment(flap, seed, elapsed)
    if not there:
        return Tended(False, wake, tuple(_taken_back(view, changes)))
    now, left = _at(view, fault, params, changes, elapsed)
    wake = min(wake, left, INSIST if fault.insists else math.inf)
    told: list[str] = []
    for change in now:
        try:
            told += _held(view, fault, change, again=flap is not None, revised=left != math.inf)
        except FaultlineError as error:
            if error.code == "kubernetes-api":
                raise
            told.append(error.message)
    return Tended(True, wake, tuple(told))


def _at(
    view: View, fault: ObjectFault[Any], params: Any, changes: Sequence[Change], elapsed: float
) -> tuple[Sequence[Change], float]:
    """The changes of the present step, and for how long they stay so."""
    every = fault.every(params)
    if every <= 0:
        return changes, math.inf
    number = int(max(0.0, elapsed) // every)
    left = (number + 1) * every - elapsed
    return (fault.step(view, params, changes, number) if number else changes), left


def _held(
    view: View, fault: ObjectFault[Any], change: Change, *, again: bool, revised: bool
) -> list[str]:
    # A load ends with the process that makes it; to begin it twice is harmless.
    if change.do == "load" or (again and not present(view.client, change, view.fault)):
        apply(view.client, change, view.fault)
    elif change.do == "patch" and (revised or fault.insists):
        return revise(view.client, change, view.fault)
    return []


def _taken_back(view: View, changes: Sequence[Change]) -> list[str]:
    told: list[str] = []
    for change in reversed(changes):
        done = undo(view.client, change, view.fault)
        told += [*done.left, *([done.detail] if done.outcome == "needs a person" else [])]
    return told
