"""Load on the API server from this very process: watches that are held, lists, a storm of events.

Each uses connections of its own, has a bound and a deadline of its own, and ends with the process
that makes it: whoever carries the fault out next begins it again for what is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, Rest
from faultline.kubefaults.notes import OWNER

if TYPE_CHECKING:
    from faultline.kubefaults.change import Change

_PER_CONNECTION = 50  # watches: a client of HTTP has no more than 100 at once
_SENDERS = 16
_PATIENCE: Final = 30.0
_JOIN = 10.0


def words(spec: dict[str, Any]) -> str:
    """What it does, for people."""
    match spec["what"]:
        case "watches":
            return f"{spec['count']} watches of {spec['path']} are held open"
        case "lists":
            return f"{spec['path']} is listed {spec['rate']} times a second"
        case _:
            return f"{spec['rate']} events a second are made, {spec['most']} at most"


@dataclass
class Figures:
    """What a load has done."""

    open: int = 0  # watches that are there now
    done: int = 0  # requests that were answered
    refused: int = 0  # requests that were not
    seen: int = 0  # lines of watches
    error: str = ""  # the last one
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **more: int) -> None:
        with self.lock:
            for name, by in more.items():
                setattr(self, name, getattr(self, name) + by)


class Load:
    """One load, from now until it is ended or its time is over."""

    def __init__(self, client: Client, change: Change, fault: str) -> None:
        self._spec, self._fault, self._change = change.extra, fault, change
        self._client = client
        self._until = time.monotonic() + float(change.extra["seconds"])
        self._ending = threading.Event()
        self._rests: list[Rest] = []
        self._next = 0
        self.figures = Figures()
        self.begun = time.monotonic()
        self._threads = [
            threading.Thread(target=each, name="fl-load", daemon=True) for each in self._parts()
        ]
        for each in self._threads:
            each.start()

    @property
    def over(self) -> bool:
        return self._ending.is_set() or time.monotonic() >= self._until

    def end(self, patience: float = _JOIN) -> None:
        """Let go of everything, soon."""
        self._ending.set()
        for rest in self._rests:
            if rest is not self._client.rest:
                with suppress(OSError, ApiError):
                    rest.close()
        last = time.monotonic() + patience
        for each in self._threads:
            each.join(max(0.0, last - time.monotonic()))

    def _parts(self) -> list[Callable[[], None]]:
        if self._spec["what"] == "watches":
            count = int(self._spec["count"])
            made: list[Callable[[], None]] = []
            for number in range(count):
                if number % _PER_CONNECTION == 0:
                    self._rests.append(self._client.another())
                rest = self._rests[-1]
                made.append(lambda rest=rest: self._watch(rest))
            return made
        rate = int(self._spec["rate"])
        senders = min(_SENDERS, rate)
        self._rests += [self._client.another() for _ in range(senders)]
        return [lambda rest=rest: self._send(rest, senders / rate) for rest in self._rests]

    # ------------------------------------------------------------------ threads

    def _watch(self, rest: Rest) -> None:
        query = {"watch": "1", "allowWatchBookmarks": "true"}
        while not self.over:
            left = max(1.0, self._until - time.monotonic())
            query["timeoutSeconds"] = f"{left:.0f}"
            try:
                with rest.lines(str(self._spec["path"]), query, left + _PATIENCE) as lines:
                    self.figures.add(open=1)
                    try:
                        for _ in lines:
                            self.figures.add(seen=1)
                            if self.over:
                                return
                    finally:
                        self.figures.add(open=-1)
            except ApiError as error:
                self._failed(error)
                self._ending.wait(1.0)

    def _send(self, rest: Rest, pause: float) -> None:
        due = time.monotonic()
        while not self.over:
            number = self._turn()
            if number is None:
                return
            try:
                self._one(rest, number)
                self.figures.add(done=1)
            except ApiError as error:
                self._failed(error)
            due = max(due + pause, time.monotonic() - 1.0)
            self._ending.wait(max(0.0, due - time.monotonic()))

    def _turn(self) -> int | None:
        """The number of the next request; None if there have been as many as there may be."""
        with self.figures.lock:
            number, self._next = self._next, self._next + 1
        most = self._spec.get("most")
        return None if most is not None and number >= int(most) else number

    def _one(self, rest: Rest, number: int) -> None:
        if self._spec["what"] == "lists":
            rest.request("GET", str(self._spec["path"]), dict(self._spec["query"])).json()
            return
        made = _event(self._change, self._fault, number)
        rest.request("POST", self._change.kind.path(self._change.namespace), None, made).json()

    def _failed(self, error: ApiError) -> None:
        if self._ending.is_set():
            return
        self.figures.add(refused=1)
        self.figures.error = error.message


def _event(change: Change, fault: str, number: int) -> Object:
    spec = change.extra
    # Whoever takes over begins with other names: those of before may be there still.
    name = f"{change.name}-{time.time_ns():x}-{number}"
    return {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": change.namespace, "labels": {OWNER: fault}},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Namespace", "name": change.namespace,
            "namespace": change.namespace,
        },
        "type": "Normal", "reason": "FaultlineStorm", "message": "x" * int(spec["size"]),
        "source": {"component": "faultline"}, "count": 1,
    }  # fmt: skip


# ---------------------------------------------------------------------- those of this process

_running: dict[tuple[str, str], Load] = {}
_lock = threading.Lock()


def begin(client: Client, change: Change, fault: str) -> str:
    """Begin it, unless it is under way here."""
    with _lock:
        known = _running.get((fault, change.name))
        if known is None or known.over:
            _running[fault, change.name] = Load(client, change, fault)
    return ""


def end(change: Change, fault: str) -> None:
    """End it, if it is under way here."""
    with _lock:
        known = _running.pop((fault, change.name), None)
    if known is not None:
        known.end()


def end_all() -> None:
    """End everything that is under way here, and wait for none of it: somebody else makes it."""
    with _lock:
        known = [_running.pop(key) for key in list(_running)]
    for each in known:
        each.end(0.0)


def runs(change: Change, fault: str) -> bool:
    """Whether it is under way here."""
    known = _running.get((fault, change.name))
    return change.do == "load" and known is not None and not known.over


def figures(change: Change, fault: str) -> tuple[Figures, float] | None:
    """What it has done so far, and for how many seconds it has run; None if it is not here."""
    known = _running.get((fault, change.name))
    return None if known is None else (known.figures, time.monotonic() - known.begun)
