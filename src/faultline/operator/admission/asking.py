"""Whether somebody may do something: the API server is asked (SubjectAccessReview), and remembered
for a moment.
https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from faultline.errors import FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object
from faultline.kubefaults.rights import Right
from faultline.operator.admission.requesters import Requester

KEPT = {True: 10.0, False: 1.0}  # seconds for which a yes, or a no, is remembered
_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
SHOWN = 5  # rights that a sentence names
_MOST = 5000  # answers that are remembered


class Reviewer:
    """Asks. Safe in threads."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._lock = threading.Lock()
        self._known: dict[tuple[Any, ...], tuple[float, bool]] = {}

    def missing(self, who: Requester, rights: Iterable[Right]) -> list[Right]:
        """Which of these rights somebody does not have; raises ApiError."""
        return [each for each in dict.fromkeys(rights) if not self.allowed(who, each)]

    def allowed(self, who: Requester, right: Right) -> bool:
        extra = tuple(sorted((name, values) for name, values in who.extra.items()))
        key = (who.user, who.groups, who.uid, extra, right)
        now = self._clock()
        with self._lock:
            known = self._known.get(key)
            if known is not None and now - known[0] < KEPT[known[1]]:
                return known[1]
        told = self._client.rest.request("POST", _PATH, None, _review(who, right)).json()
        answer = bool(cast(Object, told.get("status") or {}).get("allowed"))
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = (now, answer)
        return answer


def _review(who: Requester, right: Right) -> Object:
    named = {
        "verb": right.verb, "resource": right.resource, "group": right.group,
        "subresource": right.part, "namespace": right.namespace, "name": right.name,
    }  # fmt: skip
    spec = {
        "user": who.user,
        "groups": list(who.groups),
        "uid": who.uid,
        "extra": {name: list(values) for name, values in who.extra.items()},
        "resourceAttributes": {name: value for name, value in named.items() if value},
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {name: value for name, value in spec.items() if value},
    }


def demanded(demands: Iterable[str], spaces: Iterable[str], *, nodes: bool) -> list[Right]:
    """What whoever asks for a fault of hosts must be allowed to do."""
    if nodes:
        return [Right.read("update nodes"), Right.read("delete nodes")]
    return [
        Right.read(each, "" if each.partition(" ")[2].startswith("nodes") else space)
        for space in spaces
        for each in demands
    ]


def refusal(who: Requester, what: str, missing: Sequence[Right]) -> str:
    """Who may not do what, in one sentence."""
    told = ", ".join(map(str, missing[:SHOWN]))
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    via = f" (who asked for {who.via})" if who.via else ""
    return f"{who.user}{via} may not {told}{more}: whoever asks for {what} must be allowed to"


class Denied(FaultlineError):
    """The answer no."""

    code = "denied"

    def __init__(
        self, status: int, reason: str, message: str, causes: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.causes = status, reason, tuple(causes)
