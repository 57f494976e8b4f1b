"""Signals of a run: who reported what, and when. People write them beside the wish to abort; the
engine only reads them.

`record_signal` is what a command, an HTTP route or a page calls. A sender that is not sure whether
it was heard sends again: one with an `id` is kept once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from pydantic import ValidationError

from faultline.api.document import problems_of
from faultline.api.run import Phase, Run
from faultline.api.signals import MOST, Signal
from faultline.errors import InvalidDocument, Refused, UsageError
from faultline.stores.model import Stale, Store

AHEAD = 5.0
"""Seconds by which the clock of a sender may be ahead of ours."""
_TEXT = ("text", "message", "summary", "description", "title")
_WHO = ("who", "by", "user", "author", "agent")
_LONGEST = 2000


class Heard:
    """The signals of one run, as far as its engine has read them; for the probes of the run."""

    def __init__(self) -> None:
        self._signals: tuple[Signal, ...] = ()

    def put(self, signals: Sequence[Signal]) -> None:
        """What there is now. In one step, since probes look from threads of their own."""
        self._signals = tuple(signals)

    def get(self) -> Sequence[Signal]:
        return self._signals


def record_signal(store: Store, run: str, signal: Signal) -> Run:
    """Write a signal to a run; raises UnknownName, UsageError for a run that has ended or a time
    that cannot be, Refused if there are too many.
    """
    while True:
        found = store.get(Run, run)
        written = added(found, signal, time.time())
        if written is found:
            return found
        try:
            return store.update(written)
        except Stale:
            continue


def added(run: Run, signal: Signal, now: float) -> Run:
    """The run with one signal more, or the very same run if it has it already. Pure."""
    known = run.spec.signals
    if signal in known or (signal.id and any(each.id == signal.id for each in known)):
        return run
    if run.status.phase is Phase.ENDED:
        raise UsageError(f"run {run.metadata.name} has ended: {run.status.verdict}")
    if signal.at > now + AHEAD:
        raise UsageError(f"signal {signal.name} is {signal.at - now:.0f} s in the future")
    began = run.status.started
    if began is not None and signal.at < began:
        raise UsageError(f"signal {signal.name} is from {began - signal.at:.0f} s before the run")
    if len(known) >= MOST:
        raise Refused(f"run {run.metadata.name} has {MOST} signals, which is the most")
    spec = run.spec.model_copy(update={"signals": [*known, signal]})
    return run.model_copy(update={"spec": spec})


def read_signal(name: str, body: Any, now: float) -> Signal:
    """A signal from the body of a request; raises InvalidDocument. Pure.

    The name comes from the address, so that any tool can report whose webhooks have no form of
    ours: what is said and by whom is looked for under the usual names, and the time is ours unless
    the body has `at` in seconds since 1970.
    """
    given = cast("dict[str, Any]", body) if isinstance(body, dict) else {}
    at = given.get("at", now)
    data = {
        "name": name,
        "at": float(at) if isinstance(at, int | float) and not isinstance(at, bool) else at,
        "who": _first(given, _WHO)[:200],
        "text": _first(given, _TEXT)[:_LONGEST],
        "id": _first(given, ("id",))[:200],
    }
    try:
        return Signal.model_validate(data)
    except ValidationError as error:
        first = problems_of(error, data)[0]
        raise InvalidDocument(f"signal: {first.path}: {first.expected}") from error


def _first(given: dict[str, Any], names: Sequence[str]) -> str:
    """The first of these that is there, as text; of an object (a user) its name."""
    for name in names:
        value = given.get(name)
        if isinstance(value, dict):
            entry = cast("dict[str, Any]", value)
            value = entry.get("name") or entry.get("summary") or entry.get("email")
        if isinstance(value, str | int) and value != "":
            return str(value)
    return ""
