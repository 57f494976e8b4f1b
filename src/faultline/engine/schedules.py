"""Carries out over a store what the reconciler of schedules decides.

Safe to be killed anywhere, to be called twice, and by several engines: the status is written before
anything is done, and a run is made only while the status says that it is to be made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from faultline.api import admission
from faultline.api.calendar import Calendar, CalendarSpec
from faultline.api.experiment import Experiment
from faultline.api.model import API_VERSION
from faultline.api.run import Phase, Run
from faultline.api.schedule import LABEL, OCCURRENCE, Schedule
from faultline.engine import runs, scheduling, stored
from faultline.engine.children import Finder
from faultline.engine.scheduling import AbortRun, Action, CreateRun, Facts, RunFact
from faultline.errors import FaultlineError, Happened, UnknownName
from faultline.stores.model import Exists, Filter, Stale, Store, Summary

LONGEST_WAIT = 60.0
"""Seconds after which to look again whatever the calendar says: somebody may set the clock."""
_ROUNDS = 20

_log = logging.getLogger(__name__)


class Schedules:
    """All schedules of a store. `step` at the time that it returned last, and after any run ended
    or any schedule was written; more often does no harm.
    """

    def __init__(self, store: Store, check_fault: admission.CheckFault | None = None) -> None:
        self.store = store
        self._check = check_fault
        # What was read of each, and from when until when what was decided on it holds.
        self._idle: dict[str, tuple[object, float, float]] = {}

    def step(self, now: float, halted: str = "") -> float:
        """Decide and act on what is due at `now`, seconds since 1970; when to look again.

        `halted` says why nothing may start; empty if something may.
        """
        calendars = self.store.list(Calendar)
        read = tuple((each.metadata.name, each.metadata.resource_version) for each in calendars)
        specs = {each.metadata.name: each.spec for each in calendars}
        wakes = [now + LONGEST_WAIT]
        found = self.store.list(Schedule)
        for schedule in found:
            name, version = schedule.metadata.name, schedule.metadata.resource_version
            known, since, until = self._idle.get(name, (None, 0.0, 0.0))
            if known != (version, read, halted) or not since <= now < until:
                try:
                    written, wake = self._one(schedule, specs, now, halted)
                except FaultlineError as error:
                    if error.retry:
                        raise  # the store
                    _log.warning("schedule %s: %s", name, error.message)  # the others go on
                    written, wake = version, now + scheduling.LOOK
                until = now + LONGEST_WAIT if wake is None else wake
                self._idle[name] = ((written, read, halted), now, until)
            wakes.append(until)
        for gone in self._idle.keys() - {each.metadata.name for each in found}:
            del self._idle[gone]
        return min(wakes)

    def _one(
        self, schedule: Schedule, calendars: Mapping[str, CalendarSpec], now: float, halted: str
    ) -> tuple[int, float | None]:
        """Reconcile one schedule until nothing is left to do; its version and when it wakes."""
        name = schedule.metadata.name
        refused: dict[str, str] = {}
        for _ in range(_ROUNDS):
            facts = Facts(run_facts(self.store, schedule), calendars, halted, refused)
            decision = scheduling.reconcile(schedule, facts, now)
            try:
                if decision.status != schedule.status:
                    schedule = self.store.write_status(
                        schedule.model_copy(update={"status": decision.status})
                    )
                if not decision.actions:
                    return schedule.metadata.resource_version, decision.wake_at
                for action in decision.actions:
                    if why := self.carry_out(name, action):
                        refused[action.name] = why
            except Stale:
                schedule = self.store.get(Schedule, name)
            except UnknownName:  # it was deleted meanwhile
                return 0, None
        return schedule.metadata.resource_version, now + scheduling.POLL

    def carry_out(self, name: str, action: Action) -> str:
        """Do one action of the schedule of that name; why it can never be done, if so."""
        if isinstance(action, CreateRun):
            return self._create(name, action)
        try:
            if isinstance(action, AbortRun):
                runs.abort(self.store, action.name, action.why)
            else:
                self.store.delete(Run, action.name)
        except UnknownName:
            pass  # it has gone: that is as good
        return ""

    def _create(self, name: str, action: CreateRun) -> str:
        schedule = self.store.get(Schedule, name)
        if action.name not in {due.run for due in schedule.status.creating}:
            return ""  # another engine has done it, and what came of it may be forgotten already
        when = datetime.fromtimestamp(action.occurrence, UTC).isoformat()
        try:
            marks = {OCCURRENCE: when}
            make_run(self.store, schedule, action.name, self._check, marks, as_read=True)
        except Exists:
            if self.store.get(Run, action.name).metadata.labels.get(LABEL) != name:
                return f"there is another run of the name {action.name}"
        except FaultlineError as error:
            if error.retry or error.happened is not Happened.NOTHING:
                raise
            return error.message
        return ""


def step(store: Store, now: float, halted: str = "") -> float:
    """`Schedules.step` for whoever calls it once."""
    return Schedules(store).step(now, halted)


def make_run(
    store: Store,
    schedule: Schedule,
    run: str,
    check: admission.CheckFault | None = None,
    labels: Mapping[str, str] | None = None,
    creator: str = "",
    *,
    as_read: bool = False,
) -> Run:
    """Write down a run of a schedule's experiment; raises Exists, UsageError, and with `as_read`
    Stale if the schedule was written since.
    """
    name, values = schedule.metadata.name, schedule.spec.parameters
    return runs.create(
        store,
        resolved(store, schedule),
        values,
        creator=creator or f"schedule {name}",
        check=check,
        name=run,
        labels={LABEL: name, **(labels or {})},
        base=Path(schedule.spec.experiment.folder),
        given=schedule if as_read else None,
    )


def resolved(store: Store, schedule: Schedule) -> Experiment:
    """The experiment of a schedule with its parameters filled in; raises UsageError."""
    use = schedule.spec.experiment
    if use.spec is not None:
        return inlined(schedule)
    return stored.get(store, use.name, schedule.spec.parameters)


def check(store: Store, schedule: Schedule, check_fault: admission.CheckFault) -> None:
    """Raise InvalidDocument or UnknownName if its runs could not be made."""
    finder = Finder(store, check_fault, runs.load)
    experiment = finder.checked(resolved(store, schedule))
    finder.children(experiment, Path(schedule.spec.experiment.folder))


def inlined(schedule: Schedule) -> Experiment:
    """The experiment that stands in a schedule; raises UsageError."""
    use = schedule.spec.experiment
    data = {
        "apiVersion": API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": use.name},
        "spec": use.spec,
    }
    return admission.resolve(data, schedule.spec.parameters, f"experiment {use.name}")


def run_facts(store: Store, schedule: Schedule) -> tuple[RunFact, ...]:
    """The runs of a schedule as its reconciler wants them."""
    found = store.summaries(Run, Filter(labels={LABEL: schedule.metadata.name}))
    replaced = schedule.spec.concurrency == "replace"
    return tuple(_fact(store, each, look=replaced and each.phase != Phase.ENDED) for each in found)


def _fact(store: Store, run: Summary, *, look: bool) -> RunFact:
    told = run.labels.get(OCCURRENCE)
    over = run.phase == Phase.ENDED
    return RunFact(
        run.name,
        run.created,
        round(datetime.fromisoformat(told).timestamp()) if told else None,
        (run.ended or run.created) if over else None,
        run.verdict if over else "",
        run.reason,
        look and bool(store.get(Run, run.name).spec.abort),
    )
