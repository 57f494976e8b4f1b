"""What people do with schedules: put them into the store, pause, resume, trigger, remove them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ValidationError

from faultline.api import admission
from faultline.api.calendar import Calendar, CalendarSpec
from faultline.api.document import Problem, invalid_document, parse, parse_all, problems_of
from faultline.api.experiment import Experiment
from faultline.api.kinds import kind_of, read_resource
from faultline.api.model import Resource
from faultline.api.run import Run
from faultline.api.schedule import RESUMED, Schedule
from faultline.engine import runs, schedules, stored
from faultline.engine.calendar import Timetable
from faultline.errors import Conflict, FaultlineError, InvalidDocument, Refused, UnknownName
from faultline.stores.model import Exists, Stale, Store

_KINDS = (Schedule, Calendar, Experiment)
_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Applied:
    """A document that is in the store now."""

    resource: Resource
    what: Literal["created", "changed", "unchanged"]


def read(path: Path) -> list[Resource]:
    """The schedules, calendars and experiments of a file, with what they name in place.

    Raises InvalidDocument.
    """
    return [resource_of(data, str(path)) for data in _documents(path)]


def resource_of(data: dict[str, Any], name: str) -> Resource:
    """A raw document as it is put into a store; raises InvalidDocument."""
    if data["kind"] == "Experiment":
        return stored.keepable(data, name)
    return read_resource(data, name)


def _documents(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for data in parse_all(_text(path), str(path)):
        if kind_of(data, str(path)) not in {kind.__name__ for kind in _KINDS}:
            raise InvalidDocument(
                f"{path} holds a {data['kind']}; expected Schedule, Calendar or Experiment"
            )
        found.append(_with_experiment(data, path) if data["kind"] == "Schedule" else data)
    return found


def problems(path: Path, check_fault: admission.CheckFault) -> list[Problem]:
    """Everything that is wrong with such a file, as far as it can be told without a store."""
    try:
        documents = _documents(path)
    except InvalidDocument as error:
        return [Problem("document", error.message)]
    found: list[Problem] = []
    for data in documents:
        if data["kind"] == "Experiment":
            found += admission.problems(data, check_fault)
            continue
        try:
            resource = read_resource(data, str(path))
            if isinstance(resource, Schedule) and resource.spec.experiment.spec is not None:
                inner = schedules.inlined(resource)
                found += [
                    Problem(f"spec.experiment.{one.path}", one.expected, one.given)
                    for one in admission.check(inner.spec, check_fault)
                ]
        except FaultlineError as error:
            cause = error.__cause__
            validated = isinstance(cause, ValidationError)
            found += problems_of(cause, data) if validated else [Problem("spec", error.message)]
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{path} cannot be read: {error}") from error


def _with_experiment(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """A schedule in which the file of an experiment is replaced by what it holds."""
    spec: Any = data.get("spec")
    named: Any = cast("dict[str, Any]", spec).get("experiment") if isinstance(spec, dict) else None
    if not isinstance(named, str) or not ("/" in named or named.endswith(_ENDINGS)):
        return data
    file = path.parent / named
    try:
        inner = parse(_text(file), str(file))
        if kind_of(inner, str(file)) != "Experiment":
            raise InvalidDocument(f"{file} is a {inner['kind']}, not an Experiment")
        use = {"name": inner["metadata"]["name"], "spec": inner["spec"]}
    except (KeyError, TypeError, InvalidDocument) as error:
        why = error.message if isinstance(error, InvalidDocument) else "it has no name or no spec"
        problem = Problem("spec.experiment", f"the file of an experiment: {why}")
        raise invalid_document(str(path), [problem]) from error
    use["folder"] = str(file.parent.absolute())
    return {**data, "spec": {**spec, "experiment": use}}


def apply(
    store: Store, resources: list[Resource], check_fault: admission.CheckFault
) -> list[Applied]:
    """Put them into the store, all or none; raises InvalidDocument, UnknownName."""
    order = (Calendar, Experiment, Schedule)
    ordered = sorted(resources, key=lambda each: order.index(type(each)))
    named = {each.metadata.name for each in ordered if isinstance(each, Experiment)}
    calendars = {each.metadata.name for each in ordered if isinstance(each, Calendar)}
    calendars |= {each.metadata.name for each in store.list(Calendar)}
    for each in ordered:
        if isinstance(each, Experiment):
            if wrong := stored.problems(each, check_fault):
                raise invalid_document(f"experiment {each.metadata.name}", wrong)
        elif isinstance(each, Schedule):
            _check(store, each, named, calendars, check_fault)
    return [_put(store, each) for each in ordered]


def _check(
    store: Store,
    schedule: Schedule,
    beside: set[str],
    calendars: set[str],
    check_fault: admission.CheckFault,
) -> None:
    for index, use in enumerate(schedule.spec.calendars):
        if use.name and use.name not in calendars:
            known = ", ".join(sorted(calendars)) or "there is none"
            problem = Problem(
                f"spec.calendars.{index}", f"the name of a Calendar ({known})", use.name
            )
            raise invalid_document(f"schedule {schedule.metadata.name}", [problem])
    use = schedule.spec.experiment
    if use.spec is None and use.name in beside:
        return  # comes with it, and was checked
    try:
        schedules.check(store, schedule, check_fault)
    except FaultlineError as error:
        if use.spec is not None and isinstance(error, InvalidDocument):
            raise  # names the fields of the experiment
        problem = Problem("spec.experiment", f"an experiment that can run: {error.message}")
        raise invalid_document(f"schedule {schedule.metadata.name}", [problem]) from error


def _put(store: Store, resource: Resource) -> Applied:
    try:
        return Applied(store.create(resource), "created")
    except Exists:
        pass
    kind, name = type(resource), resource.metadata.name

    def alter(kept: Any) -> Any:
        resumed = {k: v for k, v in kept.metadata.annotations.items() if k == RESUMED}
        given = resource.metadata
        meta = kept.metadata.model_copy(
            update={"labels": given.labels, "annotations": {**given.annotations, **resumed}}
        )
        return kept.model_copy(update={"metadata": meta, "spec": cast("Any", resource).spec})

    before = store.get(kind, name)
    after = _change(store, kind, name, alter)
    same = after.metadata.resource_version == before.metadata.resource_version
    return Applied(after, "unchanged" if same else "changed")


def _change(store: Store, kind: type[Any], name: str, alter: Callable[[Any], Any]) -> Any:
    """Read, alter and write, as often as somebody else writes meanwhile."""
    while True:
        kept = store.get(kind, name)
        wanted = alter(kept)
        if wanted == kept:
            return kept
        try:
            return store.update(wanted)
        except Stale:
            continue


def pause(store: Store, name: str) -> Schedule:
    """Start nothing more; what runs goes on."""
    return _change(store, Schedule, name, lambda kept: _with(kept, paused=True))


def resume(store: Store, name: str, now: float) -> Schedule:
    """Go on, and count from now on, also if it was not paused."""

    def alter(kept: Schedule) -> Schedule:
        marked = {**kept.metadata.annotations, RESUMED: f"{now:.3f}"}
        meta = kept.metadata.model_copy(update={"annotations": marked})
        return _with(kept, paused=False).model_copy(update={"metadata": meta})

    return _change(store, Schedule, name, alter)


def _with(schedule: Schedule, **changes: Any) -> Schedule:
    return schedule.model_copy(update={"spec": schedule.spec.model_copy(update=changes)})


def calendars(store: Store) -> dict[str, CalendarSpec]:
    """All calendars of a store by name."""
    return {each.metadata.name: each.spec for each in store.list(Calendar)}


def trigger(
    store: Store,
    name: str,
    now: float,
    *,
    creator: str = "",
    anyway: bool = False,
    check_fault: admission.CheckFault | None = None,
) -> Run:
    """Make a run now, whatever the calendar says; raises Refused in a freeze and Conflict beside an
    active run that forbids another, unless `anyway`.
    """
    schedule = store.get(Schedule, name)
    frozen = Timetable(schedule, calendars(store)).windows.blocked(now)
    if frozen and not anyway:
        raise Refused(f"{name} may not start now: {frozen}", hint="if it must: --anyway")
    active = active_runs(store, schedule)
    if active and schedule.spec.concurrency == "forbid" and not anyway:
        raise Conflict(
            f"{active[0]} of {name} is still active",
            holder=active[0],
            hint=f"abort it: faultline abort {active[0]}; or run both: --anyway",
        )
    run = f"{name}-now-{secrets.token_hex(3)}"
    return schedules.make_run(store, schedule, run, check_fault, creator=creator)


def active_runs(store: Store, schedule: Schedule) -> list[str]:
    """The runs of a schedule that have not ended, oldest first."""
    facts = [each for each in schedules.run_facts(store, schedule) if each.ended is None]
    return [each.name for each in sorted(facts, key=lambda each: each.created)]


def delete(store: Store, name: str, *, abort: bool = False) -> list[str]:
    """Remove a schedule; its runs stay. Answers the active ones, which `abort` aborts."""
    schedule = store.get(Schedule, name)
    store.delete(Schedule, name)
    active = active_runs(store, schedule)
    for run in active if abort else ():
        try:
            runs.abort(store, run, f"its schedule {name} was deleted")
        except UnknownName:
            continue
    return active
