"""Carrying out one fault on one object: planned, recorded, made, measured, taken back.

Whoever calls keeps the record, and keeps it before the first call that changes anything. With the
record alone everything can go on from any point. What was in the fields of an object is also in a
note on the object itself, written in the same request as the change; of a Secret only there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from faultline.api.targets import Flap
from faultline.errors import ApplyFailed, FaultlineError, Refused, TargetGone
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import back, course, notes, registry
from faultline.kubefaults import change as changing
from faultline.kubefaults.change import Change, Outcome, Undone
from faultline.kubefaults.course import Tended
from faultline.kubefaults.model import View
from faultline.kubefaults.rights import Right


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to which object, and for whom."""

    uid: str
    """Of this fault on this object: it stands in every mark."""
    fault: str
    params: dict[str, Any]
    version: str  # of the API
    kind: str
    namespace: str
    name: str
    target: str  # the uid of the object
    allow: frozenset[str] = frozenset()
    owner: str = ""  # who wants it
    seconds: float = 0.0  # how long it is to last
    flap: Flap | None = None  # whether it comes and goes

    @property
    def words(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(frozen=True, slots=True)
class End:
    """How it ended, and what is to be said of it."""

    how: Outcome
    note: str = ""


Permit = Callable[[Order, Sequence[Right]], None]
"""Raises Refused if whoever wants it has no right to do with their own hands what it does."""


def permitted(_order: Order, _demands: Sequence[Right]) -> None:
    """Everybody may do everything."""


class Carrier:
    """Carries out faults by one client. `stop` says that nobody waits for an effect any more."""

    def __init__(
        self, client: Client, stop: Callable[[], bool] = lambda: False, permit: Permit = permitted
    ) -> None:
        self.client = client
        self.stop = stop
        self.permit = permit

    # ------------------------------------------------------------------ planned

    def plan(self, order: Order, now: float = 0.0) -> list[Change]:
        """The changes; touches nothing. Raises Refused, TargetGone, InvalidParameter, ApiError."""
        fault = registry.get(order.fault)
        params = fault.params_type().model_validate(order.params)
        view, target = self._view(order), self._target(order)
        planned = fault.plan(view, target, params)
        course.check(fault, planned, order.flap)
        self.permit(order, fault.demands(view, target, params, planned))
        about = {"owner": order.owner, "until": round(now + order.seconds, 1) if now else 0.0}
        return [replace(each, extra={**each.extra, "about": about}) for each in planned]

    def demands(self, order: Order, changes: Sequence[Change]) -> list[Right]:
        """What whoever asks for it must be allowed to do themselves."""
        fault = registry.get(order.fault)
        params = fault.params_type().model_validate(order.params)
        return fault.demands(self._view(order), self._target(order), params, changes)

    def _view(self, order: Order) -> View:
        # From the uid: planned twice, it is the same.
        chance = random.Random(order.uid)
        return View(
            self.client, order.uid, chance, order.allow,
            seconds=order.seconds, seed=order.uid, stop=self.stop,
        )  # fmt: skip

    def _target(self, order: Order) -> Object:
        kind = self.client.exact(order.kind, order.version)
        try:
            found = self.client.get(kind, order.name, order.namespace)
        except ApiError as error:
            if error.status == 404:
                raise TargetGone(f"{order.words} is there no more") from error
            raise
        if str(metadata(found)["uid"]) != order.target:
            raise TargetGone(f"{order.words} is another one now")
        return {"apiVersion": order.version, "kind": order.kind, **found}

    # ------------------------------------------------------------------ made

    def make(self, order: Order, changes: Sequence[Change], *, again: bool) -> list[str]:
        """Make all changes; harmless for what is made. What could not be and need not be is told.

        `again` says that some may have been made before. Raises what `change.apply` raises; then
        whoever called has it undone.
        """
        told: list[str] = []
        for each in changes:
            try:
                changing.apply(self.client, each, order.uid)
            except TargetGone:
                # Somebody was quicker, or we were, before we died.
                if each.do not in ("delete", "evict") or not (again or len(changes) > 1):
                    raise
            except Refused as error:
                if each.do != "evict" or len(changes) == 1:
                    raise
                told.append(error.message)
        return told

    def resumed(
        self, order: Order, record: str, now: float = 0.0, *, noted: bool = True
    ) -> list[Change]:
        """The changes of a record, to be made or made already; with `noted` as their notes have
        them now. Raises as `plan`, or ApplyFailed.
        """
        found = unpacked(record)
        if not noted and all(each.fields for each in found if each.do == "patch"):
            return found
        found, missing = self._known(order.uid, found)
        if not missing:
            return found
        planned = {_key(each): each for each in self.plan(order, now)}
        if any(_key(each) not in planned for each in missing):
            raise ApplyFailed(f"{order.words} has changed, so the plan cannot be gone on with")
        return [planned[_key(each)] if each in missing else each for each in found]

    def _known(self, uid: str, changes: Iterable[Change]) -> tuple[list[Change], list[Change]]:
        """Changes with what their notes say, and those of which nothing is known without one."""
        found: list[Change] = []
        missing: list[Change] = []
        for each in changes:
            made = each
            if each.do == "patch":
                now = back.found(self.client, each)
                same = now is not None and str(metadata(now).get("uid")) == each.uid
                if now is not None and same and uid in notes.noted(now):
                    made = replace(changing.of_note(each.kind, now, uid), extra=each.extra)
                elif not each.fields:
                    missing.append(each)
            found.append(made)
        return found, missing

    # ------------------------------------------------------------------ measured

    def measure(self, order: Order, record: str) -> Reading:
        """Whether it has its effect; raises ApiError."""
        found, missing = self._known(order.uid, unpacked(record))
        if missing:
            words = ", ".join(each.words for each in missing[:5])
            reason = f"our note on {words} is gone: somebody has set it back"
            return Reading(Effect.INEFFECTIVE, order.fault, "set back", "its note", reason)
        fault = registry.get(order.fault)
        params = fault.params_type().model_validate(order.params)
        try:
            target = self._target(order)
        except TargetGone:  # which may be the effect
            meta = {"name": order.name, "namespace": order.namespace, "uid": order.target}
            target = {"apiVersion": order.version, "kind": order.kind, "metadata": meta}
        return fault.observe(self._view(order), target, params, found)

    # ------------------------------------------------------------------ kept up

    def tend(self, order: Order, record: str, elapsed: float) -> Tended:
        """Make it so as it is to be so long after it began: its step, there or not there, held
        against whoever sets it back, a load begun again that died with another process. Harmless to
        repeat; raises as `plan`.
        """
        fault = registry.get(order.fault)
        params = fault.params_type().model_validate(order.params)
        left = max(0.1, order.seconds - elapsed)
        changes = [
            replace(each, extra={**each.extra, "seconds": left}) if each.do == "load" else each
            for each in self.resumed(order, record, noted=False)
        ]
        return course.tend(self._view(order), fault, params, changes, order.flap, elapsed)

    # ------------------------------------------------------------------ taken back

    def unmake(self, uid: str, record: str, order: Order | None = None) -> End:
        """Take all of it back, in reverse, past what fails; harmless if nothing is there.

        With the order it is also looked at what the fault knows of its absence. Raises ApiError
        where the server gave no answer: then it is to be tried again.
        """
        ends: list[Undone] = []
        unheard: ApiError | None = None
        changes = unpacked(record)
        for each in reversed(changes):
            try:
                ends.append(self._unmake(uid, each))
            except ApiError as error:
                if not error.refused or error.status == 429:
                    unheard = error
                else:
                    ends.append(Undone(Outcome.PERSON, f"{each.words}: {error.message}"))
            except FaultlineError as error:
                ends.append(Undone(Outcome.PERSON, f"{each.words}: {error.message}"))
        if unheard is not None:
            raise unheard
        found = _end(uid, ends)
        left = self._remains(order, changes) if order is not None else ""
        if left and found.how is Outcome.RECOVERED:
            return End(Outcome.PERSON, f"{left}; then: faultline kube recover {uid}")
        return found

    def _remains(self, order: Order, changes: Sequence[Change]) -> str:
        """What is still met of it although all changes are undone."""
        fault = registry.get(order.fault)
        params = fault.params_type().model_validate(order.params)
        view = replace(self._view(order), stop=lambda: False)
        try:
            target = self._target(order)
            view.until(lambda: not fault.remains(view, target, params, changes))
            return fault.remains(view, target, params, changes)
        except TargetGone:
            return ""

    def _unmake(self, uid: str, each: Change) -> Undone:
        done = changing.undo(self.client, each, uid)
        if done.outcome is Outcome.RECOVERED and changing.present(self.client, each, uid):
            return Undone(Outcome.PERSON, f"{each.words}: it is still there")
        return done


def _end(uid: str, ends: Sequence[Undone]) -> End:
    told = [each.detail for each in ends if each.detail and each.outcome is not Outcome.GONE]
    told += [f"left as somebody has it: {', '.join(each.left)}" for each in ends if each.left]
    note = "; ".join(dict.fromkeys(told))
    if any(each.outcome is Outcome.PERSON for each in ends):
        return End(Outcome.PERSON, f"{note}; then: faultline kube recover {uid}")
    real = [each for each in ends if each.outcome is not Outcome.NOTHING]
    if not real:
        return End(Outcome.NOTHING, note)
    if all(each.outcome is Outcome.GONE for each in real):
        return End(Outcome.GONE, note)
    return End(Outcome.RECOVERED, note)


# ---------------------------------------------------------------------- records


def packed(changes: Iterable[Change]) -> str:
    """What is to be kept of changes. What is in a Secret is not: it is in its note."""
    made: list[dict[str, Any]] = []
    for each in changes:
        secret = each.kind.kind == "Secret" and each.do == "patch"
        data = asdict(replace(each, fields=()) if secret else each)
        data["kind"] = {key: value for key, value in data["kind"].items() if key != "verbs"}
        made.append({key: value for key, value in data.items() if value not in ("", (), None, {})})
    return json.dumps(made, separators=(",", ":"))


def unpacked(record: str) -> list[Change]:
    """The same changes; those of a Secret without their fields."""
    empty: dict[str, Any] = {
        "uid": "",
        "part": "",
        "fields": [],
        "object": None,
        "grace": None,
        "namespace": "",
    }
    return [Change.from_json({**empty, **each}) for each in json.loads(record or "[]")]


def takes_back(record: str) -> bool:
    """Whether there is anything to undo: what is deleted or evicted is gone for good."""
    return any(
        each.do not in ("delete", "evict") or each.object is not None for each in unpacked(record)
    )


def changes_by_itself(order: Order, record: str) -> bool:
    """Whether it has to be tended while it is there."""
    fault = registry.get(order.fault)
    params = fault.params_type().model_validate(order.params)
    loads = any(each.do == "load" for each in unpacked(record))
    return order.flap is not None or fault.insists or fault.every(params) > 0 or loads


def _key(each: Change) -> tuple[str, ...]:
    return each.do, each.kind.plural, each.namespace, each.name, each.part
