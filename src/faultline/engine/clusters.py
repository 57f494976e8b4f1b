"""The reconciler of a run in several clusters: in each of them a run of its own, and one answer.

Pure, as that of a run in one place. In each cluster an operator carries the run out; here is looked
at them, what one of them has stopped is stopped in all, and the worst verdict is that of the whole.
"""

from __future__ import annotations

from faultline.api.clusters import ClusterStatus
from faultline.api.graph import FaultStep, walk
from faultline.api.run import Failure, Phase, Run, Verdict
from faultline.engine.draft import AbortedBy, Draft
from faultline.engine.model import SECOND, Action, Decision, Do, Facts, Now, Result
from faultline.engine.node_ends import WORST

EVERY = 2 * SECOND
"""Between two looks at a cluster."""
LOST = 20.0
"""Seconds without an answer after which a cluster counts as lost."""
FIRST = 60.0
"""Seconds within which a cluster must have answered once."""
BEYOND = 300.0
"""Seconds for which a lost cluster is waited for, beyond what its longest fault may last."""
PASSING = ("kubernetes-api", "store-failed", "stale")
"""Errors that the next look may not meet."""
_BY: dict[str, AbortedBy] = {
    "guard": "guard", "user": "user", "halt": "halt", "reboot": "reboot", "engine": "engine",
}  # fmt: skip


def reconcile(run: Run, facts: Facts, now: Now) -> Decision:
    """Decide. A cluster whose run has ended is not looked at any more."""
    draft = Draft(run, now)
    status = draft.status
    status.clusters = [each.model_copy() for each in status.clusters]
    anew = status.boot_id not in ("", now.boot_id)
    status.boot_id, status.clock_ns = now.boot_id, max(0 if anew else status.clock_ns, now.boot_ns)
    if status.started is None:
        _begin(draft)
    for each in status.clusters:
        each.due_ns = draft.ns if anew else each.due_ns
    for result in facts.results:
        _fold(draft, result)
    _wishes(draft, facts)
    _progress(draft)
    if all(each.ended is not None for each in status.clusters):
        _settle(draft)
        return Decision(status, (), None)
    return Decision(status, tuple(_looks(draft)), draft.wake())


def _begin(draft: Draft) -> None:
    draft.status.started = draft.now.at
    draft.status.clusters = [
        ClusterStatus(name=each.name, due_ns=draft.ns) for each in draft.run.spec.clusters
    ]
    names = ", ".join(each.name for each in draft.run.spec.clusters)
    draft.point("started", f"{draft.spec.title}, in {names}")


def _looks(draft: Draft) -> list[Action]:
    return [
        Action(f"member/{each.name}/{each.looks}", Do.MEMBER, each.name)
        for each in draft.status.clusters
        if each.ended is None and draft.due(each.due_ns or draft.ns)
    ]


def _fold(draft: Draft, result: Result) -> None:
    kind, _, rest = result.id.partition("/")
    name, _, number = rest.rpartition("/")
    each = next((one for one in draft.status.clusters if one.name == name), None)
    if kind != "member" or each is None or each.ended is not None or int(number) != each.looks:
        return
    each.looks, each.due_ns = each.looks + 1, draft.ns + EVERY
    if isinstance(result.answer, ClusterStatus):
        _heard(draft, each, result.answer, result.now.at)
    elif result.error is not None:
        _silent(draft, each, result.error)


def _heard(draft: Draft, each: ClusterStatus, told: ClusterStatus, at: float) -> None:
    if each.lost is not None:
        draft.point("cluster found", f"it answers again after {at - each.lost:.0f} s", each.name)
    if not each.run:
        draft.point("cluster", f"run {told.run} was made there", each.name)
    for name in ("run", "phase", "verdict", "reason", "faults", "effective", "open", "aborted",
                 "aborted_by"):  # fmt: skip
        setattr(each, name, getattr(told, name))
    each.seen, each.lost, each.error = at, None, ""
    if told.ended is not None:
        each.ended = told.ended
        draft.point("cluster ended", f"{told.verdict}: {told.reason}", each.name)


def _silent(draft: Draft, each: ClusterStatus, error: Failure) -> None:
    now = draft.now.at
    each.error = error.message
    if error.code not in PASSING:
        _give_up(draft, each, error.message)
        return
    silent = now - max(each.seen or 0.0, draft.status.started or now)
    if each.lost is None and silent >= LOST:
        each.lost = each.seen or draft.status.started
        draft.point("cluster lost", f"no answer for {silent:.0f} s: {error.message}", each.name)
    if not each.run and silent >= FIRST:
        _give_up(draft, each, f"it was never reached: {error.message}")
    elif silent >= _longest(draft) + BEYOND:
        _give_up(draft, each, "it was lost; its faults have ended at their deadlines")


def _longest(draft: Draft) -> float:
    steps = [step for _, step in walk(draft.spec.nodes) if isinstance(step, FaultStep)]
    lengths = [each.duration.seconds for each in (*draft.spec.faults, *steps)]
    return max(lengths, default=0.0)


def _give_up(draft: Draft, each: ClusterStatus, why: str) -> None:
    each.ended, each.verdict, each.reason, each.error = draft.now.at, "error", why, why
    draft.fail(Failure(code="cluster", message=f"cluster {each.name}: {why}"), each.name)
    draft.stop(f"cluster {each.name}: {why}")


def _wishes(draft: Draft, facts: Facts) -> None:
    if facts.halted:
        draft.abort("halt", facts.halted)
    wish = facts.interrupt or draft.run.spec.abort
    if wish:
        draft.abort("user", wish)
    for each in draft.status.clusters:
        by = _BY.get(each.aborted_by)
        if by is not None and each.aborted:
            draft.abort(by, f"cluster {each.name}: {each.aborted}")


def _progress(draft: Draft) -> None:
    """Its phase is that of the slowest cluster."""
    phases = [Phase(each.phase) for each in draft.status.clusters if each.ended is None]
    if draft.status.stopped:
        phases = [Phase.RECOVERY]
    slowest = min(phases, key=lambda phase: phase.rank, default=Phase.COOLDOWN)
    if slowest.rank < Phase.VERDICT.rank:
        draft.enter(slowest)


def _settle(draft: Draft) -> None:
    status = draft.status
    told = [each for each in status.clusters if each.verdict] or status.clusters
    worst = min(told, key=lambda each: _rank(each.verdict))
    status.verdict = Verdict(worst.verdict) if worst.verdict else Verdict.ERROR
    status.reason = f"{worst.name}: {worst.reason}"
    if status.verdict is Verdict.HELD and len(told) > 1:
        status.reason = f"in all of {len(told)} clusters; {status.reason}"
    draft.enter(Phase.VERDICT)
    draft.point("verdict", f"{status.verdict}: {status.reason}")
    status.ended = draft.now.at
    draft.enter(Phase.ENDED)


def _rank(verdict: str) -> int:
    return next((place for place, each in enumerate(WORST) if each == verdict), 0)
