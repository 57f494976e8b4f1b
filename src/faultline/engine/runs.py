"""Runs as commands see them: check a document, start, follow, resume, abort, list."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from faultline.api import admission
from faultline.api.document import Problem, parse, parse_all, problems_of, read
from faultline.api.experiment import Experiment
from faultline.api.kinds import KINDS, kind_of
from faultline.api.model import Metadata, Resource
from faultline.api.run import Phase, Run, RunSpec, Verdict
from faultline.changes import halt
from faultline.changes.store import Store as Folders
from faultline.changes.store import open_store
from faultline.engine import filling, planning, stored
from faultline.engine.actions import order_for
from faultline.engine.children import Finder
from faultline.engine.doing import HostDoer
from faultline.engine.driver import Driver, Listener
from faultline.engine.planning import Planned
from faultline.engine.ports import Tools
from faultline.errors import Conflict, Halted, InvalidDocument, UnknownName, UsageError
from faultline.stores import opening
from faultline.stores.model import Exists, Filter, Stale, Store, Summary
from faultline.stores.renewal import Renewal

ToolsFactory = Callable[[], Tools]

_EXIT = {
    Verdict.HELD: 0,
    Verdict.NOT_EFFECTIVE: 4,
    Verdict.NOT_MEASURED: 4,
    Verdict.BROKE: 5,
    Verdict.ERROR: 1,
}


_STORED = re.compile(r"(?!.*\.(ya?ml|json)$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
"""What may be the name of a stored experiment and looks like no file."""


def load(path: Path, values: dict[str, Any] | None = None) -> Experiment:
    """Read an experiment with its parameters filled in; raises InvalidDocument or UsageError."""
    data = parse(_text(path), str(path))
    if kind_of(data, str(path)) != "Experiment":
        raise InvalidDocument(f"{path} is a {data['kind']}, not an Experiment")
    return admission.resolve(data, values or {}, str(path))


def validate(path: Path, check_fault: admission.CheckFault) -> list[Problem]:
    """Everything that is wrong with a document of any kind; empty if it is right."""
    try:
        data, *others = parse_all(_text(path), str(path))
        kind = kind_of(data, str(path))
    except InvalidDocument as error:
        return [Problem("document", error.message)]
    if others or kind == "Schedule":
        from faultline.engine import schedule_edits

        return schedule_edits.problems(path, check_fault)
    if kind == "Experiment":
        return admission.problems(data, check_fault)
    try:
        read(KINDS[kind], data, str(path))
    except InvalidDocument as error:
        from pydantic import ValidationError

        cause = error.__cause__
        if isinstance(cause, ValidationError):
            return problems_of(cause, data)
        return [Problem("document", error.message)]
    if kind == "Fault":
        spec: dict[str, Any] = data["spec"]
        found = check_fault(spec["fault"], spec.get("params", {}))
        return [Problem(f"spec.{one.path}", one.expected, one.given) for one in found]
    return []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{path} cannot be read: {error}") from error


class Runs:
    """The runs of this host. A context manager; used by one thread."""

    def __init__(
        self,
        state: Path | None = None,
        tools: ToolsFactory | None = None,
        check_fault: admission.CheckFault | None = None,
        store: str | None = None,
        *,
        cached: bool = False,
        opened: Store | None = None,
        folders: Folders | None = None,
    ) -> None:
        """`store` is a path or a URL; without it the one that FAULTLINE_STORE names, else a file in
        the state folder. `cached` is for who looks at all runs every second; `opened` is the store
        of who has opened it himself, `folders` where locks are of who keeps nothing else on disk.
        """
        self._folders = folders or open_store(state)
        self.store: Store = opened or opening.open_store(store, state, cached=cached)
        self._renewal = Renewal(self.store)
        self._place = store
        self._locks = self._folders.run / "locks"
        self._state = state
        self._tools = tools
        self.check_fault = check_fault
        """What is asked whether a fault's parameters are right; None: the registry of this host."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._renewal.close()
        self.store.close()

    def create(
        self,
        experiment: Experiment,
        values: dict[str, Any] | None = None,
        creator: str = "",
        base: Path | None = None,
        seed: int | None = None,
    ) -> Run:
        """Write down a new run of an experiment; raises InvalidDocument if it cannot be right,
        Halted while everything is.

        The files of experiments that its nodes carry out are sought relative to `base`. What the
        run chooses at random is drawn from `seed`; without it from one that is drawn now.
        """
        self.check_halt()
        return create(
            self.store,
            experiment,
            values,
            creator=creator,
            check=self.check_fault,
            base=base,
            seed=seed,
        )

    def named(self, source: Path, values: dict[str, Any]) -> tuple[Experiment, Path]:
        """The experiment of a file, or of that name in the store, with these values; and where the
        files that it names are sought.

        Raises InvalidDocument, InvalidParameter, UnknownName, UsageError.
        """
        if not source.is_file() and _STORED.fullmatch(str(source)):
            return stored.get(self.store, str(source), values), Path()
        return load(source, values), source.parent

    def ahead(
        self, experiment: Experiment, values: dict[str, Any], base: Path, seed: int | None = None
    ) -> tuple[RunSpec, list[Planned]]:
        """What a run of an experiment would do to whom: its faults on the targets that its
        selectors mean now. Nothing is touched, nothing is written; raises what injecting would
        refuse.
        """
        finder = Finder(self.store, self.check_fault or _host_check(), load)
        spec = filling.spec_of(finder, experiment, values, base, seed)
        run = Run(metadata=Metadata(name="plan", uid="plan"), spec=spec)
        tools = self._tools() if self._tools else _host_tools(self._state)
        with tools.injector() as injector:
            return spec, planning.plan(run, injector, tools.choose, order_for)

    def adopt(self, run: Run) -> Run:
        """Write a run down, unless there is one of this name: then that one."""
        try:
            return self.store.create(run)
        except Exists:
            return self.store.get(Run, run.metadata.name)

    def again(self) -> Runs:
        """The same once more, for another thread."""
        return Runs(self._state, self._tools, self.check_fault, self._place)

    def driver(self, name: str, listener: Listener | None = None) -> Driver:
        """What carries out a run or goes on with it; `drive()` it, `stop(why)` aborts it.

        Raises Conflict if an engine of another host carries it out.
        """
        fence = 0
        if self.store.shared:
            taken = self._renewal.take(Run, name)
            fence = taken.lease.fence
            filling.fill(self.store, taken.resource, self.check_fault or _host_check(), load)
        elif not self.store.count(Run, Filter(names=(name,))):
            raise UnknownName(f"there is no Run {name!r}")
        tools = self._tools() if self._tools else _host_tools(self._state)
        if tools.doer is None:
            tools = replace(tools, doer=HostDoer(self.again))
        made = Driver(self.store, name, tools, self._locks, listener)
        made.carrying.halted = self.halted
        if self.store.shared:
            made.carrying.sure = partial(self._sure, name, fence)
        return made

    def _sure(self, name: str, fence: int) -> bool:
        lease = self._renewal.lease(Run, name)
        if lease is None or lease.fence != fence:  # or lost, and taken anew
            raise Conflict(
                f"run {name} was taken over by another engine",
                holder=name,
                hint="the store was not reached in time; the other engine goes on with the run",
            )
        return lease.sure

    def leave(self, name: str) -> None:
        """Let another engine have a run that is not carried out here any more."""
        self._renewal.release(Run, name)

    def check_halt(self) -> None:
        """Raise Halted while everything on this host is."""
        halt.check(self._folders)

    def halted(self) -> str:
        """Why nothing may run on this host; empty if something may."""
        found = halt.current(self._folders)
        return f"halted: {found}" if found else ""

    def start(
        self,
        experiment: Experiment,
        values: dict[str, Any] | None = None,
        listener: Listener | None = None,
        creator: str = "",
    ) -> Run:
        """Create a run and carry it out to its end."""
        return self.driver(self.create(experiment, values, creator).metadata.name, listener).drive()

    def resume(self, name: str = "", listener: Listener | None = None) -> Run:
        """Go on with a run whose engine died: the named one, else the latest that has not ended.

        Raises Conflict if an engine carries it out, UnknownName if there is nothing to resume.
        """
        if not name:
            waiting = self.unfinished()
            if not waiting:
                raise UnknownName("there is no run that has not ended")
            name = waiting[0].metadata.name
        run = self.get(name)
        if run.status.phase is Phase.ENDED:
            raise UsageError(f"run {name} has ended: {run.status.verdict}")
        return self.driver(name, listener).drive()

    def get(self, name: str) -> Run:
        """One run, with everything for its report; raises UnknownName."""
        return self.store.get(Run, name)

    def list(self, limit: int | None = None) -> list[Run]:
        """Runs, newest first."""
        return self.store.list(Run, limit=limit)

    def summaries(
        self, where: Filter | None = None, limit: int | None = None, after: str = ""
    ) -> Sequence[Summary]:
        """What a list shows of runs, newest first, from behind the cursor `after`."""
        return self.store.summaries(Run, where, limit, after)

    def unfinished(self) -> list[Run]:
        """Runs that have not ended, newest first."""
        return [self.get(each.name) for each in self.summaries(Filter(ended=False))]

    def abort(self, name: str, why: str) -> Run:
        """Ask the engine of a run to undo everything and end it."""
        return abort(self.store, name, why)


def create(  # noqa: PLR0913 (each is what a caller may know of a run)
    store: Store,
    experiment: Experiment,
    values: dict[str, Any] | None = None,
    *,
    creator: str = "",
    check: admission.CheckFault | None = None,
    name: str = "",
    labels: dict[str, str] | None = None,
    base: Path | None = None,
    seed: int | None = None,
    given: Resource | None = None,
) -> Run:
    """Write down a new run of an experiment; raises InvalidDocument if it cannot be right.

    With a `name` that is taken it raises Exists; without one a new one is found. With `given` it
    raises Stale if that was written since it was read.
    """
    called = experiment.metadata.name
    finder = Finder(store, check or _host_check(), load)
    spec = filling.spec_of(finder, experiment, values, base, seed)
    spec = spec.model_copy(update={"creator": creator})
    marks = {**experiment.metadata.labels, "experiment": called, **(labels or {})}
    while True:
        meta = Metadata(name=name or f"{called[:200]}-{secrets.token_hex(3)}", labels=marks)
        try:
            return store.create(Run(metadata=meta, spec=spec), given)
        except Exists:
            if name:
                raise


def abort(store: Store, name: str, why: str) -> Run:
    """Ask the engine of a run to undo everything and end it; the first reason stands."""
    while True:
        run = store.get(Run, name)
        if run.spec.abort:
            return run
        wish = run.spec.model_copy(update={"abort": why})
        try:
            return store.update(run.model_copy(update={"spec": wish}))
        except Stale:
            continue


def exit_code(run: Run) -> int:
    """What a command that carried out this run exits with (documented in the reference)."""
    status = run.status
    if any(fault.end == "needs a person" for fault in status.faults):
        return 6
    if status.verdict is None:
        return 1
    if status.verdict is Verdict.ERROR and status.failures:
        return status.failures[0].exit_code
    by = {"guard": 8, "halt": Halted.exit_code, "user": 130}.get(status.aborted_by)
    return by if by is not None else _EXIT[status.verdict]


def _host_check() -> admission.CheckFault:
    from faultline.engine import wiring

    return wiring.check_fault


def _host_tools(state: Path | None) -> Tools:
    from faultline.engine import wiring

    return wiring.host_tools(state)
