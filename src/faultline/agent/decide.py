"""What a host should suffer against what it suffers: a pure function. No I/O, no clock.

An entry that appears is injected, once: a uid that has ended, was refused or came too late is never
injected again, whatever happens to agent, host or API server; whoever wants the fault again asks
with a new uid. An entry that goes is undone. While the API server cannot be reached for longer than
the lease, everything is undone but what says that it survives.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from faultline.agent.model import (
    CREATOR,
    Action,
    Decision,
    Document,
    Facts,
    Found,
    Tried,
    Verb,
    part,
    parts,
    sides,
)
from faultline.errors import FaultlineError
from faultline.units import Duration

LATE = 10_000_000_000  # ns after a deadline at which a fault that is still there is undone by us
LOOK = 1_000_000_000  # ns until something that is between two states is looked at again
SHORTEST = 100_000_000  # ns that a fault may at least last
KEPT = 60.0  # seconds for which it can be read how an entry ended that nobody wants any more
MOST_KEPT = 500
_STAGES = {
    "prepared": "injecting",
    "applying": "injecting",
    "active": "active",
    "undoing": "recovering",
    "ended": "ended",
}


@dataclass(slots=True)
class _Draft:
    """What one decision has gathered so far."""

    actions: list[Action] = field(default_factory=list[Action])
    wakes: list[int] = field(default_factory=list[int])


def decide(host: Document, before: Document, facts: Facts) -> Decision:
    """From the host as it is wanted, the status that was reported last, and the facts."""
    spec = part(host, "spec")
    wanted: dict[str, Document] = {each["uid"]: each for each in parts(spec, "desired")}
    told: dict[str, Document] = {each["uid"]: each for each in parts(before, "actual")}
    rounds = _rounds(facts.found)
    halted = str(spec.get("halted") or "")
    draft = _Draft()
    actual: list[Document] = []
    for uid in dict.fromkeys((*wanted, *rounds, *told)):
        case = _Case(uid, wanted.get(uid), rounds.get(uid, ()), told.get(uid, {}), halted, facts)
        try:
            entry = _entry(case, draft)
        except (FaultlineError, LookupError, TypeError, ValueError) as error:
            entry = _refused(case, f"the entry cannot be read: {error}")
        if entry is not None:
            actual.append(entry)
    actual = list(_few(actual, wanted))
    about = {**facts.about, "bootId": facts.boot, "unwanted": list(facts.unwanted)}
    status: Document = {**before, **about, "actual": actual}
    if facts.looked:
        status["observedGeneration"] = int(part(host, "metadata").get("generation") or 0)
    status["conditions"] = _conditions(before, status, facts)
    return Decision(status, tuple(draft.actions), min(draft.wakes, default=None))


def _rounds(found: Iterable[Found]) -> dict[str, tuple[Found, ...]]:
    """Faults by their entry, those of containers that followed behind the first."""
    made: dict[str, tuple[Found, ...]] = {}
    for each in sorted(found, key=lambda one: (one.entry, one.round)):
        made[each.entry] = (*made.get(each.entry, ()), each)
    return made


@dataclass(frozen=True, slots=True)
class _Case:
    """One entry with all that is known of it."""

    uid: str
    asked: Document | None  # as it is wanted; None when nobody does
    rounds: tuple[Found, ...]
    told: Document  # as it was reported last
    halted: str
    facts: Facts

    @property
    def last(self) -> Found | None:
        return self.rounds[-1] if self.rounds else None

    @property
    def why_not(self) -> str:
        """Why it may not be there; empty while it may."""
        if self.asked is None:
            return "it is not wanted any more"
        if self.asked.get("undo"):
            return "it is to be undone"
        if self.facts.stopping:
            return "the agent was told to end"
        if self.halted:
            return f"everything is halted: {self.halted}"
        if not self.facts.lease and not self.asked.get("survives"):
            return "the API server cannot be reached"
        return ""

    def tried(self, verb: Verb) -> Tried | None:
        return self.facts.tried.get((verb, self.uid))

    def busy(self, *verbs: Verb) -> bool:
        return any((verb, self.uid) in self.facts.running for verb in verbs)


def _entry(case: _Case, draft: _Draft) -> Document | None:
    last = case.last
    if last is not None and not last.ours:
        if case.asked is None:
            return None
        return _refused(case, f"the uid {case.uid} is that of a fault which no agent made")
    if last is None:
        return _not_there(case, draft)
    if last.open:
        return _there(case, last, draft)
    if _follows(case, last):
        return _following(case, last, draft)
    return _over(case, last, draft)


# --------------------------------------------------------------------------- nothing in the journal


def _not_there(case: _Case, draft: _Draft) -> Document | None:
    stage = case.told.get("stage")
    if not case.facts.looked:
        return case.told or _new(case.uid)
    if stage in ("active", "recovering"):
        # Its record is lost, which does not mean that it is gone: what carries its mark is undone.
        _do(case, "recover", case.uid, draft)
        return {**case.told, "stage": "recovering"}
    if case.asked is None:
        if case.busy("inject"):
            draft.wakes.append(case.facts.clock + LOOK)
            return {**case.told, "stage": "recovering"} if case.told else None
        return _kept(case) if stage == "ended" else None
    if stage in ("ended", "refused"):
        return case.told
    if case.asked.get("undo") and not case.busy("inject"):
        return {**_new(case.uid), "stage": "ended", "end": "nothing to undo",
                "endedAt": case.facts.now, "note": "it was not begun"}  # fmt: skip
    return _to_begin(case, draft)


def _to_begin(case: _Case, draft: _Draft) -> Document:
    asked, facts = case.asked or {}, case.facts
    entry: Document = {**_new(case.uid), **case.told, "stage": "injecting"}
    if case.busy("inject"):
        return entry
    failed = case.tried("inject")
    late = float(asked["askedAt"]) + int(Duration.parse(asked.get("duration", "10m"))) / 1e9
    if facts.now >= late:
        why = f": {failed.error}" if failed else ""
        return _refused(case, f"it could not begin within its duration{why}")
    if failed is not None and failed.final and not (failed.gone and asked.get("follow")):
        return _refused(case, failed.error)
    if case.why_not:
        if case.halted or asked.get("undo"):
            return _refused(case, case.why_not)
        return {**entry, "error": case.why_not}  # begun later, by us or the next agent, if in time
    if failed is not None:
        entry["error"] = failed.error
    duration = int(Duration.parse(asked.get("duration", "10m")))
    _do(case, "inject", case.uid, draft, _order(asked, duration, first=True))
    return entry


def _order(asked: Document, duration: int, first: bool) -> Document:
    """What whoever injects needs to know."""
    pod = dict(asked.get("pod") or {})
    if not first:
        pod.pop("containerId", None)  # the one that follows has another
    return {
        "fault": asked["fault"],
        "params": asked.get("params") or {},
        "duration": duration,
        "allow": asked.get("allow") or [],
        "creator": f"{CREATOR}{asked['owner']}",
        "pod": pod,
        "target": asked.get("target") or {},
        "leased": not asked.get("survives"),
    }


# ---------------------------------------------------------------------------- in the journal, open


def _there(case: _Case, last: Found, draft: _Draft) -> Document:
    facts = case.facts
    entry = {**_new(case.uid), **case.told, **_read(case, last)}
    entry["stage"] = _STAGES[last.state]
    if last.boot != facts.boot or case.why_not or facts.clock >= last.deadline + LATE:
        entry["stage"] = "recovering"
        _do(case, "recover", last.uid, draft)
        failed = case.tried("recover")
        if failed is not None:
            entry["error"] = failed.error
        return entry
    draft.wakes.append(last.deadline + LATE)
    if last.state != "active":
        if not case.busy("inject"):  # somebody else's, or its maker died and the keepers undo it
            draft.wakes.append(facts.clock + LOOK)
        return entry
    wanted = sides((case.asked or {}).get("params") or {})
    if wanted != last.sides and last.sides.keys() == wanted.keys():
        _do(case, "readdress", last.uid, draft, wanted)
        failed = case.tried("readdress")
        if failed is not None and failed.error:
            entry["error"] = failed.error
        return entry
    if entry.get("effect", "unmeasured") == "unmeasured" and not case.busy("inject"):
        failed = case.tried("measure")  # there may be something to measure it by later
        if failed is not None and failed.error:
            entry |= {"effect": "unmeasured", "error": failed.error}
        _do(case, "measure", last.uid, draft)
    return entry


def _read(case: _Case, found: Found) -> Document:
    """What a record tells: what was measured, and when what happened."""
    entry: Document = {"injectedAt": case.rounds[0].created}
    reading = found.reading
    if reading:
        effect = str(reading["effect"])
        values = part(reading, "values")
        measured = f", measured {reading['measured']}" if reading.get("measured") else ""
        why = f" ({reading['reason']})" if reading.get("reason") else ""
        entry["text"] = f"asked {reading['asked']}{measured}{why}"
        # Others have the target above what was asked: measured, and not our doing.
        entry["effect"] = "ineffective" if effect == "already above" else effect
        entry |= {name: values[name] for name in ("asked", "measured") if name in values}
        if effect == "effective":
            entry["effectiveAt"] = case.told.get("effectiveAt") or case.facts.now
    return entry


# ---------------------------------------------------------------------------- in the journal, ended


def _follows(case: _Case, last: Found) -> bool:
    """Whether it goes on in the container that follows."""
    asked = case.asked
    if asked is None or not asked.get("follow") or last.end != "target gone" or case.why_not:
        return False
    if case.told.get("stage") in ("ended", "refused") or last.boot != case.facts.boot:
        return False
    return case.rounds[0].deadline - case.facts.clock >= SHORTEST


def _following(case: _Case, last: Found, draft: _Draft) -> Document:
    asked, facts = case.asked or {}, case.facts
    failed = case.tried("inject")
    if failed is not None and failed.final and not failed.gone:
        return {**_ended(case, last), "error": failed.error}
    left = case.rounds[0].deadline - facts.clock
    draft.wakes.append(case.rounds[0].deadline)
    uid = f"{case.uid}.{last.round + 1}"
    _do(case, "inject", uid, draft, _order(asked, left, first=False))
    waiting = "waiting for the container that follows"
    return {
        **_new(case.uid),
        **case.told,
        **_read(case, last),
        "stage": "injecting",
        "note": waiting,
    }


def _over(case: _Case, last: Found, draft: _Draft) -> Document | None:
    entry = _ended(case, last)
    if last.end == "needs a person":
        _do(case, "recover", last.uid, draft)
        return entry
    return entry if case.asked is not None else _kept(case, entry)


def _ended(case: _Case, last: Found) -> Document:
    entry = {**_new(case.uid), **case.told, **_read(case, last), "stage": "ended"}
    entry.pop("note", None)
    entry.pop("error", None)
    entry["endedAt"] = case.told.get("endedAt") or last.ended or case.facts.now
    entry["end"] = last.end or "needs a person"
    if last.note:
        entry["note"] = last.note
    return entry


def _kept(case: _Case, entry: Document | None = None) -> Document | None:
    """It stays for a while, so that it can be read how it ended."""
    entry = entry or case.told
    ended = float(entry.get("endedAt") or 0)
    return entry if abs(case.facts.now - ended) < KEPT else None


def _few(actual: list[Document], wanted: Mapping[str, Document]) -> Iterator[Document]:
    """Without the oldest of those that nobody wants, where there are very many."""
    over = [each for each in actual if each["stage"] == "ended" and each["uid"] not in wanted]
    over = [each for each in over if each.get("end") != "needs a person"]
    over.sort(key=lambda each: float(each.get("endedAt") or 0))
    left_out = {each["uid"] for each in over[: max(0, len(over) - MOST_KEPT)]}
    yield from (each for each in actual if each["uid"] not in left_out)


# ---------------------------------------------------------------------------- parts


def _new(uid: str) -> Document:
    return {"uid": uid, "stage": "injecting"}


def _refused(case: _Case, why: str) -> Document:
    return {"uid": case.uid, "stage": "refused", "error": why}


def _do(case: _Case, verb: Verb, uid: str, draft: _Draft, order: Document | None = None) -> None:
    """Ask for it, unless it is under way or has just failed."""
    if case.busy("inject", "measure", "recover", "readdress") and not _may_overtake(case, verb):
        return
    failed = case.tried(verb)
    if failed is not None and failed.until > case.facts.clock:
        draft.wakes.append(failed.until)
        return
    draft.actions.append(Action(verb, uid, order or {}))


def _may_overtake(case: _Case, verb: Verb) -> bool:
    """An undo waits for nobody but an undo: what is being measured may be undone."""
    return verb == "recover" and not case.busy("recover")


def _conditions(before: Document, status: Document, facts: Facts) -> list[Document]:
    ready = ("True", "Renewed", "the lease is renewed")
    if facts.stopping:
        ready = ("False", "Stopping", "the agent was told to end")
    elif not facts.looked:
        ready = ("False", "Starting", "the journal has not been read yet")
    elif not facts.lease:
        ready = ("False", "NoLease", "the API server could not be reached for the time of a lease")
    clean = ("True", "Clean", "nothing is there that is not wanted")
    person = [each["uid"] for each in status["actual"] if each.get("end") == "needs a person"]
    undoing = [each["uid"] for each in status["actual"] if each["stage"] == "recovering"]
    if person:
        clean = ("False", "NeedsPerson", f"somebody must look at {', '.join(person[:5])}")
    elif undoing:
        clean = ("False", "Recovering", f"{len(undoing)} are being undone")
    elif facts.unwanted:
        marks = ", ".join(facts.unwanted[:5])
        clean = ("False", "UnknownMarks", f"no journal knows {marks}: faultline recover --scan")
    generation = status.get("observedGeneration", 0)
    old: dict[str, Document] = {each["type"]: each for each in parts(before, "conditions")}
    return [
        _condition(old.get(name, {}), name, *said, generation, facts.now)
        for name, said in (("Ready", ready), ("Clean", clean))
    ]


def _condition(
    old: Document, name: str, value: str, reason: str, message: str, generation: int, now: float
) -> Document:
    since = old.get("lastTransitionTime") if old.get("status") == value else ""
    return {
        "type": name,
        "status": value,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
    }
