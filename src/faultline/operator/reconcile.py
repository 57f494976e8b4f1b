"""The reconciler of faults in a cluster: a pure function from what is known to what is to be so.

The order in which things become durable is what makes it safe to die at any point:

1. the finalizer, before anything is wanted of a host;
2. the status that says how many are to be hit and from which seed, before they are asked for;
3. what hosts are asked for, until all have it: then the choice is made;
4. `undo` at the hosts, so that each says how it ended;
5. the status with the end, before the hosts are allowed to forget;
6. the hosts' entries go, then the finalizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from faultline.api.fault import FaultPhase, FaultResourceStatus
from faultline.api.host import Desired
from faultline.api.targets import AimedFaultSpec
from faultline.errors import Bug, FaultlineError
from faultline.operator import aiming, conditions, control_plane, living, peers, resolving, tally
from faultline.operator.hosts import OBJECTS
from faultline.operator.model import (
    FORGET,
    GRACE,
    LOST,
    UNDO,
    Decision,
    Facts,
    FaultView,
    Notice,
    Wanted,
)
from faultline.operator.tally import HostView, Part

OVER = ("ended", "refused")


def reconcile(fault: FaultView, facts: Facts) -> Decision:
    """What is to be so now."""
    status = fault.status
    if status.phase in OVER and not _edited(fault):
        return _over(fault, facts)
    if status.phase in ("pending", *OVER):
        return _begin(fault, facts)
    return _Running(fault, facts).decide()


def _edited(fault: FaultView) -> bool:
    """Whether what was refused has been written anew since."""
    refused = fault.status.phase == "refused" and not fault.status.counts.targets
    return refused and not fault.deleting and fault.generation > fault.status.observed_generation


def _over(fault: FaultView, facts: Facts) -> Decision:
    """Nothing is wanted any more; the finalizer goes when no host has anything of it."""
    left = any(fault.uid in host.parts for host in facts.hosts.values())
    age = facts.now - (fault.status.ended or facts.now)
    waiting = fault.finalizer and left and age < FORGET
    return Decision(fault.status, {}, waiting, (), 1.0 if waiting else math.inf)


# ---------------------------------------------------------------------- the beginning


def _begin(fault: FaultView, facts: Facts) -> Decision:
    if fault.deleting:
        return _refused(fault, facts, "it was deleted before it began", "Deleted")
    if facts.halted is not None:
        why = f"everything is halted{': ' if facts.halted else ''}{facts.halted}"
        return _refused(fault, facts, why, "Halted")
    if fault.spec is None:
        return _refused(fault, facts, fault.problem or "it has no spec", "Invalid")
    if facts.cluster is None or facts.unready:
        return Decision(_unready(fault, facts), {}, fault.finalizer, wake=2.0)
    seed = fault.uid
    try:
        found = resolving.resolve(fault.spec, fault.namespace, seed, facts.cluster, fault.name)
        others = peers.begun(fault.spec, fault.namespace, facts.cluster)
    except FaultlineError as error:
        reason = "NothingFits" if error.code == "target-gone" else "Invalid"
        return _refused(fault, facts, aiming.complaint(error), reason)
    if not fault.finalizer:
        return Decision(fault.status, {}, finalizer=True)
    status = conditions.copied(fault.status)
    length = fault.spec.duration.seconds
    status.phase, status.seed, status.size = "injecting", seed, len(found.chosen)
    status.started, status.until = facts.now, facts.now + length
    status.end, status.ended = "", None
    status.message = f"{found.text}; {others.text}" if others is not None else found.text
    status.peers = len(others.pods) if others is not None else 0
    status.observed_generation = fault.generation
    conditions.put(status.conditions, "Resolved", "Unknown", "Choosing", found.text, facts.now)
    return Decision(status, {}, finalizer=True, wake=0.0)


def _refused(fault: FaultView, facts: Facts, why: str, reason: str) -> Decision:
    status = conditions.copied(fault.status)
    status.phase, status.message, status.ended = "refused", why, facts.now
    status.observed_generation = fault.generation
    conditions.put(status.conditions, "Resolved", "False", reason, why, facts.now)
    return Decision(status, {}, False, (Notice(reason, why, warning=reason != "Deleted"),))


def _unready(fault: FaultView, facts: Facts) -> FaultResourceStatus:
    if not facts.unready:
        return fault.status
    status = conditions.copied(fault.status)
    status.message = facts.unready
    conditions.put(status.conditions, "Resolved", "Unknown", "Unread", facts.unready, facts.now)
    return status


# ---------------------------------------------------------------------- while it is there


class _Running:
    """One look at a fault that has begun."""

    def __init__(self, fault: FaultView, facts: Facts) -> None:
        self.fault, self.facts, self.now = fault, facts, facts.now
        self.before = fault.status
        self.status = conditions.copied(fault.status)
        if fault.spec is None and fault.status.phase == "pending":
            raise Bug(f"{fault.owner} has begun without a spec")
        self.parts = {
            name: host.parts[fault.uid]
            for name, host in facts.hosts.items()
            if fault.uid in host.parts
        }
        self.chosen = conditions.holds(fault.status.conditions, "Resolved")
        self.wake = math.inf

    def decide(self) -> Decision:
        wanted = self._wanted()
        self._stop()
        if self.status.phase == "recovering":
            wanted = {name: _undone(self.parts[name]) for name in self.parts}
        open_, lost = self._open()
        self._count(lost, wanted)
        self._phases(open_, wanted)
        self._told()
        return Decision(
            self.status, wanted, finalizer=True, notices=tuple(self._notices()), wake=self.wake
        )

    # ------------------------------------------------------------------ what is wanted

    def _wanted(self) -> Wanted:
        wanted: dict[str, dict[str, Desired]] = {
            name: {entry.desired.uid: entry.desired for entry in part.entries}
            for name, part in self.parts.items()
        }
        spec = self.fault.spec
        others = None
        if spec is not None and not self.facts.unready:
            others = peers.later(spec, self.fault.namespace, self.facts.cluster)
        if spec is not None and others is not None:
            self.status.peers = len(others.pods)
            wanted = {name: peers.told(spec, others, each) for name, each in wanted.items()}
        growing = not self.chosen or living.is_live(spec)
        if self.before.phase == "recovering" or spec is None or not growing:
            return wanted
        if spec.peer is not None and others is None:
            return wanted  # without addresses it would be everybody
        more = living.more(self.fault, spec, self.facts, self.parts, chosen=self.chosen)
        for aim in more:
            uid = aim.uid(self.fault.uid)
            made = {uid: self._desired(uid, aim, spec)}
            made = peers.told(spec, others, made) if others is not None else made
            wanted.setdefault(aim.host, {}).setdefault(uid, made[uid])
        if not self.chosen and self.facts.cluster is not None and not self.facts.unready:
            self._choice_made(wanted)
        return wanted

    def _choice_made(self, wanted: Wanted) -> None:
        """The choice is made when the hosts have been told all of it."""
        there = sum(len(part.entries) for part in self.parts.values())
        if there < sum(len(entries) for entries in wanted.values()):
            return
        if not there:  # what was chosen has gone before anybody was told
            self._to("recovering")
        text = f"{there} targets on {len(self.parts)} hosts"
        self.chosen = True
        self._condition("Resolved", "True", "Chosen", text)

    def _desired(self, uid: str, aim: resolving.Aim, spec: AimedFaultSpec) -> Desired:
        begun = self.before.started or self.now
        asked = self.now if self.chosen else begun
        rest = spec.duration.seconds - (asked - begun)
        return Desired(
            uid=uid, owner=self.fault.owner, owner_uid=self.fault.uid, fault=spec.fault,
            params={**aim.params, **spec.params}, asked_at=asked,
            duration=type(spec.duration).of_seconds(max(rest, 0.1)),
            allow=[*dict.fromkeys((*spec.allow, *aim.allow))],
            pod=aim.pod, target=aim.target, object=aim.object,
            flap=spec.flap, follow=living.is_live(spec) and aim.pod is not None,
            survives=control_plane.survives(spec, aim.pod, self.facts.cluster),
        )  # fmt: skip

    # ------------------------------------------------------------------ its end

    def _stop(self) -> None:
        """Whether it is to be undone from now on."""
        if self.status.phase == "recovering":
            return
        if self.fault.deleting or self.facts.halted is not None:
            self._to("recovering")
            return
        last = self._deadline() + GRACE
        if self.now >= last:
            self._to("recovering")
        else:
            self.wake = min(self.wake, last - self.now)

    def _deadline(self) -> float:
        """When its last target has reached its own deadline: a target that was injected late has
        it late, and none is begun after the time for which it was asked for.
        """
        begun = self.before.started or self.now
        length = (self.before.until or self.now) - begun
        if self.chosen and living.is_live(self.fault.spec):
            return begun + length
        if all(part.begun for part in self.parts.values()) and self.chosen:
            return max([begun, *(p.injected_at for p in self.parts.values())]) + length
        return begun + 2 * length

    def _open(self) -> tuple[bool, set[str]]:
        """Whether something is still to be waited for, and which hosts have no answer to give."""
        open_, lost = not self.chosen, set[str]()
        if self.status.phase == "recovering":
            open_ = False
        for name, part in self.parts.items():
            if part.closed:
                continue
            host = self.facts.hosts[name]
            if host.gone or self._given_up(host):
                lost.add(name)
            else:
                open_ = True
        return open_, lost

    def _given_up(self, host: HostView) -> bool:
        begun = self.status.recovery_started
        if self.status.phase != "recovering" or begun is None:
            return False
        last = begun + (UNDO if host.alive else LOST)
        if self.now < last:
            self.wake = min(self.wake, last - self.now)
        return self.now >= last

    # ------------------------------------------------------------------ numbers and words

    def _count(self, lost: set[str], wanted: Wanted) -> None:
        shares = {share.host: share for share in self.before.hosts}
        for name, part in self.parts.items():
            host = self.facts.hosts[name]
            update: dict[str, object] = {"host": name, "lost": not host.alive or host.gone}
            if name in lost and not update["lost"]:
                left = [entry.desired.uid for entry in part.entries if not entry.closed]
                update["person"] = part.share.person + len(left)
                update["error"] = f"it does not undo it; {_by_hand(name, left[0])}"
            elif part.closed:
                update["lost"] = False  # nothing more is to be heard of it
            shares[name] = part.share.model_copy(update=update)
        for name in shares.keys() - self.parts.keys():
            self._vanished(shares, name)
        self.status.hosts = [shares[name] for name in sorted(shares)]
        self.status.counts = tally.counts(self.status.hosts)
        self.status.effect = tally.effect(self.status.counts) or self.before.effect

    def _vanished(self, shares: dict[str, tally.HostShare], name: str) -> None:
        """A Host that has gone with what it had: nobody is left who could say how it ended."""
        told = shares[name]
        ends = told.recovered + told.gone + told.person + told.refused
        if ends < told.targets:
            shares[name] = told.model_copy(update={"lost": True})

    def _phases(self, open_: bool, wanted: Wanted) -> None:
        status, counts = self.status, self.status.counts
        if self.status.phase == "injecting" and self.chosen and self._all_begun():
            self._to("active")
        if status.phase == "active" and status.effective_at is None and status.effect:
            status.effective_at = max((p.effective_at for p in self.parts.values()), default=0)
            status.effective_at = status.effective_at or None
        live = living.is_live(self.fault.spec) and status.phase != "recovering"
        if live and self.now < (status.until or 0.0):
            self.wake = min(self.wake, (status.until or 0.0) - self.now)
            return
        if open_ or (not self.chosen and status.phase != "recovering"):
            return
        if any(host not in self.parts for host in wanted):
            return
        refused = counts.targets > 0 and counts.refused == counts.targets
        self._to("refused" if refused else "ended")
        status.ended = self.now
        status.end = "" if refused else tally.end(counts)
        if not counts.targets and not self.fault.deleting and self.facts.halted is None:
            status.end = "target gone"

    def _all_begun(self) -> bool:
        hosts = self.facts.hosts
        return all(p.begun or not hosts[n].alive for n, p in self.parts.items())

    def _to(self, phase: FaultPhase) -> None:
        self.status.phase = phase
        if phase == "recovering":
            self.status.recovery_started = self.now

    def _told(self) -> None:
        """Message and conditions from the numbers."""
        status, found = self.status, self.status.counts
        first = next((f"{s.host}: {s.error}" for s in status.hosts if s.error), "")
        status.message = _sentence(status, first, self.facts.halted)
        total = found.targets
        injected = "True" if total and found.injected == total else "False"
        text = f"{found.injected} of {total} targets"
        self._condition("Injected", injected, "All" if injected == "True" else "NotAll", text)
        if status.effect is not None:
            proven = "Unknown" if status.effect == "unmeasured" else "False"
            proven = "True" if status.effect == "effective" else proven
            words = (
                f"{found.effective} of {total} targets; {found.ineffective} without effect; "
                f"{found.unmeasured} not measured"
            )
            self._condition("Effective", proven, status.effect.capitalize(), words)
        if status.phase in OVER:
            well = status.end in ("recovered", "target gone", "")
            answer = "True" if well else "False" if found.person else "Unknown"
            self._condition("Recovered", answer, _word(status.end or "refused"), status.message)

    def _condition(self, name: str, state: str, reason: str, text: str) -> None:
        conditions.put(self.status.conditions, name, state, reason, text, self.now)

    def _notices(self) -> list[Notice]:
        """Events for what has become so with this look."""
        was, now = self.before, self.status
        made: list[Notice] = []
        if self.chosen and not conditions.holds(was.conditions, "Resolved"):
            made.append(Notice("Resolved", now.message))
        if now.effect != was.effect and now.effect is not None:
            bad = now.effect != "effective"
            made.append(Notice(_word(now.effect), now.message, warning=bad))
        if now.counts.lost > was.counts.lost:
            hosts = [share.host for share in now.hosts if share.lost][:10]
            made.append(Notice("HostLost", f"no answer from {', '.join(hosts)}", warning=True))
        if now.phase == "recovering" != was.phase:
            made.append(Notice("Recovering", now.message))
        if now.phase in OVER:
            bad = now.end not in ("recovered", "target gone")
            made.append(Notice(_word(now.end or "refused"), now.message, warning=bad))
        if self.fault.generation > was.observed_generation and not self.fault.deleting:
            self.status.observed_generation = self.fault.generation
            text = "a fault that has begun stays as it is: delete it and make another one"
            made.append(Notice("EditIgnored", text, warning=True))
        return made


def _undone(part: Part) -> Mapping[str, Desired]:
    return {
        entry.desired.uid: entry.desired
        if entry.desired.undo
        else entry.desired.model_copy(update={"undo": True})
        for entry in part.entries
    }


def _sentence(status: FaultResourceStatus, first: str, halted: str | None) -> str:
    found = status.counts
    parts = [f"{found.effective} of {found.targets} targets effective"]
    if status.phase in OVER:
        parts = [f"{found.recovered} of {found.targets} recovered"]
    for number, word in ((found.gone, "gone"), (found.refused, "refused"),
                         (found.person, "need a person")):  # fmt: skip
        parts += [f"{number} {word}"] if number else []
    parts += [f"{found.lost} hosts lost"] if found.lost else []
    parts += [f"halted{': ' if halted else ''}{halted}"] if halted is not None else []
    return "; ".join([", ".join(parts), *([first] if first else [])])


def _by_hand(host: str, uid: str) -> str:
    """What a person may run where a host does not undo what it has."""
    if host == OBJECTS:
        return f"anywhere: faultline kube recover {uid}"
    return f"on {host}: faultline recover {uid}"


def _word(text: str) -> str:
    """`node gone: undo queued` as one word for programs."""
    return "".join(each.capitalize() for each in text.partition(":")[0].split())
