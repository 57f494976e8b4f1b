"""The curves and logs of a run's targets, in the life of the run: begun before the steady state,
read after the cool-down. They are for the reader: nothing that goes wrong with them changes what
the run does or how it is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from faultline.api.experiment import ExperimentSpec
from faultline.api.run import Phase, Run
from faultline.api.selector import Choice
from faultline.api.targets import FaultSpec, TargetSpec
from faultline.api.watching import TargetSecond, TargetStatus
from faultline.engine.draft import Draft
from faultline.engine.model import SECOND, Do, Facts, Result, Watched
from faultline.engine.ports import Watching
from faultline.watching.counters import bounded
from faultline.watching.logs import Window
from faultline.watching.run import name_of

PATIENCE = 45 * SECOND
"""How long reading the logs may hold up the verdict."""
BATCH = 5
"""New seconds of a target are taken over so many at a time: each is a write of the whole run."""
MOST = 16
"""Targets that are looked at, the host among them."""


def targets(spec: ExperimentSpec, choices: Sequence[Choice] = ()) -> dict[str, dict[str, Any]]:
    """What is looked at, by its name: the host, what faults act on, then what else is wanted, then
    what selectors found and did not choose.
    """
    hit = [fault.target for fault in _faults(spec)]
    hit += [each.target for choice in choices for each in choice.targets]
    if not hit and not spec.watch:
        return {}
    rest = [each.target for choice in choices for each in choice.rest]
    wanted = [TargetSpec(), *hit, *spec.watch, *rest]
    asked = [each.model_dump(exclude_defaults=True) for each in wanted]
    return dict(list({name_of(each): each for each in asked}.items())[:MOST])


def anything(spec: ExperimentSpec) -> bool:
    """Whether there is a target or a log to look at."""
    return bool(spec.watch or spec.logs) or any(True for _ in _faults(spec))


def _faults(spec: ExperimentSpec) -> Iterator[FaultSpec]:
    yield from spec.faults
    for part in ("nodes", "finally_"):
        yield from _inside(getattr(spec, part, None))


def _inside(node: Any) -> Iterator[FaultSpec]:
    """The faults in nodes of a graph, however deep."""
    if isinstance(node, FaultSpec):
        yield node
    elif isinstance(node, list):
        for each in node:  # pyright: ignore[reportUnknownVariableType]
            yield from _inside(each)
    else:
        for part in ("nodes", "cases", "otherwise", "fault"):
            if (inner := getattr(node, part, None)) is not None:
                yield from _inside(inner)


# ---------------------------------------------------------------------- decisions


def step(draft: Draft) -> None:
    """Begin once traffic may run; again whenever an engine takes the run over."""
    name = f"watch/{draft.status.resumed}"
    if not Phase.TRAFFIC.rank <= draft.status.phase.rank < Phase.VERDICT.rank:
        return
    if draft.find(name) is None and anything(draft.spec):
        draft.ask(name, Do.WATCH)


def finished(draft: Draft) -> bool:
    """Whether everything that the targets told is there, or nothing more is waited for."""
    if not draft.attempts(Do.WATCH, ""):
        return True
    asked = draft.ask("collect", Do.COLLECT)
    return asked.ended_ns is not None or draft.due(draft.since(asked.started_ns) + PATIENCE)


def folded(draft: Draft, result: Result) -> None:
    """What is known of the targets and their logs now; an error is told where a curve would be."""
    if not isinstance(result.answer, Watched):
        if result.error is not None and not draft.status.targets:
            draft.status.targets = [TargetStatus(name="host", end=result.error.message)]
        return
    known = {each.name: each for each in draft.status.targets}
    for fresh in result.answer.targets:
        old = known.get(fresh.name)
        if old is None:
            known[fresh.name] = fresh
        else:
            kept = {"seconds": old.seconds, "started": old.started}
            known[fresh.name] = fresh.model_copy(update=kept)
    draft.status.targets = list(known.values())
    draft.status.logs = list(result.answer.logs)


def seconds(draft: Draft, facts: Facts) -> None:
    """Take over the new seconds; of a long run, coarser ones are kept."""
    out: list[TargetStatus] = []
    for target in draft.status.targets:
        new = [s for s in facts.targets.get(target.name, ()) if s.at > until(target)]
        if new:
            all_ = bounded([*target.seconds, *sorted(new, key=lambda each: each.at)])
            out.append(target.model_copy(update={"seconds": all_}))
        else:
            out.append(target)
    draft.status.targets = out


def until(target: TargetStatus) -> float:
    """When the last second that is known ended, unix time; half a second earlier, to be sure."""
    last = target.seconds[-1] if target.seconds else None
    return last.at + last.span - 0.5 if last else 0.0


# ---------------------------------------------------------------------- actions


def begin(run: Run, watching: Watching) -> Watched:
    """Look at all targets from now on; logs that were marked before are not marked again."""
    found = targets(run.spec.resolved, run.status.choices)
    for name, target in found.items():
        watching.start(name, target)
    marked = run.status.logs
    if marked:
        watching.follow(marked)
    else:
        marked = watching.begin(run.spec.resolved.logs, found)
    return Watched(tuple(_statuses(found, watching)), tuple(marked))


def collect(run: Run, now: float, watching: Watching) -> Watched:
    """Look no more, and read the logs."""
    status = run.status
    cuts = [at for f in status.faults for at in (f.started, f.recovered_at) if at is not None]
    window = Window(status.started or now, now, tuple(cuts))
    read = watching.end(run.spec.resolved.logs, status.logs, window)
    return Watched(
        tuple(_statuses(targets(run.spec.resolved, run.status.choices), watching)), tuple(read)
    )


def _statuses(found: dict[str, dict[str, Any]], watching: Watching) -> Iterator[TargetStatus]:
    for name in found:
        status = watching.status(name)
        if status is not None:
            yield status


def news(run: Run, watching: Watching) -> dict[str, tuple[TargetSecond, ...]]:
    """The seconds that the run does not know yet, as soon as they are worth a write."""
    found = {
        target.name: tuple(watching.seconds(target.name, until(target)))
        for target in run.status.targets
    }
    if run.status.phase.rank >= Phase.VERDICT.rank:
        return found
    return found if any(len(each) >= BATCH for each in found.values()) else {}
