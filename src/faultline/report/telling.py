"""What happened and why, told in sentences: from the document alone, and nothing that it does not
say.
"""

from __future__ import annotations

from statistics import median

from faultline.report import acts, words
from faultline.report.acts import Sentence
from faultline.report.story import FaultStory, Halted, ProbeStory, Story, between
from faultline.report.watched import TargetStory

_MANY = 6  # faults that are told one by one
_PAUSES = 5  # that are told one by one
_NOTABLE = 0.25  # of a core, of memory; less is not worth a sentence
_SIZE = 16 << 20  # bytes


def told(story: Story) -> list[Sentence]:
    """The run in order of time, its end last."""
    if story.began is None:
        return []
    happened = [
        *_before(story),
        *_faults(story),
        *_pauses(story),
        *acts.told(story),
        *_harm(story),
        *_people(story),
        *_targets(story),
        *_logs(story),
        *_ends(story),
    ]
    ordered = sorted(happened, key=lambda each: each.at if each.at is not None else story.length)
    return [*ordered, _verdict(story)]


def _before(story: Story) -> list[Sentence]:
    began = story.faults_began
    calm = next((p for p in story.phases if p.name == "steady state"), None)
    if began is None:
        why = f": {story.stopped}" if story.stopped else ""
        return [Sentence(story.length, f"No fault was injected{why}.", "warn")]
    if calm is None:
        return []
    judged = [p for p in story.probes if p.samples and "hypothesis" in p.roles]
    normal = [f"{p.name} {_normal(p, began)}" for p in judged if _normal(p, began)]
    usual = f": {', '.join(normal[:4])}" if normal else ""
    length = words.lasting(began - calm.start, story.idle(calm.start, began))
    return [Sentence(calm.start, f"For {length} everything was measured undisturbed{usual}.")]


def _normal(probe: ProbeStory, until: float) -> str:
    values = [s.value for s in probe.samples if s.value is not None and s.at < until]
    return words.amount(median(values), probe.unit) if values else ""


def _pauses(story: Story) -> list[Sentence]:
    """What was under way went on: faults acted and probes measured, nothing new began."""
    out: list[Sentence] = []
    for pause in story.pauses[:_PAUSES]:
        why = f": {pause.why}" if pause.why else ""
        acting = [f.name for f in story.faults if _acted(story, f, pause)]
        went_on = f"; {', '.join(acting[:3])} went on meanwhile" if acting else ""
        if pause.end is None:
            text = f"The run was paused{why}, and never went on{went_on}."
        else:
            length = words.span(pause.end - pause.start)
            text = f"The run was paused for {length}{why}{went_on}."
        out.append(Sentence(pause.start, text, "warn"))
    if len(story.pauses) > _PAUSES:
        rest = story.pauses[_PAUSES:]
        text = f"It was paused {words.plural(len(rest), 'more time')}."
        out.append(Sentence(rest[0].start, text, "warn"))
    return out


def _acted(story: Story, fault: FaultStory, pause: Halted) -> bool:
    if fault.injected is None:
        return False
    gone = story.length if fault.recovered is None else fault.recovered
    return fault.injected < (story.length if pause.end is None else pause.end) and (
        pause.start < gone
    )


# ---------------------------------------------------------------------- faults


def _faults(story: Story) -> list[Sentence]:
    began = [fault for fault in story.faults if fault.started is not None]
    if len(began) > _MANY:
        return _crowd(began)
    return [each for fault in began for each in _fault(fault)]


def _fault(fault: FaultStory) -> list[Sentence]:
    params = ", ".join(f"{key} {value}" for key, value in fault.params[:4])
    what = f"{fault.fault} ({params})" if params else fault.fault
    out = [Sentence(fault.started, f"{fault.name} was asked for: {what}.")]
    if fault.error and fault.injected is None:
        return [*out, Sentence(fault.started, f"It could not be injected: {fault.error}.", "bad")]
    if fault.effective is not None:
        measured = f": {fault.measured}" if fault.measured else ""
        took = words.span(fault.time_to_effect)
        text = f"{fault.name} was measured to be in effect after {took}{measured}."
        out.append(Sentence(fault.effective, text))
    elif fault.effect:
        why = f": {fault.reason}" if fault.reason else ""
        text = f"The effect of {fault.name} was {fault.effect}{why}."
        out.append(Sentence(fault.recovery or fault.started, text, "warn"))
    return out


def _crowd(faults: list[FaultStory]) -> list[Sentence]:
    """So many that they are told together."""
    first = min(f.started for f in faults if f.started is not None)
    kinds = sorted({f.fault for f in faults})
    named = ", ".join(kinds[:4]) + (" and others" if len(kinds) > 4 else "")
    out = [Sentence(first, f"{len(faults)} faults were asked for, the first now: {named}.")]
    effective = [f.effective for f in faults if f.effective is not None]
    if effective:
        text = f"{len(effective)} of {len(faults)} faults had been measured to be in effect."
        out.append(Sentence(max(effective), text))
    without = [f.name for f in faults if f.effect and f.effective is None]
    if without:
        shown = ", ".join(without[:5]) + (" and others" if len(without) > 5 else "")
        out.append(Sentence(max(f.started or 0.0 for f in faults), f"No effect: {shown}.", "warn"))
    return out


# ---------------------------------------------------------------------- the service and its people


def _harm(story: Story) -> list[Sentence]:
    began, out = story.faults_began, list[Sentence]()
    if began is None:
        return out
    impact = story.point("impact")
    if impact is not None:
        after = words.span(between(story.effect_began, impact))
        text = f"The service itself was hurt, {after} after the effect at the target."
        out.append(Sentence(impact, text, "warn"))
    for probe in story.probes:
        if probe.name == story.discovery:
            continue
        failed = [s for s in probe.failed if s.at >= began]
        if failed:
            out += _failing(story, probe, began)
    return out


def _failing(story: Story, probe: ProbeStory, began: float) -> list[Sentence]:
    """When a probe first failed, and whether it was well again at the end."""
    samples = [s for s in probe.samples if s.counted and s.ok is not None and s.at >= began]
    first = next(s for s in samples if s.ok is False)
    bad = sum(s.ok is False for s in samples)
    value = f" ({words.amount(first.value, probe.unit)}" if first.value is not None else ""
    wanted = f", expected {probe.expected})" if value and probe.expected else ")" if value else ""
    why = first.text if not value and first.text else ""
    told = f"{value}{wanted}" if value else f" ({why})" if why else ""
    share = f"{bad:,} of {len(samples):,} samples since the first fault failed"
    out = [Sentence(first.at, f"{probe.name} failed{told}; {share}.", "bad")]
    last = next(s for s in reversed(samples))
    if last.ok:
        since = max(s.at for s in samples if s.ok is False)
        well = next((s.at for s in samples if s.at > since), None)
        gone = story.undone
        if well is not None:
            after = (
                f", {words.span(well - gone)} after the faults were gone"
                if gone is not None and well > gone
                else ", while a fault was still there"
                if gone is not None
                else ""
            )
            out.append(Sentence(well, f"{probe.name} was well again{after}.", "good"))
    else:
        out.append(Sentence(samples[-1].at, f"{probe.name} still failed at the end.", "bad"))
    return out


def _people(story: Story) -> list[Sentence]:
    began = story.point("impact") or story.effect_began
    out: list[Sentence] = []
    if story.discovery and began is not None:
        if story.discovered is None:
            text = f"Nobody noticed: {story.discovery} never told of it."
            out.append(Sentence(story.undone or story.length, text, "warn"))
        else:
            after = words.span(max(0.0, story.discovered - began))
            text = f"It was noticed by {story.discovery}, {after} after it began."
            out.append(Sentence(story.discovered, text))
    for name, text in (("located", "Its cause was known"), ("recovered", "The service was well")):
        at = story.point(name)
        if at is not None and began is not None:
            after = words.span(max(0.0, at - began))
            out.append(Sentence(at, f"{text}, {after} after it began."))
    if story.resolved is not None:
        after = between(story.undone, story.resolved)
        text = f"The alarm ended, {words.span(after)} after the faults were gone."
        out.append(Sentence(story.resolved, text))
    return out


# ---------------------------------------------------------------------- targets and logs


def _window(story: Story) -> tuple[float, float] | None:
    """From the first effect to the last undo: what was seen then may have been caused by it."""
    began = story.effect_began if story.effect_began is not None else story.faults_began
    if began is None:
        return None
    stops = [f.recovery for f in story.faults if f.recovery is not None]
    return (began, max(stops, default=story.length))


def _targets(story: Story) -> list[Sentence]:
    window = _window(story)
    out: list[Sentence] = []
    for target in story.targets:
        if window is not None and (seen := _change(target, window)):
            middle = (window[0] + window[1]) / 2
            out.append(Sentence(middle, f"While the faults were in effect, {target.name}: {seen}."))
        out += [Sentence(at, f"{target.name} was started anew.", "warn") for at in target.restarts]
        for at in target.kills[:3]:
            text = f"The kernel ran out of memory and ended a process in {target.name}."
            out.append(Sentence(at, text, "bad"))
        if target.ended is not None:
            out.append(Sentence(target.ended, f"{target.name} was gone: {target.end}.", "warn"))
    return out


def _change(target: TargetStory, window: tuple[float, float]) -> str:
    """What differs notably from before; '' if nothing does."""
    found: list[str] = []
    names = (("cpu", "cores busy"), ("cpu_pressure", "of the time waiting for a core"))
    more = (
        ("memory_pressure", "of the time waiting for memory"),
        ("io_pressure", "of the time waiting for a disk"),
    )
    for curve, text in (*names, *more, ("throttled", "of the time made to wait by its quota")):
        before, during = target.mean(curve, 0.0, window[0]), target.mean(curve, *window)
        if before is not None and during is not None and abs(during - before) > _NOTABLE:
            unit = "" if curve == "cpu" else "ratio"
            was, now = words.amount(before, unit), words.amount(during, unit)
            found.append(f"{now} {text}, {was} before")
    before, during = target.peak("memory", 0.0, window[0]), target.peak("memory", *window)
    if before is None or during is None:
        return "; ".join(found)
    if abs(during - before) > max(_SIZE, _NOTABLE * before):
        was, now = words.amount(before, "B"), words.amount(during, "B")
        found.append(f"memory up to {now}, {was} before")
    return "; ".join(found)


def _logs(story: Story) -> list[Sentence]:
    window = _window(story)
    if window is None:
        return []
    out: list[Sentence] = []
    for log in story.logs:
        count, before = log.trouble(*window), log.trouble(0.0, window[0])
        if count > before:
            first = next(
                line for line in log.lines if line.trouble and line.at and line.at >= window[0]
            )
            lines = words.plural(count, "line")
            more = f", {before} before" if before else ""
            shown = first.text if len(first.text) <= 160 else f"{first.text[:160]}…"
            text = f"{log.name} logged {lines} with words of trouble{more}; the first: {shown}"
            out.append(Sentence(first.at, text, "warn"))
    return out


# ---------------------------------------------------------------------- the end


def _ends(story: Story) -> list[Sentence]:
    out: list[Sentence] = []
    if story.aborted:
        stop = next((e.at for e in story.events if e.event == "aborted"), None)
        by = f" by {story.aborted_by}" if story.aborted_by else ""
        out.append(Sentence(stop, f"The run was aborted{by}: {story.aborted}.", "warn"))
    people = [f for f in story.faults if f.end == "needs a person" or f.residue]
    for fault in people:
        left = f"; {words.plural(len(fault.residue), 'thing')} left" if fault.residue else ""
        text = f"{fault.name} could not be undone completely{left}."
        out.append(Sentence(fault.recovered or story.length, text, "bad"))
    undone = [f for f in story.faults if f.recovered is not None and not f.residue]
    if undone and not people:
        last = max(f.recovered for f in undone if f.recovered is not None)
        took = [f.time_to_recovery for f in undone if f.time_to_recovery is not None]
        within = " within" if len(undone) > 1 else ""
        after = f",{within} {words.span(max(took))} after undoing began" if took else ""
        every = "Every fault was" if len(undone) > 1 else "The fault was"
        out.append(Sentence(last, f"{every} undone, and looked for and not found{after}.", "good"))
    return out


_WHY = {
    "held": "So the hypothesis held.",
    "broke": "So the hypothesis did not hold.",
    "not effective": "So the hypothesis was not tested: without an effect nothing can be learned.",
    "not measured": "So there is no answer: what should have been judged could not be measured.",
    "error": "So there is no answer: something of ours failed.",
}


def _verdict(story: Story) -> Sentence:
    tone = words.answer(words.VERDICTS, story.verdict).tone if story.verdict else ""
    if not story.verdict:
        return Sentence(None, f"The run is not finished; it is in its phase {story.phase}.")
    why = _WHY.get(story.verdict, f"Its verdict is {story.verdict}.")
    return Sentence(None, f"{why} {story.reason}".strip(), tone)
