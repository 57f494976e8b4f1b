"""Faults of admission, carried out: what is answered to a request that matches one of them.

What is to be done stands in the configuration itself, so any operator knows it, and ends it at its
time even if nobody removes the configuration.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import webhooks
from faultline.kubefaults.behaviours import Behaviour
from faultline.kubefaults.dryruns import TRY
from faultline.kubefaults.notes import OWNER, annotations_of, labels_of
from faultline.kubefaults.webhooks import Phase
from faultline.operator.admission.server import Answer

WAITING = 384
"""Requests that wait at once; of more, those that match are let through."""
UNKNOWN = 1.0  # seconds for which it is remembered that there is no such fault
FLUSH = 1.0  # seconds between two writes of how many were hit
_log = logging.getLogger(__name__)


@dataclass
class Active:
    """A fault that is there, or known not to be."""

    phase: Phase
    slot: str
    fault: str
    behaviour: Behaviour | None
    until: float  # by our own clock
    uid: str = ""  # of the configuration
    chance: random.Random = field(default_factory=random.Random)
    matched: int = 0
    hit: int = 0
    written: tuple[int, int] = (0, 0)


class Injecting:
    """All of them. Safe in threads."""

    def __init__(
        self, client: Client, identity: str, namespace: str, own: Callable[[], str]
    ) -> None:
        self._client, self._own = client, own
        self._accounts = f"system:serviceaccount:{namespace}:"
        self._name = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str], Active] = {}
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._ending = threading.Event()

    def stop(self) -> None:
        """Whoever waits is answered."""
        self._ending.set()

    # ------------------------------------------------------------------ requests

    def answer(self, phase: Phase, slot: str, fault: str, request: Object) -> Answer | None:
        """What is answered; None: nothing at all. Whatever is unclear is allowed."""
        uid = str(request.get("uid") or "")
        active = self._active(phase, slot, fault)
        behaviour = active.behaviour
        if behaviour is None or time.monotonic() >= active.until:
            return allowed(uid)
        tried = self._is_tried(request, fault)
        if not tried and (self._is_ours(request) or not behaviour.means(request)):
            return allowed(uid)
        if not self._drawn(active, behaviour, counts=not tried):
            return allowed(uid)
        return self._hit(behaviour, active, uid, request)

    def _hit(
        self, behaviour: Behaviour, active: Active, uid: str, request: Object
    ) -> Answer | None:
        match behaviour.do:
            case "mutate":
                return allowed(uid, behaviour.patched(cast(Object, request.get("object") or {})))
            case "reject":
                return denied(uid, behaviour.code, "", behaviour.message)
            case "error":
                return 500, {}
            case "delay":
                self._wait(min(behaviour.seconds, active.until - time.monotonic()))
                return allowed(uid)
            case "timeout":
                last = active.until - time.monotonic()
                if self._wait(min(behaviour.seconds + 1, last)) and last > behaviour.seconds:
                    return None
                return allowed(uid)

    def _wait(self, seconds: float) -> bool:
        """Whether it was waited; not if too many do, or we end."""
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return not self._ending.wait(max(0.0, seconds))
        finally:
            self._waiting.release()

    def _is_tried(self, request: Object, fault: str) -> bool:
        """Whether it is a dry run that measures this very fault."""
        if not request.get("dryRun"):
            return False
        if labels_of(cast(Object, request.get("object") or {})).get(TRY) == fault:
            return True
        return bool(self._own()) and _user(request) == self._own()

    def _is_ours(self, request: Object) -> bool:
        user = _user(request)
        return user == self._own() or user.startswith(self._accounts)

    def _drawn(self, active: Active, behaviour: Behaviour, *, counts: bool) -> bool:
        with self._lock:
            hit = active.chance.random() * 100 < behaviour.percent
            active.matched += counts
            active.hit += counts and hit
        return hit

    # ------------------------------------------------------------------ what is to be done

    def _active(self, phase: Phase, slot: str, fault: str) -> Active:
        key, now = (phase, slot, fault), time.monotonic()
        with self._lock:
            known = self._known.get(key)
            if known is not None and (known.behaviour is not None or now < known.until):
                return known
        found = self._read(phase, slot, fault)
        with self._lock:
            known = self._known.get(key)
            if known is not None and known.behaviour is not None:
                return known
            if len(self._known) > 1000:
                self._known = {k: v for k, v in self._known.items() if now < v.until}
            self._known[key] = found
            return found

    def _read(self, phase: Phase, slot: str, fault: str) -> Active:
        nothing = Active(phase, slot, fault, None, time.monotonic() + UNKNOWN)
        if slot not in webhooks.SLOTS:
            return nothing
        try:
            path = webhooks.kind_of(phase).path("", slot)
            answer = self._client.rest.request("GET", path)
            found = answer.json()
            if labels_of(found).get(OWNER) != fault:
                return nothing
            behaviour = Behaviour.from_json(annotations_of(found)[webhooks.BEHAVIOUR])
        except ApiError as error:
            if error.reason != "NotFound":
                _log.warning("the fault %s cannot be read: %s", fault, error.message)
            return nothing
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("the configuration %s is damaged: %s", slot, error)
            return nothing
        last = webhooks.left(found, webhooks.server_time(answer.headers))
        chance = random.Random(behaviour.seed or fault)
        uid = str(metadata(found)["uid"])
        return Active(phase, slot, fault, behaviour, time.monotonic() + last, uid, chance)

    # ------------------------------------------------------------------ counts

    def flush(self) -> None:
        """Write into each configuration how many requests matched and were hit; raises ApiError."""
        with self._lock:
            due = [
                (each, (each.matched, each.hit))
                for each in self._known.values()
                if each.behaviour is not None and each.written != (each.matched, each.hit)
            ]
        for each, counts in due:
            note = {webhooks.COUNTS + self._name: f"{counts[0]}/{counts[1]}"}
            change = {"metadata": {"uid": each.uid, "annotations": note}}
            try:
                self._client.patch(webhooks.kind_of(each.phase), each.slot, change)
            except ApiError as error:
                if error.reason not in ("NotFound", "Conflict"):  # it is gone, or another one
                    raise
            each.written = counts


def _user(request: Object) -> str:
    return str(cast(Object, request.get("userInfo") or {}).get("username") or "")


def review(uid: str, told: Object) -> Object:
    """An answer as the API server reads it."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": uid, **told},
    }


def allowed(uid: str, more: Object | None = None) -> Answer:
    """Yes."""
    return 200, review(uid, {"allowed": True, **(more or {})})


def denied(
    uid: str, code: int, reason: str, message: str, causes: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """No, and why."""
    status: Object = {"code": code, "message": message}
    if reason:
        status["reason"] = reason
    if causes:
        listed = [{"field": path, "message": told, "reason": "FieldValueInvalid"}
                  for path, told in causes]  # fmt: skip
        status["details"] = {"causes": listed}
    return 200, review(uid, {"allowed": False, "status": status})
