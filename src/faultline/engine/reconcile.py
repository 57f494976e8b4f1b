"""The reconciler of a run: a pure function from what is known to what should be done.

No input or output, no clock of its own, no randomness: the same run, facts and instant give the
same decision. So it can be simulated, killed at any action and replayed. Everything it needs to go
on is in the status; the actions that it wants are open there until their results come.
"""

from __future__ import annotations

from faultline.api.budget import BudgetStatus
from faultline.api.graph import TaskStep
from faultline.api.graph_status import NodeState, Pause
from faultline.api.run import (
    Failure,
    FaultStatus,
    Phase,
    ProbeStatus,
    Run,
)
from faultline.api.traffic import TrafficStatus
from faultline.engine import (
    budgets,
    clusters,
    graph,
    lifecycle,
    notices,
    probing,
    results,
    timepoints,
    verdict,
    watching,
)
from faultline.engine.draft import Draft
from faultline.engine.model import (
    SECOND,
    Decision,
    Do,
    Facts,
    Now,
    fault_uid,
)

TRAFFIC_PATIENCE = 40 * SECOND
"""How long starting traffic may take, and stopping it beyond the time-out of its answers."""


def reconcile(run: Run, facts: Facts, now: Now) -> Decision:
    """Decide. A run that has ended is left as it is."""
    if run.status.phase is Phase.ENDED:
        return Decision(run.status, (), None)
    if run.spec.clusters:
        return clusters.reconcile(run, facts, now)
    draft = Draft(run, now)
    _clock(draft)
    if draft.status.started is None:
        _begin(draft)
    if facts.resumed:
        _resume(draft)
    for result in facts.results:
        results.fold(draft, result)
    results.traffic_seconds(draft, facts)
    budgets.sent(draft)
    watching.seconds(draft, facts)
    _wishes(draft, facts)
    _advance(draft)
    budgets.step(draft)
    probes = probing.schedule(draft)
    _advance(draft)  # a guard may have been found silent just now
    notices.ask(draft)
    watching.step(draft)
    if draft.status.phase is Phase.ENDED:
        return Decision(draft.status, (), None)
    actions = (*draft.open_actions(), *probes)
    return Decision(draft.status, actions, draft.wake())


# ---------------------------------------------------------------------- the beginning


def _clock(draft: Draft) -> None:
    status, now = draft.status, draft.now
    if status.boot_id and status.boot_id != now.boot_id:
        _rebooted(draft)
    status.boot_id = now.boot_id
    status.clock_ns = max(status.clock_ns, now.boot_ns)


def _rebooted(draft: Draft) -> None:
    """Readings of the old boot's clock mean nothing now: everything is due."""
    status, ns = draft.status, draft.now.boot_ns
    status.clock_ns = status.phase_ns = status.resumed_ns = ns
    if status.injection_ns is not None:
        status.injection_ns = ns
    for action in status.actions:
        action.started_ns = ns
        action.ended_ns = None if action.ended_ns is None else ns
    for fault in status.faults:
        fault.deadline_ns = fault.ends_ns = None if fault.ends_ns is None else ns
    for probe in status.probes:
        probe.due_ns = probe.asked_ns = None
    for node in status.nodes:
        node.began_ns = None if node.began_ns is None else ns
        node.due_ns = None if node.due_ns is None else ns
    status.pause_ns = None if status.pause_ns is None else ns
    draft.abort("reboot", "the machine was started anew, or another one took the run over")
    _close_injections(draft)


def _close_injections(draft: Draft) -> None:
    """A run that is to be undone must not inject again what the engine that died was injecting."""
    for fault in draft.status.faults:
        action = draft.find(f"inject/{fault.name}")
        if draft.status.stopped and action is not None and action.ended_ns is None:
            action.ended_ns, action.error = draft.ns, "its engine died"
            fault.again = True


def _close_tasks(draft: Draft) -> None:
    """A task that may not be done twice has failed if its engine died: it may have been done."""
    for action in draft.status.actions:
        if action.kind != str(Do.TASK) or action.ended_ns is not None:
            continue
        step = draft.step_of(action.node)
        if isinstance(step, TaskStep) and not step.idempotent:
            action.ended_ns, action.error = draft.ns, "its engine died"
            text = "its engine died while it was under way: nobody knows whether it was done"
            draft.node(action.node).answer = {"verdict": "error", "text": text}


def _begin(draft: Draft) -> None:
    status, spec = draft.status, draft.spec
    status.started = draft.now.at
    uid = draft.run.metadata.uid
    status.faults = [
        FaultStatus(name=f.name, fault=f.fault, uid=fault_uid(uid, f.name), params=f.params)
        for f in spec.faults
    ]
    roles = {
        "hypothesis": spec.hypothesis.probes,
        "guard": spec.guards,
        "error budget": [each.probe for each in spec.error_budgets],
        "steady state": spec.steady_state,
        "discovery": [spec.discovery.probe] if spec.discovery else [],
        "location": [spec.location.probe] if spec.location else [],
        "recovery": [spec.recovery.probe] if spec.recovery else [],
        "impact": [name for name in timepoints.impacts(draft) if name],
    }
    status.probes = [
        ProbeStatus(
            name=p.name,
            mode=p.mode,
            unit=p.value_unit(),
            roles=[role for role, names in roles.items() if p.name in names],
        )
        for p in spec.probes
    ]
    status.traffic = [TrafficStatus(name=t.name) for t in spec.traffic]
    status.budgets = [BudgetStatus(name=each.name) for each in spec.error_budgets]
    draft.point("started", spec.title)
    graph.begin(draft)


def _resume(draft: Draft) -> None:
    draft.status.resumed += 1
    draft.status.resumed_ns = draft.ns
    draft.point("resumed", "taken up again after its engine had died")
    _close_injections(draft)
    _close_tasks(draft)
    probing.note_gap(draft)
    for traffic in draft.status.traffic:
        if traffic.started is not None and traffic.ended is None:
            draft.ask(_traffic_id(draft, traffic.name), Do.START_TRAFFIC, traffic.name)


def _traffic_id(draft: Draft, name: str) -> str:
    return f"traffic/start/{name}/{draft.status.resumed}"


# ---------------------------------------------------------------------- wishes


def _wishes(draft: Draft, facts: Facts) -> None:
    if facts.halted:
        draft.abort("halt", facts.halted)
    wish = facts.interrupt or draft.run.spec.abort
    if wish:
        draft.abort("user", wish)
    _pausing(draft)


def _pausing(draft: Draft) -> None:
    """While a run is paused nothing new begins, and no time-out of what waits counts."""
    status, why = draft.status, draft.run.spec.pause
    wanted = bool(why) and not status.stopped
    if wanted and status.pause_ns is None:
        status.pause_ns = draft.ns
        status.pauses = [*status.pauses, Pause(at=draft.now.at, why=why)]
        draft.point("paused", why)
    elif not wanted and status.pause_ns is not None:
        length, status.pause_ns = draft.ns - status.pause_ns, None
        last = status.pauses[-1].model_copy(update={"until": draft.now.at})
        status.pauses = [*status.pauses[:-1], last]
        if status.injection_ns is not None:
            status.injection_ns += length
        for node in status.nodes:
            if node.state is NodeState.RUNNING and node.began_ns is not None:
                node.began_ns += length
        draft.point("continued", f"it was paused for {length / SECOND:.1f} s")


# ---------------------------------------------------------------------- phases


def _advance(draft: Draft) -> None:
    before: Phase | None = None
    while before is not draft.status.phase:
        before = draft.status.phase
        if draft.status.stopped and before.rank < Phase.INJECTION.rank:
            draft.enter(Phase.RECOVERY)
        elif Phase.INJECTION.rank <= before.rank < Phase.COOLDOWN.rank:
            _faults(draft)
        elif before in _PHASES:
            _PHASES[before](draft)


def _pending(draft: Draft) -> None:
    draft.enter(Phase.ADMISSION)


def _admission(draft: Draft) -> None:
    asked = draft.ask("admit", Do.ADMIT)
    if asked.ended_ns is not None:
        draft.enter(Phase.TRAFFIC)
    elif draft.due(draft.since(draft.status.phase_ns) + draft.spec.timeouts.admission):
        _late(draft, f"the admission check took longer than {draft.spec.timeouts.admission}")


def _late(draft: Draft, why: str) -> None:
    draft.fail(Failure(code="timeout", message=why))
    draft.stop(why)


def _start_traffic(draft: Draft) -> None:
    loads = [one for one in draft.spec.traffic if one.name not in draft.loads_of_nodes()]
    for one in loads:
        if not draft.attempts(Do.START_TRAFFIC, one.name):
            draft.ask(_traffic_id(draft, one.name), Do.START_TRAFFIC, one.name)
    for action in draft.status.actions:
        if action.kind == str(Do.START_TRAFFIC) and action.ended_ns is None:
            if draft.due(draft.since(action.started_ns) + TRAFFIC_PATIENCE):
                _late(draft, f"traffic {action.node} did not start in time")
            return
    warmup = max((one.warmup for one in loads), default=0)
    if draft.due(draft.status.phase_ns + warmup):
        draft.enter(Phase.STEADY)
        probing.begin_edge(draft)


def _steady(draft: Draft) -> None:
    missing = probing.gate(draft, after=False)
    began = draft.status.phase_ns
    if not missing:
        if draft.due(began + draft.spec.baseline) and not draft.paused:
            probing.settle_initial(draft)
            draft.point("steady", "the steady state holds")
            draft.enter(Phase.INJECTION)
            draft.status.injection_ns = draft.ns
            probing.begin_edge(draft)
        return
    patience = max(draft.spec.baseline, draft.spec.timeouts.steady_state)
    if draft.due(draft.since(began) + patience) or probing.exhausted(draft, missing):
        draft.stop(f"before the faults these did not hold: {_told(draft, missing)}")


def _told(draft: Draft, names: list[str]) -> str:
    last = {
        p.name: p.samples[-1].text if p.samples else "no measurement" for p in draft.status.probes
    }
    return ", ".join(f"{name} ({last[name]})" if last[name] else name for name in names)


def _faults(draft: Draft) -> None:
    graph.step(draft)
    for fault in draft.status.faults:
        lifecycle.step(draft, draft.fault_node(fault), fault)
    if draft.status.nodes:
        graph.step(draft)  # a fault may have come to its end just now
    phase = graph.phase_of(draft) if draft.status.nodes else lifecycle.phase_of(draft)
    if phase is Phase.COOLDOWN and draft.status.phase.rank < Phase.COOLDOWN.rank:
        probing.begin_edge(draft)
    draft.enter(phase)


def _cooldown(draft: Draft) -> None:
    untouched = all(fault.started is None for fault in draft.status.faults)
    if (
        untouched and (draft.status.stopped or not draft.status.nodes)
    ) or draft.status.aborted_by in ("user", "halt", "reboot"):
        draft.enter(Phase.VERDICT)
        return
    began = draft.status.phase_ns
    missing = probing.gate(draft, after=True)
    enough = draft.due(began + draft.spec.cooldown)
    if missing:
        patience = max(draft.spec.cooldown, draft.spec.timeouts.recovery)
        enough = draft.due(draft.since(began) + patience) or probing.exhausted(draft, missing)
    silence = draft.spec.discovery and draft.spec.discovery.resolved_within
    if silence and timepoints.awaits_resolution(draft):
        enough = draft.due(draft.since(began) + max(draft.spec.cooldown, silence))
    if enough and not draft.status.stopped:
        enough = timepoints.complete(draft)
    if enough:
        draft.enter(Phase.VERDICT)


def _verdict(draft: Draft) -> None:
    for one in draft.status.traffic:
        if draft.attempts(Do.START_TRAFFIC, one.name) and not one.ended:
            draft.ask(f"traffic/stop/{one.name}", Do.STOP_TRAFFIC, one.name)
    waiting = [a for a in draft.open_actions() if a.do is Do.STOP_TRAFFIC]
    longest = max((one.timeout for one in draft.spec.traffic), default=0)
    late = waiting and draft.due(draft.since(draft.status.phase_ns) + longest + TRAFFIC_PATIENCE)
    collected = watching.finished(draft)
    if (waiting and not late) or not collected:
        return
    if draft.spec.notify and not notices.ask_last(draft, verdict.foreseen(draft)[0]):
        return
    for action in waiting:
        draft.point("error", "it did not stop in time", action.node)
    verdict.settle(draft)
    draft.status.ended = draft.now.at
    draft.enter(Phase.ENDED)


_PHASES = {
    Phase.PENDING: _pending,
    Phase.ADMISSION: _admission,
    Phase.TRAFFIC: _start_traffic,
    Phase.STEADY: _steady,
    Phase.COOLDOWN: _cooldown,
    Phase.VERDICT: _verdict,
}
