"""Looks after the namespaces in which there are runs or schedules: an engine for each of them.

Only where the operator leads. What is heavy is loaded when there is something to be done, so an
operator of a cluster without runs stays as small as it was.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from faultline.api.model import API_VERSION
from faultline.errors import FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, Rest, metadata
from faultline.operator.caches import Caches
from faultline.operator.informer import Informer
from faultline.operator.leading import Leader
from faultline.operator.reconcile import OVER
from faultline.operator.views import FINALIZER as UNDO
from faultline.operator.views import FaultObject
from faultline.operator.writing import FAULTS

if TYPE_CHECKING:
    from faultline.engine.unattended import Manager
    from faultline.operator.running.tools import Surroundings

RUNS: Final = Kind("Run", "runs", API_VERSION)
SCHEDULES: Final = Kind("Schedule", "schedules", API_VERSION)
TICK = 0.5  # seconds after which it is looked at even if nothing happened
REST = 60.0  # seconds without anything to do after which an engine ends
AGAIN = 10.0  # seconds before an engine that failed is begun anew
SWEEP = 5.0  # seconds between two looks for faults whose runs have gone
IMAGE = "FAULTLINE_IMAGE"
"""The variable with the image of the operator itself."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What matters of a run or a schedule here."""

    namespace: str
    name: str
    uid: str
    ended: bool = False
    ours: bool = False  # nobody else will begin it


def seen_of(found: Object) -> Seen:
    """A run or schedule, whatever else is in it."""
    meta, spec = metadata(found), cast(Object, found.get("spec") or {})
    status = cast(Object, found.get("status") or {})
    labels = cast(Object, meta.get("labels") or {})
    return Seen(
        str(meta.get("namespace") or ""), str(meta["name"]), str(meta["uid"]),
        ended=status.get("phase") == "ended",
        ours=labels.get("engine") == "operator" or not spec.get("creator"),
    )  # fmt: skip


class Engine:
    """The engine of one namespace, in a thread of its own."""

    def __init__(self, around: Surroundings, namespace: str) -> None:
        from faultline.engine.unattended import Manager
        from faultline.operator.running.tools import ClusterRuns, takes

        def opened() -> ClusterRuns:
            return ClusterRuns(around, namespace, cached=True)

        self.namespace = namespace
        self.manager: Manager = Manager(opened, takes=takes)
        self.needed = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name=f"runs of {namespace}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _keep(self) -> None:
        try:
            self.manager.keep()
        except FaultlineError as error:
            _log.warning("runs of %s: %s", self.namespace, error.message)

    def stop(self) -> None:
        self.manager.stop()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)


class Keeper:
    """Engines for the namespaces that need one."""

    def __init__(
        self,
        connect: Callable[[], Client],
        leader: Leader,
        caches: Caches,
        namespaces: tuple[str, ...] = ("*",),
    ) -> None:
        """`namespaces` are those in which runs are carried out, or patterns of them."""
        self._connect, self._leader, self._caches = connect, leader, caches
        self._namespaces = namespaces
        self.runs = Informer(RUNS, seen_of, self._run)
        self.schedules = Informer(SCHEDULES, seen_of, self._schedule)
        self.unasked: Callable[[Object], str] = lambda _run: ""
        self._engines: dict[str, Engine] = {}
        self._not_before: dict[str, float] = {}
        self._wake, self._ending = threading.Event(), threading.Event()
        self._client: Client | None = None
        self._folder: Path | None = None
        self._swept = 0.0
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        for each in (self.runs, self.schedules):
            each.start(self._connect())
        self._client = self._connect()
        self._thread = threading.Thread(target=self._keep, name="runs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more; what is under way is left to the next operator."""
        self._ending.set()
        self._wake.set()
        for each in (self.runs, self.schedules):
            each.stop()
        if self._thread is not None:
            self._thread.join(10)
        if self._client is not None:
            self._client.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _keep(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(TICK)
            self._wake.clear()
            if not self._leader.leads:
                self._end(list(self._engines))
                continue
            if not self._caches.ready:
                continue  # a run would be told that nobody is there
            self._look()
            if time.monotonic() - self._swept > SWEEP and self.runs.synced.is_set():
                self._swept = time.monotonic()
                self._sweep()
        self._end(list(self._engines))

    # ------------------------------------------------------------------ engines

    def _run(self, _key: str, old: Seen | None, new: Seen | None) -> None:
        engine = self._engines.get(new.namespace) if new is not None else None
        if new is not None and old is None and new.ours and not new.ended and engine is not None:
            engine.manager.begin(new.name)
        if old is None or new is None:
            self._wake.set()

    def _schedule(self, _key: str, old: Seen | None, new: Seen | None) -> None:
        if old is None or new is None:
            self._wake.set()

    def _look(self) -> None:
        now = time.monotonic()
        wanted = {each.namespace for each in self.runs.all().values() if not each.ended}
        wanted |= {each.namespace for each in self.schedules.all().values()}
        for namespace in filter(self._meant, wanted):
            engine = self._engines.get(namespace)
            if engine is not None and not engine.alive:
                del self._engines[namespace]
                self._not_before[namespace] = now + AGAIN
            elif engine is not None:
                engine.needed = now
            elif now >= self._not_before.get(namespace, 0.0):
                self._engines[namespace] = Engine(self._around(), namespace)
        self._end([n for n, each in self._engines.items() if now - each.needed > REST])

    def _meant(self, namespace: str) -> bool:
        return any(fnmatchcase(namespace, each) for each in self._namespaces)

    def _around(self) -> Surroundings:
        from faultline.operator.running import meaning
        from faultline.operator.running.tools import Surroundings

        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="faultline-runs-"))

        def connect() -> Rest:
            return self._connect().rest

        image = os.environ.get(IMAGE, "")
        means = partial(meaning.means, self._caches)
        return Surroundings(
            connect, means, self._caches.halted, self._folder, image, self.unasked
        )  # fmt: skip

    def _end(self, namespaces: list[str]) -> None:
        ending = [self._engines.pop(each) for each in namespaces if each in self._engines]
        for each in ending:
            each.stop()
        for each in ending:
            each.join(10)

    # ------------------------------------------------------------------ what was left behind

    def _sweep(self) -> None:
        """Faults of runs that are there no more, or that have ended without them."""
        from faultline.operator.running import faults

        unfinished = {each.uid[:12] for each in self.runs.all().values() if not each.ended}
        for fault in self._caches.faults.all().values():
            view = fault.view
            if faults.FINALIZER not in fault.finalizers or view.name[:12] in unfinished:
                continue
            try:
                self._let_go(fault)
            except ApiError as error:
                if error.status not in (404, 409):
                    _log.warning("Fault %s/%s: %s", view.namespace, view.name, error.message)

    def _let_go(self, fault: FaultObject) -> None:
        from faultline.operator.running import faults

        view, client = fault.view, cast(Client, self._client)
        if not view.deleting:
            client.delete(FAULTS, view.name, view.namespace)
        elif view.status.phase in OVER and UNDO not in fault.finalizers:
            found: Any = client.get(FAULTS, view.name, view.namespace)
            faults.release(client, found)
