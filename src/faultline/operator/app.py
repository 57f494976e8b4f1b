"""The operator: watches, decides, writes. One round after the other, so that what a fault has asked
of its hosts is written before the fault is looked at again.

It keeps nothing that counts in memory: killed and started again, it finds in documents what is to
be done.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from faultline.api.halt import HaltStatus
from faultline.api.host import Desired, HostSpec
from faultline.errors import Bug, FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Rest
from faultline.operator import halting, writing
from faultline.operator.acting import Actor
from faultline.operator.admission.gate import Guarded
from faultline.operator.admission.service import Address
from faultline.operator.caches import Caches, asks
from faultline.operator.hosts import OBJECTS, HostObject, asked, owners
from faultline.operator.leading import Leader
from faultline.operator.limiting import Budget, Limited
from faultline.operator.meters import Meters
from faultline.operator.model import Decision, Facts, Wanted
from faultline.operator.reading import Reader
from faultline.operator.reconcile import reconcile
from faultline.operator.running.keeping import Keeper
from faultline.operator.spaces import Policy
from faultline.operator.tally import HostView
from faultline.operator.views import FaultObject, HaltObject

TICK = 1.0  # seconds after which leases and wakes are looked at even if nothing happened
BETWEEN = 0.3  # seconds between two looks at one fault, unless it was written itself
STATUS = 2.0  # seconds between two writes of numbers alone
LONGEST = 60.0  # seconds of a pause after errors
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How the operator works."""

    namespace: str = "faultline"  # its own, and that of its agents
    rate: float = 100.0  # requests a second
    writers: int = 4  # hosts that are written at the same time
    lease: float = 15.0  # seconds after which another operator takes over
    webhook: Address | None = None  # without it nobody is asked what those who ask may do
    opt_in: bool = False  # only namespaces that allow it are hit
    protect: tuple[str, ...] = ()  # namespaces, or patterns of them, that are never hit
    runs: tuple[str, ...] = ("*",)  # namespaces, or patterns, in which it carries out runs


@dataclass(slots=True)
class Case:
    """What is remembered of one fault between two looks. None of it counts."""

    due: float = math.inf
    looked: float = -math.inf
    took: float = 0.0
    written: float = -math.inf
    failures: int = 0
    asks: bool = False  # whether pods that come and go matter to it
    wanted: Wanted | None = None  # None until it was looked at

    def at(self, when: float) -> None:
        """Look at it then, or before."""
        self.due = min(self.due, when)


class Operator:
    """One operator; one that leads acts, the others wait."""

    def __init__(self, connect: Callable[[], Rest], settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.budget = Budget(self.settings.rate, round(self.settings.rate * 2))
        self.identity = f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(3)}"
        self.meters = Meters()
        self._connect = lambda: Client(Limited(connect(), self.budget, self.meters), connect)
        self._wakes: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._client = self._connect()
        self._writers: queue.SimpleQueue[Client] = queue.SimpleQueue()
        own = self.settings.namespace
        self.caches = Caches(own, Reader(self._client), self._wake, self._told)
        self.leader = Leader(
            self._connect(), own, self.identity, self.settings.lease, self.settings.lease / 4,
            lambda: self._wake("leader", ""),
        )  # fmt: skip
        self.actor = Actor(
            self._connect, lambda: self.caches.hosts.get(OBJECTS), self.caches.hosts.put,
            lambda: self.leader.leads and self.caches.synced, pods=self.caches.marked_pods,
        )  # fmt: skip
        self.runs = Keeper(self._connect, self.leader, self.caches, self.settings.runs)
        apart = Budget(self.settings.rate, round(self.settings.rate * 2))  # nobody waits for ours
        self.guarded = Guarded(
            lambda: Client(Limited(connect(), apart, self.meters), connect), self.identity,
            self.leader, self.caches, self.settings.webhook,
            Policy(own, self.settings.opt_in, self.settings.protect),
        )  # fmt: skip
        self.actor.permit = self.guarded.permit
        self.runs.unasked = self.guarded.unasked
        self._cases: dict[str, Case] = {}  # by uid of the fault
        self._dirty: set[str] = set()  # hosts
        self._led = False

    # ------------------------------------------------------------------ from outside

    def run(self) -> None:
        """Until `stop`."""
        writers = [self._connect() for _ in range(self.settings.writers)]
        for client in writers:
            self._writers.put(client)
        self.caches.start(self._connect)
        self.guarded.start()
        self.leader.start()
        self.actor.start()
        self.runs.start()
        try:
            with ThreadPoolExecutor(len(writers), "write") as pool:
                while not self._ending.is_set():
                    self._gather()
                    if self.caches.synced:
                        self._round(pool)
                    if not (self.caches.watching and self.actor.alive):
                        raise Bug("a watch has ended by itself: nothing new would be seen")
        finally:
            self.runs.stop()
            self.actor.stop()
            self.leader.stop()
            self.guarded.stop()
            self.caches.stop()
            for client in (*writers, self._client):
                client.close()

    def stop(self) -> None:
        """End soon. Safe in signal handlers; what is under way is left to the next operator."""
        self._ending.set()
        self._wake("stop", "")

    def waiting(self) -> dict[str, int]:
        """What has not been looked at or written yet: how long the queues are."""
        now = time.monotonic()
        due = sum(case.due <= now for case in list(self._cases.values()))
        return {"changes": self._wakes.qsize(), "faults": due, "hosts": len(self._dirty)}

    # ------------------------------------------------------------------ what has changed

    def _told(self, old: HostObject | None, new: HostObject | None) -> None:
        """Counted by who leads alone."""
        if self.leader.leads:
            undone = {
                found.view.uid: found.view.status.recovery_started
                for found in (self.caches.faults.get(o) for o in owners(new))
                if found is not None and found.view.status.recovery_started is not None
            }
            self.meters.host(old, new, undone)

    def _wake(self, what: str, key: str) -> None:
        self._wakes.put((what, key))
        if what == "leader" or key == OBJECTS:
            self.actor.ring()

    def _gather(self) -> None:
        """Wait for a change, the next due look or a tick, and note what is to be looked at."""
        now = time.monotonic()
        due = min((case.due for case in self._cases.values()), default=math.inf)
        try:
            self._note(*self._wakes.get(timeout=max(0.0, min(due - now, TICK))))
            while True:
                self._note(*self._wakes.get_nowait())
        except queue.Empty:
            return

    def _note(self, what: str, key: str) -> None:
        match what:
            case "fault":
                self._due(key, 0.0)
            case "share":
                self._due(key, BETWEEN)
            case "host":
                self._dirty.add(key)
            case "pods":
                for uid, case in self._cases.items():
                    if case.asks:
                        self._due(uid, TICK)
            case "gone":
                self._cases.pop(key, None)
                self._dirty |= {
                    n for n, h in self.caches.hosts.all().items() if key in h.view.parts
                }
            case "halt" | "leader" | "node":
                self._everything()
            case _:
                pass

    def _everything(self) -> None:
        for found in self.caches.faults.all().values():
            self._due(found.view.uid, 0.0)
        self._dirty |= self.caches.hosts.all().keys()

    def _due(self, uid: str, apart: float) -> None:
        """Look at it again, but not sooner than so long after the last look, and not all the time
        at one that takes long.
        """
        case = self._cases.setdefault(uid, Case())
        pause = _pause(case.failures) if case.failures else max(apart, 4 * case.took)
        case.at(max(time.monotonic(), case.looked + pause))

    # ------------------------------------------------------------------ a round

    def _round(self, pool: ThreadPoolExecutor) -> None:
        if not self.leader.leads:
            self._led = self.caches.looked = False
            return
        if not self._led:
            self._led = True
            self._cases.clear()  # others have acted meanwhile
            self._everything()
        self.caches.look_at_leases()
        now = time.monotonic()
        due = [uid for uid, case in self._cases.items() if case.due <= now]
        if due or self._dirty:
            halted = self.caches.halted()
            known = {found.view.uid: found for found in self.caches.faults.all().values()}
            if due:
                self._look(pool, due, known, halted)
            self._write_hosts(pool, known.keys(), "" if halted is None else halted or "halted")
        self._report_halts()

    def _look(
        self, pool: ThreadPoolExecutor, due: Collection[str], known: Mapping[str, FaultObject],
        halted: str | None,
    ) -> None:  # fmt: skip
        """Decide all, one after the other; then write, several at a time."""
        views = self.caches.views()
        decided: list[tuple[FaultObject, Case, Decision]] = []
        for uid in due:
            fault, case = known.get(uid), self._cases[uid]
            if fault is None:
                del self._cases[uid]
                continue
            case.looked, case.due = time.monotonic(), math.inf
            try:
                decided.append((fault, case, self._decided(fault, case, views, halted)))
            except FaultlineError as error:
                self._failed(fault, case, error)
        for (fault, case, _), error in zip(decided, pool.map(self._one, decided), strict=True):
            if error is None:
                case.failures = 0
            else:
                self._failed(fault, case, error)

    def _decided(
        self, fault: FaultObject, case: Case, views: dict[str, HostView], halted: str | None
    ) -> Decision:
        view = fault.view
        case.asks = asks(view)
        cluster, unready = self.caches.cluster(view, views)
        view, cluster = self.guarded.passed(fault, cluster)
        decision = reconcile(view, Facts(time.time(), views, cluster, halted, unready))
        case.took = time.monotonic() - case.looked
        self.meters.looked(case.took)
        self._want(case, decision.wanted)
        case.at(case.looked + max(decision.wake, 0.05))
        return decision

    def _one(self, decided: tuple[FaultObject, Case, Decision]) -> FaultlineError | None:
        """Write what was decided of one fault; what kept it from that, if anything did."""
        if not self.leader.leads:
            return None
        client = self._writers.get()
        try:
            self._write_fault(client, *decided)
        except FaultlineError as error:
            return error
        finally:
            self._writers.put(client)
        return None

    def _write_fault(
        self, client: Client, fault: FaultObject, case: Case, decision: Decision
    ) -> None:
        view, faults = fault.view, self.caches.faults
        if decision.finalizer and not view.finalizer:
            faults.put(writing.finalizer(client, fault, there=True))
        elif decision.status != view.status and self._worth(fault, case, decision):
            case.written = case.looked
            for notice in decision.notices:
                writing.event(client, view, notice, self.identity)
            faults.put(writing.status(client, fault, decision))
        elif view.finalizer and not decision.finalizer:
            faults.put(writing.finalizer(client, fault, there=False))

    def _worth(self, fault: FaultObject, case: Case, decision: Decision) -> bool:
        """Numbers that grow are written from time to time, whatever else has changed at once."""
        old, new = fault.view.status, decision.status
        if (old.phase, old.effect, old.ended) != (new.phase, new.effect, new.ended):
            return True
        states = [[each.status for each in one.conditions] for one in (old, new)]
        if decision.notices or states[0] != states[1]:
            return True
        case.at(max(case.looked + 0.05, case.written + STATUS))
        return case.looked >= case.written + STATUS

    def _want(self, case: Case, now: Wanted) -> None:
        """Hosts of which something else is wanted now are written in this round."""
        before, case.wanted = case.wanted, now
        if before is None:
            self._dirty |= self.caches.hosts.all().keys() | now.keys()
            return
        self._dirty |= {
            name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
        }

    def _failed(self, fault: FaultObject, case: Case, error: FaultlineError) -> None:
        passing = isinstance(error, ApiError) and error.reason in ("Conflict", "NotFound")
        case.failures = 1 if passing else case.failures + 1
        case.at(case.looked + _pause(case.failures))
        if not passing:
            self.meters.failed()
            _log.warning("%s: %s", fault.view.owner, error.message)

    # ------------------------------------------------------------------ hosts

    def _write_hosts(self, pool: ThreadPoolExecutor, known: Collection[str], halted: str) -> None:
        dirty, self._dirty = self._dirty, set()
        wanted = {uid: case.wanted for uid, case in self._cases.items() if case.wanted is not None}
        due: list[HostObject] = []
        specs: list[HostSpec] = []
        for name in dirty:
            host = self.caches.hosts.get(name)
            if host is None and name == OBJECTS and any(name in each for each in wanted.values()):
                host = HostObject.none(name)
            if host is None:
                continue
            here: dict[str, Mapping[str, Desired]] = {
                uid: entries.get(name, {})
                for uid, entries in wanted.items()
                if name in entries or uid in host.view.parts
            }
            spec = asked(host.spec, here, known, halted)
            if spec != host.spec:
                due.append(host)
                specs.append(spec)
        self._dirty |= {name for name in pool.map(self._write_host, due, specs) if name}

    def _write_host(self, host: HostObject, spec: HostSpec) -> str:
        """Its name, if it must be tried again."""
        if not self.leader.leads:
            return host.name
        client = self._writers.get()
        try:
            self.caches.hosts.put(writing.host(client, host, spec))
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound", "AlreadyExists"):
                _log.warning("%s: %s", host.name, error.message)
            return "" if error.reason == "NotFound" else host.name
        finally:
            self._writers.put(client)
        return ""

    # ------------------------------------------------------------------ halts

    def _report_halts(self) -> None:
        for halt in self.caches.halts.all().values():
            told = halting.status(halt, self.caches.views().values(), time.time())
            if told != halt.status:
                self._write_halt(halt, told)

    def _write_halt(self, halt: HaltObject, told: HaltStatus) -> None:
        try:
            self.caches.halts.put(writing.halt(self._client, halt, told))
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound"):
                _log.warning("Halt %s: %s", halt.name, error.message)


def _pause(failures: int) -> float:
    return min(LONGEST, 0.25 * 2 ** min(failures, 10))
