"""Carries out what nodes ask for besides faults: commands, HTTP calls, Jobs, other experiments."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from faultline.api.graph import CommandTask, ExperimentStep, HttpTask, NodeBase, TaskStep, walk
from faultline.api.model import Metadata
from faultline.api.probe import CommandProbe, HttpProbe
from faultline.api.run import Phase, Run, RunSpec
from faultline.engine import seeds
from faultline.engine.model import Done
from faultline.errors import Bug, FaultlineError
from faultline.units import Duration

if TYPE_CHECKING:
    from faultline.kubeapi.model import Rest

PATIENCE = Duration.parse("10m")
"""How long a task may take without a time-out of its own."""
_KEPT = 16 << 10  # characters of a task's output that are kept with the run


class Driving(Protocol):
    """A run that is being carried out."""

    def drive(self) -> Run: ...

    def stop(self, why: str) -> None: ...


class Keeping(Protocol):
    """Where runs are made and carried out."""

    def adopt(self, run: Run) -> Run:
        """Write a run down, unless there is one of this name: then that one."""
        ...

    def driver(self, name: str) -> Driving: ...


class HostDoer:
    """Carries tasks and experiments out on this host. Used by several threads at once."""

    def __init__(
        self,
        open_runs: Callable[[], AbstractContextManager[Keeping]],
        cluster: Callable[[], Rest] | None = None,
    ) -> None:
        """`cluster` connects to the one in which Jobs are made; they go with their run then."""
        self._open = open_runs
        self._cluster = cluster
        self._lock = threading.Lock()
        self._given_up: dict[str, str] = {}
        self._driving: dict[str, Driving] = {}

    def do(self, run: Run, node: str, number: int) -> Done:
        spec = run.spec.resolved
        steps = {step.name: step for _, step in [*walk(spec.nodes), *walk(spec.finally_, "last")]}
        step: NodeBase | None = steps.get(node)
        with self._lock:
            self._given_up.pop(node, None)
        try:
            if isinstance(step, ExperimentStep):
                return self._run(run, node, number)
            if isinstance(step, TaskStep):
                return self._task(step, run)
        except FaultlineError as error:
            return Done("error", error.message, {"code": error.code})
        raise Bug(f"node {node} is nothing that is carried out")

    def cancel(self, node: str, why: str) -> None:
        with self._lock:
            self._given_up[node] = why
            driving = self._driving.get(node)
        if driving is not None:
            driving.stop(why)

    # ------------------------------------------------------------------ experiments

    def _run(self, run: Run, node: str, number: int) -> Done:
        wanted = run.spec.children[node]
        name = f"{run.metadata.name[:200]}-{node}" + (f"-{number}" if number > 1 else "")
        labels = {"experiment": wanted.experiment, "parent": run.metadata.name}
        made = RunSpec(
            experiment=wanted.experiment,
            resolved=wanted.resolved,
            parameters=wanted.parameters,
            children=wanted.children,
            creator=run.spec.creator or f"run {run.metadata.name}",
            seed=seeds.derived(run.spec.seed, "run", node, number),
            repeat=run.spec.repeat.children.get(node) if run.spec.repeat else None,
        )
        with self._open() as kept:
            child = kept.adopt(Run(metadata=Metadata(name=name, labels=labels), spec=made))
            if child.status.phase is not Phase.ENDED:
                driving = kept.driver(name)
                with self._lock:
                    self._driving[node] = driving
                    given_up = self._given_up.get(node)
                if given_up:
                    driving.stop(given_up)
                try:
                    child = driving.drive()
                finally:
                    with self._lock:
                        self._driving.pop(node, None)
        status = child.status
        output = {
            "run": name,
            "verdict": str(status.verdict or ""),
            "reason": status.reason,
            "score": status.points.score,
        }
        verdict: Any = str(status.verdict or "error")
        return Done(verdict, f"run {name} {verdict}: {status.reason}", output)

    # ------------------------------------------------------------------ tasks

    def _task(self, step: TaskStep, run: Run) -> Done:
        seconds = (step.timeout or PATIENCE).seconds
        if step.command is not None:
            return self._command(step.name, step.command, seconds)
        if step.http is not None:
            return _http(step.http, seconds)
        from faultline.engine.jobs import Where, run_job

        assert step.job is not None
        where: Where | None = None
        if self._cluster is not None:
            meta = run.metadata
            owner = {"apiVersion": run.api_version, "kind": run.kind, "name": meta.name,
                     "uid": meta.uid}  # fmt: skip
            where = Where(self._cluster, owner)
        return run_job(step.job, seconds, lambda: self._given_up.get(step.name, ""), where)

    def _command(self, name: str, task: CommandTask, seconds: float) -> Done:
        from faultline.probes.command import Prober
        from faultline.probes.limit import Limit, NoAnswer

        doer = self

        class Revocable(Limit):
            """Looked at five times a second: the task may have been given up."""

            def left(self) -> float:
                if doer._given_up.get(name):
                    raise NoAnswer(f"given up: {doer._given_up[name]}")
                return min(super().left(), 0.2)

            def late(self, what: str = "no answer") -> NoAnswer:
                why = doer._given_up.get(name)
                return NoAnswer(f"given up: {why}") if why else super().late(what)

        spec = CommandProbe(
            name="task", type="command", command=task.command, env={**task.env, **task.secrets},
            cwd=task.cwd, user=task.user, code="any",
        )  # fmt: skip
        with Prober(spec) as prober:
            try:
                found = prober.look(Revocable(seconds))
            except NoAnswer as error:
                return Done("error", str(error))
        code, text = found.result["code"], str(found.result["output"])
        good = task.code in ("any", code)
        words = "" if good else f"exit code {code}, expected {task.code}: {found.text}"
        return Done(None if good else "error", words, output_of(code, text))


def _http(task: HttpTask, seconds: float) -> Done:
    from faultline.probes.http import Prober
    from faultline.probes.limit import Limit, NoAnswer

    spec = HttpProbe(
        name="task", type="http", url=task.url, method=task.method, body=task.body,
        headers={**task.headers, **task.secrets}, code="100-599", verify=task.verify,
    )  # fmt: skip
    with Prober(spec) as prober:
        try:
            found = prober.look(Limit(seconds))
        except NoAnswer as error:
            return Done("error", f"{task.url}: {error}")
    code, text = int(found.result["code"]), str(found.result.get("body", ""))
    good = any(_within(code, part) for part in task.code.split(","))
    words = "" if good else f"{task.url} answered {code}, expected {task.code}"
    return Done(None if good else "error", words, output_of(code, text))


def _within(code: int, part: str) -> bool:
    low, _, high = part.partition("-")
    return int(low) <= code <= int(high or low)


def output_of(code: int, text: str) -> dict[str, Any]:
    """What expressions may use of a task: its code, its text and, if it is JSON, that."""
    found: dict[str, Any] = {"code": code, "text": text[:_KEPT]}
    try:
        found["json"] = json.loads(text) if len(text) <= _KEPT else None
    except ValueError:
        found["json"] = None
    return found
