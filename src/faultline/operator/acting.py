"""Faults of objects, carried out: the operator that leads is to the API server what an agent is to
its node.

What is wanted stands in a Host of its own, like what is wanted of any node, and so does what became
of it. Nothing that counts is in memory: the one who leads next reads that Host and goes on.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast

from faultline import __version__
from faultline.api.condition import Condition
from faultline.api.host import Actual, Desired, HostStatus
from faultline.errors import Bug, FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Object, Request, Rest, Wrapped
from faultline.kubefaults import carrying, loads
from faultline.kubefaults.carrying import Carrier, End, Order, Permit, permitted
from faultline.kubefaults.change import Change
from faultline.kubefaults.course import Tended
from faultline.operator import conditions, stages, sweeping, writing
from faultline.operator.hosts import HostObject
from faultline.operator.stages import Case, Failure, Verb

SWEEP = 3600.0  # seconds between two looks for marks that nobody knows
SOON = 60.0  # behind the first one: what the one before us had sent has arrived by then, or never
ACTORS, WATCHERS = 8, 8  # threads that act, and that wait for effects
_log = logging.getLogger(__name__)
_ODD = (LookupError, TypeError, ValueError, AttributeError)  # what an odd object leads to


class Fenced(Wrapped):
    """A connection that writes only while we lead: who has lost the Lease must change nothing."""

    def __init__(self, rest: Rest, leads: Callable[[], bool]) -> None:
        super().__init__(rest)
        self._leads = leads

    def send(self, asked: Request) -> Answer:
        if asked.method != "GET" and not self._leads():
            raise ApiError(0, "NotLeading", "another operator may lead by now")
        return super().send(asked)


@dataclass(slots=True)
class Memory:
    """What is remembered of one entry. None of it counts."""

    told: Actual | None = None
    busy: set[Verb] = field(default_factory=set[Verb])
    failed: dict[Verb, Failure] = field(default_factory=dict[Verb, Failure])
    changes: list[Change] | None = None  # as they were planned, until they are made
    tend: float | None = None  # when it is to be tended next; None until that is known
    hurry: bool = False  # nobody waits for its effect any more


Outcome = tuple[str, Verb, object, FaultlineError | None]


class Actor:
    """Carries out what its Host asks for, while `leads` says so.

    `host` reads that Host as it is known, `put` takes in what a write of it has answered; `pods`
    are those with a mark of ours.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        host: Callable[[], HostObject | None],
        put: Callable[[Object], None],
        leads: Callable[[], bool],
        clock: Callable[[], float] = time.time,
        pools: tuple[Executor, Executor] | None = None,
        pods: Callable[[], Iterable[tuple[str, str]]] = tuple,
    ) -> None:
        self._connect, self._host, self._put, self._leads = connect, host, put, leads
        self._clock, self._pods = clock, pods
        self._acts, self._waits = pools or (
            ThreadPoolExecutor(ACTORS, "act"), ThreadPoolExecutor(WATCHERS, "measure"),
        )  # fmt: skip
        self.permit: Permit = permitted
        self._own = threading.local()
        self._clients: list[Client] = []
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._bell = threading.Event()
        self._ending = threading.Event()
        self._known: dict[str, Memory] = {}
        self._led = False
        self._write_due = 0.0
        self._sweep_due = 0.0
        self._swept = False
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ from outside

    def start(self) -> None:
        self._thread = threading.Thread(target=self._keep, name="objects", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """What is under way is finished, or left to the one who leads next."""
        self._ending.set()
        self._bell.set()
        if self._thread is not None:
            self._thread.join(10)
        for pool in (self._acts, self._waits):
            pool.shutdown(wait=True, cancel_futures=True)
        loads.end_all()
        for client in self._clients:
            client.close()

    def ring(self) -> None:
        """Something has changed."""
        self._bell.set()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _keep(self) -> None:
        wake = 1.0
        while not self._ending.is_set():
            self._bell.wait(max(0.02, min(wake, 1.0)))
            self._bell.clear()
            try:
                wake = self.round()
            except ApiError as error:
                _log.warning("faults of objects: %s", error.message)
                wake = 0.5

    # ------------------------------------------------------------------ a round

    def round(self) -> float:
        """Look at everything once; seconds after which to look again. Raises ApiError."""
        self._take_in()
        if not self._leads():
            if self._led:
                loads.end_all()  # the one who leads now makes them
            self._led = False
            for each in self._known.values():
                each.hurry = True
            return math.inf
        if not self._led:
            if any(each.busy for each in self._known.values()):
                return 0.1  # from when we led before: what is under way ends first
            self._led, self._known = True, {}
            self._sweep_due, self._swept = 0.0, False
        host, now = self._host(), self._clock()
        stored = {each.uid: each for each in host.actual} if host is not None else {}
        asked = {each.uid: each for each in host.spec.desired} if host is not None else {}
        wakes = [
            self._look(uid, asked.get(uid), stored.get(uid), host, now)
            for uid in dict.fromkeys((*asked, *stored, *self._known))
        ]
        wakes.append(self._write(host, now) if host is not None else math.inf)
        if time.monotonic() >= self._sweep_due and (host is not None or self._sweep_due == 0.0):
            first, self._swept = not self._swept, True
            self._sweep_due = time.monotonic() + (SOON if first else SWEEP)
            self._acts.submit(self._sweep)
        return min(wakes) - self._clock()

    def _look(
        self, uid: str, asked: Desired | None, stored: Actual | None, host: HostObject | None,
        now: float,
    ) -> float:  # fmt: skip
        known = self._known.get(uid)
        if known is None:
            known = self._known[uid] = Memory(stored)
        told = known.told
        if told is None and asked is None and stored is None and not known.busy:
            del self._known[uid]
            return math.inf
        durable = stored is not None and told is not None and stored.record == told.record
        halted = host.spec.halted if host is not None else ""
        found = stages.step(
            Case(uid, asked, told, durable, known.busy, known.failed, halted, now,
                 self._tend(known, asked, told))
        )  # fmt: skip
        known.told = found.told
        if found.do is not None:
            self._begin(uid, known, found.do, asked, now)
        return found.wake

    def _tend(self, known: Memory, asked: Desired | None, told: Actual | None) -> float:
        if asked is None or told is None or told.stage != "active":
            return math.inf
        if known.tend is None:
            restless = carrying.changes_by_itself(order_of(asked), told.record)
            known.tend = 0.0 if restless else math.inf
        return known.tend

    # ------------------------------------------------------------------ what is done

    def _begin(
        self, uid: str, known: Memory, verb: Verb, asked: Desired | None, now: float
    ) -> None:
        known.busy.add(verb)
        known.hurry = known.hurry or verb == "unmake"
        pool = self._waits if verb == "measure" else self._acts
        pool.submit(self._do, uid, known, verb, asked, now)

    def _do(self, uid: str, known: Memory, verb: Verb, asked: Desired | None, now: float) -> None:
        """In a thread of a pool; whatever happens, something is told of it."""
        found: Outcome = (uid, verb, None, Bug(f"{verb} has died"))
        try:
            stop = lambda: known.hurry or self._ending.is_set()  # noqa: E731
            carrier = Carrier(self._client(), stop, self.permit)
            found = (uid, verb, self._carry(carrier, known, verb, asked, now, uid), None)
        except FaultlineError as error:
            found = (uid, verb, None, error)
        except _ODD as error:
            _log.exception("%s of %s", verb, uid)
            found = (uid, verb, None, Bug(f"{verb}: {error!r}"))
        finally:
            self._done.put(found)
            self._bell.set()

    def _carry(
        self, carrier: Carrier, known: Memory, verb: Verb, asked: Desired | None, now: float,
        uid: str,
    ) -> object:  # fmt: skip
        record = known.told.record if known.told is not None else ""
        if verb == "unmake":
            return carrier.unmake(uid, record, order_of(asked) if asked is not None else None)
        assert asked is not None
        order = order_of(asked)
        match verb:
            case "plan":
                known.changes = carrier.plan(order, now)
                return carrying.packed(known.changes)
            case "make":
                changes, known.changes = known.changes, None
                fresh = changes is not None
                made = changes if changes is not None else carrier.resumed(order, record, now)
                return carrier.make(order, made, again=not fresh)
            case "measure":
                return carrier.measure(order, record)
            case "tend":
                begun = (known.told.injected_at if known.told is not None else None) or now
                return carrier.tend(order, record, now - begun)

    def _client(self) -> Client:
        """One for each thread."""
        found: Client | None = getattr(self._own, "client", None)
        if found is None:
            inner = self._connect()
            found = self._own.client = Client(Fenced(inner.rest, self._leads), inner.another)
            self._clients.append(found)
        return found

    # ------------------------------------------------------------------ what came of it

    def _take_in(self) -> None:
        while True:
            try:
                uid, verb, answer, error = self._done.get_nowait()
            except queue.Empty:
                return
            known = self._known.get(uid)
            if known is None:
                continue
            known.busy.discard(verb)
            if known.told is not None:
                self._answered(known, known.told, verb, answer, error)

    def _answered(
        self, known: Memory, told: Actual, verb: Verb, answer: object, error: FaultlineError | None
    ) -> None:
        now = self._clock()
        if (verb == "measure" and told.stage != "active") or (
            verb == "plan" and (told.stage != "injecting" or told.record)
        ):
            return  # something else has happened meanwhile
        if error is not None:
            known.failed[verb] = Failure.after(known.failed.get(verb), verb, now)
            if getattr(error, "reason", "") != "NotLeading":
                known.told = stages.failed(told, verb, error, now)
            return
        if verb != "measure":
            known.failed.pop(verb, None)
        match verb, answer:
            case "plan", str():
                known.told = stages.planned(told, answer)
            case "make", list():
                known.told = stages.made(told, cast("list[str]", answer), now)
            case "measure", carrying.Reading():
                known.told = stages.measured(told, answer, now)
                if known.told.effect == "unmeasured":  # there may be something to see later
                    last = known.failed.get(verb) or Failure(3, 0.0)
                    known.failed[verb] = Failure.after(last, verb, now)
            case "unmake", End():
                known.told = stages.unmade(told, answer, now)
                if answer.how == "needs a person":  # who may have helped by then
                    known.failed[verb] = Failure.after(known.failed.get(verb), verb, now)
            case "tend", Tended():
                known.tend = now + answer.wake
                known.told = told.model_copy(update={"error": "; ".join(answer.told)[:1000]})
            case _:
                pass

    # ------------------------------------------------------------------ what is told

    def _write(self, host: HostObject, now: float) -> float:
        """Write what has changed; when there is more to write, if there is."""
        actual = [each.told for each in self._known.values() if each.told is not None]
        status = host.status or HostStatus()
        if actual == status.actual and status.observed_generation == host.generation:
            return math.inf
        if time.monotonic() < self._write_due:
            return now + self._write_due - time.monotonic()
        made = HostStatus(
            actual=actual, observed_generation=host.generation, agent=__version__,
            conditions=[each.model_copy() for each in status.conditions],
        )  # fmt: skip
        _describe(made.conditions, actual, now)
        # The more there is in it, the less often.
        self._write_due = time.monotonic() + 0.002 * len(actual)
        try:
            self._put(writing.host_status(self._client(), host, made))
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound", "NotLeading"):
                raise
            return now + 0.1
        return now  # what was written may be what is waited for

    # ------------------------------------------------------------------ marks that nobody knows

    def _sweep(self) -> None:
        """Undo what carries a mark and stands in no Host: whatever lost its record."""
        try:
            sweeping.sweep(self._client(), self._pods())
        except FaultlineError as error:
            _log.warning("marks that nobody knows cannot be looked for: %s", error.message)


def order_of(asked: Desired) -> Order:
    """What is asked of a Host, as it is carried out; raises Bug if it names no object."""
    target = asked.object
    if target is None:
        raise Bug(f"{asked.uid} names no object")
    return Order(
        asked.uid, asked.fault, dict(asked.params), target.api_version, target.kind,
        target.namespace, target.name, target.uid, frozenset(asked.allow), asked.owner,
        asked.duration.seconds, asked.flap,
    )  # fmt: skip


def _describe(found: list[Condition], actual: list[Actual], now: float) -> None:
    conditions.put(found, "Ready", "True", "Leads", "the operator that leads carries it out", now)
    person = [each.uid for each in actual if each.end == "needs a person"]
    if person:
        text = f"somebody must look: faultline kube recover {' '.join(person[:5])}"
        conditions.put(found, "Clean", "False", "NeedsPerson", text, now)
    else:
        conditions.put(found, "Clean", "True", "Clean", "nothing is there that nobody wants", now)
