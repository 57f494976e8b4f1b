"""Carrying out actions: each is safe to repeat, because the engine may die between doing and
knowing.

Injecting looks into the journal first: a fault that an earlier engine injected is adopted, one that
it left half made is undone. Undoing what was never recorded is an answer, not an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from faultline.api.experiment import FaultNode
from faultline.api.repeat import FoundTarget
from faultline.api.run import ChangeStatus, Failure, Run
from faultline.changes.model import Record, State
from faultline.engine import budgets, notifying, planning, probing, seeds, watching
from faultline.engine.asked import fault_of, first_faults
from faultline.engine.model import (
    MARGIN,
    Action,
    Admitted,
    Answer,
    Do,
    Injected,
    Now,
    Recovered,
    Result,
    fault_uid,
)
from faultline.engine.ports import FaultOrder, Injecting, Tools
from faultline.errors import ApplyFailed, Bug, FaultlineError, RecoveryIncomplete, Unsupported
from faultline.kernel import clock
from faultline.units import Duration


def instant() -> Now:
    """Now, on all clocks of this machine."""
    return Now(time.time(), clock.now(), clock.boot_id())


def now(tools: Tools) -> Now:
    """Now, on the clocks that the run is kept by."""
    return instant() if tools.instant is None else tools.instant()


def carry_out(run: Run, action: Action, tools: Tools) -> Result:
    """Do one action; whatever happens becomes its result."""
    try:
        answer = _perform(run, action, tools)
    except FaultlineError as error:
        return Result(action.id, now(tools), error=failure(error))
    except OSError as error:
        wrapped = ApplyFailed(f"{action.do} {action.node}: {error.strerror or error}")
        return Result(action.id, now(tools), error=failure(wrapped))
    except Exception as error:  # noqa: BLE001 (the loop of the engine: the unforeseen leads to undoing)
        unforeseen = Bug(f"{action.do} {action.node}: {type(error).__name__}: {error}")
        return Result(action.id, now(tools), error=failure(unforeseen))
    return Result(action.id, now(tools), answer)


def failure(error: FaultlineError) -> Failure:
    """An error as data."""
    return Failure(
        code=error.code, message=error.message, hint=error.hint, exit_code=error.exit_code
    )


def order_for(run: Run, node: FaultNode) -> FaultOrder:
    """What is asked of the injector: a little longer than the experiment wants, as a safety net."""
    return FaultOrder(
        fault=node.fault,
        params=node.params,
        duration=Duration(node.duration + MARGIN),
        uid=fault_uid(run.metadata.uid, node.name),
        allow=frozenset(node.allow),
        creator=run.spec.creator or f"run {run.metadata.name}",
        target=node.target.model_dump(),
        found=found_before(run, node.name),
        seed=seeds.derived(run.spec.seed, "fault", node.name),
        run=run.metadata.name,
        selector=None if node.selector is None else node.selector.to_json(),
        peer=None if node.peer is None else node.peer.to_json(),
        flap=None if node.flap is None else node.flap.to_json(),
    )


def found_before(run: Run, fault: str) -> dict[str, Any]:
    """On what this fault acted in the run that is repeated; empty if that does not matter."""
    if run.spec.repeat is None:
        return {}
    begun = next((each for each in run.status.faults if each.name == fault), None)
    # The parts of one node have targets of their own; its attempts have that of the node.
    alike = begun.node if begun is not None and begun.aim is None else ""
    known = run.spec.repeat.targets
    found = known.get(fault) or known.get(alike)
    return found.model_dump(by_alias=False) if found is not None else {}


def _perform(run: Run, action: Action, tools: Tools) -> Answer:
    besides = _BESIDES.get(action.do)
    if besides is not None:
        return besides(run, action, tools)
    if action.do is Do.ADMIT and tools.check is not None:
        tools.check(run)
    if action.do is Do.ADMIT and not first_faults(run):
        return Admitted(tools.environment(), tools.engines(), {})
    with tools.injector() as injector:
        if action.do is Do.ADMIT:
            return _admit(run, injector, tools)
        node = fault_of(run, action.node)
        if action.do in (Do.RECOVER, Do.RESIDUE):
            _check_machine(run, fault_uid(run.metadata.uid, node.name), injector, tools)
        return _fault(run, node, action.do, injector, tools)


def _probe(run: Run, action: Action, tools: Tools) -> Answer:
    spec = run.spec.resolved
    probe = next(one for one in spec.probes if one.name == action.node)
    known = next((one.kept for one in run.status.probes if one.name == action.node), None)
    limit = probing.timeout_of(budgets.watched(spec), probe)
    return tools.prober.measure(probe, limit, known)


def _watch(run: Run, action: Action, tools: Tools) -> Answer:
    if tools.watching is None:
        return None
    if action.do is Do.WATCH:
        return watching.begin(run, tools.watching)
    return watching.collect(run, time.time(), tools.watching)


def _notify(run: Run, action: Action, tools: Tools) -> Answer:
    notifying.send(run, action.id, now(tools))
    return None


def _traffic(run: Run, action: Action, tools: Tools) -> Answer:
    if action.do is Do.STOP_TRAFFIC:
        return tools.traffic.stop(action.node)
    loads = run.spec.resolved.traffic
    spec = next(one for one in loads if one.name == action.node)
    tools.traffic.start(spec, seeds.derived(run.spec.seed, "traffic", spec.name))
    return None


def _elsewhere(run: Run, action: Action, tools: Tools) -> Answer:
    if tools.doer is None:
        raise Unsupported(f"{action.do} {action.node}: nobody here carries out tasks")
    if action.do is Do.CANCEL:
        tools.doer.cancel(action.node, run.status.stopped or "its node was given up")
        return None
    return tools.doer.do(run, action.node, int(action.id.rpartition("/")[2]))


def _member(run: Run, action: Action, tools: Tools) -> Answer:
    if tools.members is None:
        raise Unsupported("runs in several clusters are carried out by an operator")
    cluster = next(each for each in run.spec.clusters if each.name == action.node)
    return tools.members.look(run, cluster, run.status.stopped)


_BESIDES: dict[Do, Callable[[Run, Action, Tools], Answer]] = {
    Do.PROBE: _probe,
    Do.START_TRAFFIC: _traffic,
    Do.STOP_TRAFFIC: _traffic,
    Do.WATCH: _watch,
    Do.COLLECT: _watch,
    Do.NOTIFY: _notify,
    Do.TASK: _elsewhere,
    Do.RUN: _elsewhere,
    Do.CANCEL: _elsewhere,
    Do.MEMBER: _member,
}


def _fault(run: Run, node: FaultNode, do: Do, injector: Injecting, tools: Tools) -> Answer:
    order = order_for(run, node)
    if do is Do.INJECT:
        return _inject(order, injector, goes_on=tools.goes_on)
    if do is Do.OBSERVE:
        return injector.observe(order.uid)
    if do is Do.RECOVER:
        return _recover(order.uid, injector)
    if injector.find(order.uid) is None:
        return ()
    return tuple(injector.residue(order.uid))


def _check_machine(run: Run, uid: str, injector: Injecting, tools: Tools) -> None:
    """Nothing in the journal proves something only where the fault would have been recorded."""
    began = run.status.environment
    if began is None or injector.find(uid) is not None:
        return
    here = tools.environment()
    if began.boot_id != here.boot_id and began.hostname != here.hostname:
        raise RecoveryIncomplete(
            f"{began.hostname} made it, if anybody, and this is {here.hostname}",
            hint=f"its keepers undo it at its deadline; look there: faultline query {uid}",
        )


def _admit(run: Run, injector: Injecting, tools: Tools) -> Admitted:
    planned = planning.plan(run, injector, tools.choose, order_for)
    changes = {each.node.name: each.changes for each in planned}
    choices = {each.choice.node: each.choice for each in planned if each.choice is not None}
    return Admitted(tools.environment(), tools.engines(), changes, tuple(choices.values()))


def _inject(order: FaultOrder, injector: Injecting, *, goes_on: bool) -> Injected:
    known = injector.find(order.uid)
    if known is None:
        record = injector.inject(order)
        ended = record.state is State.ENDED
        return Injected(
            record.deadline, changes_of(record, injector), ended, target=_acted_on(record)
        )
    if known.state in (State.ACTIVE, State.ENDED):
        ended = known.state is State.ENDED
        return Injected(
            known.deadline, changes_of(known, injector), ended, adopted=True,
            target=_acted_on(known),
        )  # fmt: skip
    if goes_on:
        record = injector.inject(order)
        ended = record.state is State.ENDED
        return Injected(record.deadline, changes_of(record, injector), ended)
    injector.recover(order.uid)
    raise ApplyFailed(
        f"{order.uid} was being injected when its engine died (it was {known.state})",
        hint="what had been made is undone",
    )


def _acted_on(record: Record) -> FoundTarget | None:
    place = record.place
    if not place:
        return None
    fields = {name: place[name] for name in FoundTarget.model_fields if name in place}
    return FoundTarget.model_validate({**fields, "words": place["name"]})


def _recover(uid: str, injector: Injecting) -> Recovered:
    known = injector.find(uid)
    if known is None:
        return Recovered("nothing to undo", note="it was never recorded")
    by_itself = known.state is State.ENDED
    record = injector.recover(uid)
    note = record.note if record.end and str(record.end) == "needs a person" else ""
    if by_itself:
        note = f"it had ended already: {record.end}"
    return Recovered(str(record.end or "needs a person"), changes_of(record, injector), note)


def changes_of(record: Record, injector: Injecting) -> list[ChangeStatus]:
    """The steps of a record for people."""
    found: list[ChangeStatus] = []
    for step, (does, undo) in zip(record.steps, injector.describe(record), strict=True):
        outcome = ""
        if step.outcome is not None:
            outcome = (
                f"{step.outcome.end}{f': {step.outcome.detail}' if step.outcome.detail else ''}"
            )
        found.append(ChangeStatus(describe=does, undo=undo, state=str(step.state), outcome=outcome))
    return found
