"""The reconciler of a schedule: a pure function from what is known to what should be done.

The name of a run follows from its schedule and its occurrence, so making it twice is harmless. What
is to be made is written into the status first (`creating`) and stays there until the run is seen:
an engine that died in between finds it. An occurrence is decided on once: `seen` only grows, unless
the schedule itself was changed, and what is in the history is never run again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from faultline.api.calendar import CalendarSpec
from faultline.api.schedule import RESUMED, Due, Note, Past, Schedule, ScheduleStatus
from faultline.engine import walltime
from faultline.engine.calendar import Occurrence, Timetable

GRACE = 15.0
"""How late an occurrence still counts as on time, in seconds: an engine may be busy."""
MOST = 2000
"""Occurrences that are looked at one by one; of more that were missed only the latest are."""
NOTES = 20
FORGOTTEN = 50
"""Entries of the history whose runs are not kept any more."""
AHEAD = 200
"""Occurrences among which the next one that runs is looked for."""
POLL, LOOK = 1.0, 10.0
"""Seconds until the next look while something waits, and while a run is active."""
_SPANS = (60, 3600, 86400, 30 * 86400, 366 * 86400)


@dataclass(frozen=True, slots=True)
class RunFact:
    """A run of the schedule as it is in the store."""

    name: str
    created: float
    occurrence: int | None = None
    ended: float | None = None
    verdict: str = ""
    reason: str = ""
    aborting: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All runs of the schedule, and what else bears on it."""

    runs: tuple[RunFact, ...] = ()
    calendars: Mapping[str, CalendarSpec] = field(default_factory=dict[str, CalendarSpec])
    halted: str = ""  # why nothing may start at all
    refused: Mapping[str, str] = field(default_factory=dict[str, str])  # runs that cannot be made


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Make a run, unless there is one of that name."""

    name: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class AbortRun:
    """Ask a run to undo everything and end."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Forget a run that has ended."""

    name: str


Action = CreateRun | AbortRun | DeleteRun


@dataclass(frozen=True, slots=True)
class Decision:
    """The new status, what is to be done, and when to look again, in seconds since 1970."""

    status: ScheduleStatus
    actions: tuple[Action, ...]
    wake_at: float | None


def reconcile(schedule: Schedule, facts: Facts, now: float) -> Decision:
    """Decide. Write the status first, then carry out the actions."""
    draft = _Draft(schedule, facts, now)
    draft.count()
    draft.fold()
    stopped = "paused" if schedule.spec.paused else ""
    stopped = f"halted: {facts.halted}" if facts.halted else stopped
    due = draft.due()
    if stopped:
        draft.drop(due, stopped)
    else:
        draft.decide(due)
        draft.drain()
    draft.tell(stopped)
    return Decision(draft.status, tuple(draft.actions()), draft.wake())


def run_name(schedule: Schedule, occurrence: int) -> str:
    """The name of the run for an occurrence."""
    return f"{schedule.metadata.name}-{walltime.utc_stamp(occurrence)}"


class _Draft:
    def __init__(self, schedule: Schedule, facts: Facts, now: float) -> None:
        self.schedule, self.facts, self.now = schedule, facts, now
        self.spec = schedule.spec
        self.status = schedule.status.model_copy(deep=True)
        self.table = Timetable(schedule, facts.calendars)
        self.waits: float | None = None  # when the calendar comes next

    # ------------------------------------------------------------------ what is known

    def count(self) -> None:
        """From when occurrences count; a schedule that was changed counts anew."""
        key = {
            "when": self.spec.when.to_json(),
            "zone": self.spec.time_zone,
            "paused": self.spec.paused,
            "resumed": self.schedule.metadata.annotations.get(RESUMED, ""),
        }
        text, before = json.dumps(key, separators=(",", ":")), self.status.counts_from
        if text == before:
            return
        made = self.schedule.metadata.creation_timestamp
        self.status.counts_from = text
        self.status.seen = int((self.now if before else made) // 1)
        self._forget("the schedule was changed")

    def _forget(self, why: str) -> None:
        for due in self.status.backlog:
            self.note(due.occurrence, why)
        self.status.backlog = []

    def fold(self) -> None:
        """What became of the runs."""
        status = self.status
        runs = {run.name: run for run in sorted(self.facts.runs, key=lambda run: run.created)}
        known = {past.run: past for past in status.history}
        for due in list(status.creating):
            if due.run in self.facts.refused and due.run not in runs:
                why = self.facts.refused[due.run]
                past = Past(occurrence=due.occurrence, run=due.run, outcome="not made", reason=why)
                status.history.insert(0, past.model_copy(update={"kept": False, "ended": self.now}))
                status.creating.remove(due)
        for name, run in runs.items():
            if name not in known:
                known[name] = Past(occurrence=run.occurrence, run=name)
                status.history.insert(0, known[name])
                status.started += 1
                if run.occurrence is not None:
                    status.last = max(status.last or 0, run.occurrence)
            if run.ended is not None:
                known[name].outcome, known[name].reason = run.verdict, run.reason
                known[name].ended = run.ended
        status.creating = [due for due in status.creating if due.run not in runs]
        status.active = [run.name for run in runs.values() if run.ended is None]
        for past in status.history:
            past.kept = past.run in runs
        gone = [past.run for past in status.history if not past.kept][FORGOTTEN:]
        status.history = [past for past in status.history if past.run not in gone]

    def due(self) -> list[Occurrence]:
        """What has become due and is not decided on; it counts as decided from now on."""
        seen = self.status.seen or 0
        found = self._until_now(seen, MOST)
        if len(found) == MOST:  # so many that only the latest are of interest
            found += self._latest(found[-1].original)
        if found:
            self.status.seen = max(seen, found[-1].original)
        done = {past.occurrence for past in self.status.history}
        done |= {due.occurrence for due in (*self.status.creating, *self.status.backlog)}
        return [each for each in found if each.original not in done]

    def _latest(self, after: int) -> list[Occurrence]:
        found: list[Occurrence] = []
        for span in _SPANS:
            start = max(after, int(self.now) - span)
            found = self._until_now(start, None)
            if len(found) >= self.spec.missed_limit or start == after:
                break
        return found

    def _until_now(self, after: int, most: int | None) -> list[Occurrence]:
        found: list[Occurrence] = []
        for each in self.table.occurrences(after):
            if each.at > self.now:
                self.waits = each.at
                break
            found.append(each)
            if len(found) == most:
                break
        return found

    # ------------------------------------------------------------------ decisions

    def note(self, occurrence: int, why: str) -> None:
        self.status.skipped += 1
        self.status.notes = [*self.status.notes, Note(occurrence=occurrence, text=why)][-NOTES:]

    def drop(self, due: list[Occurrence], why: str) -> None:
        """Nothing may start: what is due or waits is left out, not put off."""
        for each in due:
            self.note(each.original, each.skipped or why)
        self._forget(why)
        for each in self.status.creating:
            self.note(each.occurrence, why)
        self.status.creating = []

    def decide(self, due: list[Occurrence]) -> None:
        deadline = self.spec.starting_deadline
        grace = GRACE
        if self.spec.missed == "skip" and deadline is not None:
            grace = deadline.seconds
        missed: list[Occurrence] = []
        on_time: list[Occurrence] = []
        for each in due:
            if each.skipped:
                self.note(each.original, each.skipped)
            elif self.now - each.at > grace:
                missed.append(each)
            else:
                on_time.append(each)
        self._missed(missed)
        for each in on_time:
            self._want(each, "")

    def _missed(self, missed: list[Occurrence]) -> None:
        self.status.missed += len(missed)
        rule = self.spec.missed
        if self.spec.concurrency == "replace" and rule == "all":
            rule = "once"  # each would replace the one before at once
        most = {"skip": 0, "once": 1, "all": self.spec.missed_limit}[rule]
        in_time = sum(not self._too_late(each.at) for each in missed)  # the latest ones
        left_out = len(missed) - min(most, in_time)
        for each in missed[:left_out]:
            self.note(each.original, "missed: no engine looked when it was due")
        for each in missed[left_out:]:
            why = "missed when it was due"
            if rule == "all" and self.spec.concurrency == "forbid":
                self.status.backlog.append(self._due(each, why))
            else:
                self._want(each, why)

    def _too_late(self, at: float) -> bool:
        deadline = self.spec.starting_deadline
        return deadline is not None and self.now - at > deadline.seconds

    def _want(self, occurrence: Occurrence, why: str) -> None:
        """Run an occurrence now, as far as freezes and other runs let it."""
        status, due = self.status, self._due(occurrence, why)
        frozen = self.table.windows.blocked(self.now)
        busy = [*status.active, *(each.run for each in (*status.creating, *status.backlog))]
        if frozen and self.spec.on_freeze == "skip":
            self.note(occurrence.original, f"{frozen}, when it could have begun")
        elif busy and self.spec.concurrency == "forbid":
            self.note(occurrence.original, f"{busy[0]} was still active")
        elif busy and self.spec.concurrency == "replace":
            self._forget("replaced by a later one before it began")
            status.backlog.append(due)
        elif frozen:
            status.backlog.append(due)
        else:
            status.creating.append(due)

    def _due(self, each: Occurrence, why: str) -> Due:
        name = run_name(self.schedule, each.original)
        return Due(occurrence=each.original, at=each.at, run=name, why=why)

    def drain(self) -> None:
        """Begin what waited, one at a time unless they may overlap."""
        status = self.status
        frozen = self.table.windows.blocked(self.now)
        for due in list(status.backlog):
            if self._too_late(due.at):
                self.note(due.occurrence, "it waited beyond its starting deadline")
                status.backlog.remove(due)
        if frozen and self.spec.on_freeze == "skip":
            self._forget(f"{frozen}, when it could have begun")
        if frozen:
            return
        several = self.spec.concurrency == "allow"
        while status.backlog and (several or not (status.active or status.creating)):
            status.creating.append(status.backlog.pop(0))

    # ------------------------------------------------------------------ what follows

    def actions(self) -> list[Action]:
        status = self.status
        found: list[Action] = [CreateRun(due.run, due.occurrence) for due in status.creating]
        if status.backlog and self.spec.concurrency == "replace":
            late = walltime.text(status.backlog[0].occurrence, self.table.zone)
            why = f"replaced by the occurrence of {late}"
            aborting = {run.name for run in self.facts.runs if run.aborting}
            found += [AbortRun(name, why) for name in status.active if name not in aborting]
        ended = [run for run in self.facts.runs if run.ended is not None]
        ended.sort(key=lambda run: (run.ended or 0.0, run.created), reverse=True)
        held = [run for run in ended if run.verdict == "held"]
        other = [run for run in ended if run.verdict != "held"]
        limits = self.spec.history
        surplus = [*held[limits.succeeded :], *other[limits.failed :]]
        return [*found, *(DeleteRun(run.name) for run in surplus)]

    def tell(self, stopped: str) -> None:
        """The next run and the whole in one sentence."""
        status, seen = self.status, self.status.seen or 0
        ahead = itertools.islice(self.table.occurrences(seen), AHEAD)
        following = next((each for each in ahead if not each.skipped), None)
        status.next = following.at if following and not self.spec.paused else None
        if stopped:
            status.text = stopped
        elif status.creating or status.backlog:
            waiting = [*status.creating, *status.backlog]
            status.text = f"{len(waiting)} to begin: {waiting[0].why or 'due'}"
        elif self.now < seen:
            last = walltime.text(seen, self.table.zone)
            status.text = f"the clock is behind the latest occurrence ({last}): waiting for it"
        elif following is None:
            left_out = "everything in sight is left out by its calendars"
            status.text = "nothing is to come" if self.waits is None else left_out
        else:
            status.text = f"next: {walltime.text(following.at, self.table.zone)}"

    def wake(self) -> float | None:
        waits = [] if self.waits is None else [self.waits]
        if self.status.creating or self.status.backlog:
            waits.append(self.now + POLL)
        elif self.status.active:
            waits.append(self.now + LOOK)
        return min(waits, default=None)
