"""What came back from actions, taken over into the status of a run. Pure."""

from __future__ import annotations

from faultline.api.run import FaultStatus, Phase
from faultline.api.selector import Choice
from faultline.api.traffic import TrafficFigures, with_earlier
from faultline.engine import lifecycle, probing, watching
from faultline.engine.asked import parts
from faultline.engine.draft import Draft
from faultline.engine.model import Admitted, Do, Done, Facts, Result, fault_uid


def fold(draft: Draft, result: Result) -> None:
    """Take over the result of an action; one that nobody waits for any more is dropped."""
    if result.id.startswith("probe/"):
        probing.measured(draft, result)
        return
    action = draft.find(result.id)
    if action is None or action.ended_ns is not None:
        return  # not asked for, or answered already
    action.ended_ns = draft.ns
    action.error = result.error.message if result.error else ""
    fault = next((f for f in draft.status.faults if f.name == action.node), None)
    node = draft.fault_node(fault) if fault is not None else None
    do = Do(action.kind)
    if do is Do.ADMIT:
        _admitted(draft, result)
    elif do is Do.NOTIFY:
        failed = result.error.message if result.error else ""
        draft.point("notice failed" if failed else "told", failed or action.id.split("/")[2])
    elif do in (Do.TASK, Do.RUN, Do.CANCEL):
        _done(draft, do, action.node, result)
    elif do in (Do.WATCH, Do.COLLECT):
        watching.folded(draft, result)
    elif do in (Do.START_TRAFFIC, Do.STOP_TRAFFIC):
        _traffic(draft, do, action.node, result)
    elif fault is None or node is None:
        return
    elif do is Do.INJECT:
        lifecycle.injected(draft, node, fault, result)
    elif do is Do.OBSERVE:
        lifecycle.observed(draft, fault, result)
    elif do is Do.RECOVER:
        lifecycle.recovered(draft, fault, result)
    else:
        lifecycle.looked(draft, fault, result)


def _admitted(draft: Draft, result: Result) -> None:
    if result.error is not None:
        draft.fail(result.error)
        draft.stop(f"not possible here: {result.error.message}")
    elif isinstance(result.answer, Admitted):
        draft.status.environment = result.answer.environment
        draft.status.engines = result.answer.engines
        _spread(draft, result.answer.choices)
        for fault in draft.status.faults:
            fault.changes = result.answer.changes.get(fault.name, [])
        draft.point("admitted", "everything is possible here", now=result.now)


def _spread(draft: Draft, choices: tuple[Choice, ...]) -> None:
    """A fault with a selector becomes one for each target that it found, with a life of its own."""
    if draft.status.phase is not Phase.ADMISSION:
        return  # it was given up meanwhile
    draft.status.choices = list(choices)
    for choice in choices:
        draft.point("chosen", choice.text, choice.node)
    uid, faults = draft.run.metadata.uid, list[FaultStatus]()
    for fault in draft.status.faults:
        choice = None if fault.node else draft.choice(fault.name)
        faults += [
            fault
            if choice is None
            else fault.model_copy(
                update={"name": name, "uid": fault_uid(uid, name), "aim": aim, "of": fault.name}
            )
            for name, aim in parts(fault.name, choice)
        ]
    draft.status.faults = faults


def _done(draft: Draft, do: Do, name: str, result: Result) -> None:
    """What was carried out elsewhere came back; its node looks at it next."""
    if do is Do.CANCEL:
        return
    node = draft.node(name)
    if isinstance(result.answer, Done):
        node.answer = {"verdict": result.answer.verdict, "text": result.answer.text}
        node.output = result.answer.output
    else:
        why = result.error.message if result.error else "nothing came back"
        node.answer = {"verdict": "error", "text": why}


def _traffic(draft: Draft, do: Do, name: str, result: Result) -> None:
    traffic = next(one for one in draft.status.traffic if one.name == name)
    if result.error is not None:
        traffic.text = result.error.message
        draft.fail(result.error, name)
        draft.stop(f"traffic {name}: {result.error.message}")
    elif do is Do.START_TRAFFIC:
        if traffic.started is not None:
            traffic.restarts = [*traffic.restarts, result.now.at]
        traffic.started = traffic.started or result.now.at
        draft.point("traffic", "started", name, result.now)
    if do is Do.STOP_TRAFFIC:
        traffic.ended = result.now.at
        if isinstance(result.answer, TrafficFigures):
            spec = next(one for one in draft.spec.traffic if one.name == name)
            traffic.totals = with_earlier(traffic, spec.warmup.seconds, result.answer)
        draft.point("traffic", "stopped", name, result.now)


def traffic_seconds(draft: Draft, facts: Facts) -> None:
    """Take over what traffic has met since the last look."""
    for traffic in draft.status.traffic:
        last = traffic.seconds[-1].at if traffic.seconds else float("-inf")
        new = [s for s in facts.traffic.get(traffic.name, ()) if s.at > last]
        traffic.seconds.extend(sorted(new, key=lambda second: second.at))
