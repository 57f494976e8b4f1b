"""The webhook configurations of ours: their names, their marks, and when they are to be gone.

Ours are two that check what people ask for, and, of faults of admission, a fixed set of names: who
must be able to remove one needs no right to touch those of anybody else.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, items, metadata
from faultline.kubefaults.notes import OWNER, annotations_of, labels_of

GROUP = "admissionregistration.k8s.io/v1"
VALIDATING = Kind("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", GROUP, False)
MUTATING = Kind("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", GROUP, False)
KINDS = (VALIDATING, MUTATING)
NAME = "faultline"
"""That of the two that check what people ask for."""
SPACE = "faultline.dev/namespace"
"""The annotation of these two that says where the operator lives."""
SLOTS = tuple(f"faultline-fault-{number}" for number in range(1, 33))
"""The names of those that are faults."""
BEHAVIOUR = "faultline.dev/behaviour"
"""The annotation of a fault that says what is done to the requests that match, as JSON."""
LASTS = "faultline.dev/lasts"
"""The annotation with the seconds, counted from when the server made it, after which it is over."""
COUNTS = "counts.faultline.dev/"
"""What the names of the annotations begin with that say how many requests matched and were hit; the
name of the operator that counted follows."""
LABEL = "admission.faultline.dev/"
"""What the label of a namespace begins with that is hit; the uid of the fault follows."""
GRACE = 3.0
"""Seconds beyond its end in which whoever made it may remove it."""
SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""Namespaces of the cluster itself: never hit."""

Phase = Literal["validating", "mutating"]


def kind_of(phase: Phase) -> Kind:
    """The kind of configuration of a phase."""
    return VALIDATING if phase == "validating" else MUTATING


@dataclass(frozen=True, slots=True)
class Standing:
    """A configuration of a fault that is there."""

    kind: Kind
    name: str
    uid: str
    fault: str
    left: float  # seconds until it is over, by the server's clock; negative if it is

    @property
    def overdue(self) -> bool:
        return self.left < -GRACE


def standing(client: Client) -> Iterator[Standing]:
    """Every configuration of a fault; raises ApiError.

    When they are over is told by the server's clock alone: whose clock is wrong removes nothing too
    early, and nothing too late.
    """
    for kind in KINDS:
        answer = client.rest.request("GET", kind.path(), {"labelSelector": OWNER})
        now = server_time(answer.headers)
        for each in items(answer.json()):
            if metadata(each)["name"] in SLOTS:
                yield _standing(kind, each, now)


def _standing(kind: Kind, each: Object, now: float) -> Standing:
    meta = metadata(each)
    uid, fault = str(meta["uid"]), labels_of(each)[OWNER]
    return Standing(kind, str(meta["name"]), uid, fault, left(each, now))


def left(each: Object, now: float) -> float:
    """Seconds until a configuration is over; `now` by the clock of the server."""
    try:
        lasts = float(annotations_of(each).get(LASTS, ""))
    except ValueError:  # somebody has damaged it: then it is over
        lasts = 0.0
    made = str(metadata(each).get("creationTimestamp") or "1970-01-01T00:00:00Z")
    return calendar.timegm(time.strptime(made, "%Y-%m-%dT%H:%M:%SZ")) + lasts - now


def server_time(headers: Mapping[str, str]) -> float:
    """What the clock of the server shows, from its answer; ours where it does not say."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()


def remove(client: Client, found: Standing) -> bool:
    """Delete this very one; whether it was there. Raises ApiError."""
    try:
        client.delete(found.kind, found.name, uid=found.uid, grace=0)
    except ApiError as error:
        if error.reason in ("NotFound", "Conflict"):
            return False
        raise
    return True


def free(client: Client, kind: Kind) -> list[str]:
    """The names of faults that are not taken; raises ApiError."""
    taken = {str(metadata(each)["name"]) for each in client.every(kind)}
    return [name for name in SLOTS if name not in taken]


def ours(client: Client) -> tuple[Object, str] | None:
    """How the server reaches the webhook of the operator, and the namespace of that one; None where
    there is no webhook. Raises ApiError.
    """
    try:
        found = client.get(VALIDATING, NAME)
    except ApiError as error:
        if error.reason == "NotFound":
            return None
        raise
    hooks = cast("list[Any]", found.get("webhooks") or [])
    space = annotations_of(found).get(SPACE, "")
    if not hooks or not space or not hooks[0]["clientConfig"].get("caBundle"):
        return None  # it is only prepared: no operator has served it yet
    return hooks[0]["clientConfig"], space


def reached(client_config: Object, path: str) -> Object:
    """The same server by another path. The first step of the path is a secret, and stays."""
    made = dict(client_config)
    if "url" in made:
        scheme, _, rest = str(made["url"]).partition("://")
        host, secret = rest.split("/")[:2]
        made["url"] = f"{scheme}://{host}/{secret}{path}"
        return made
    service = dict(cast(Object, made["service"]))
    secret = str(service.get("path") or "/").split("/")[1]
    return {**made, "service": {**service, "path": f"/{secret}{path}"}}


def counted(each: Object) -> tuple[int, int]:
    """How many requests matched, and how many of them were hit, by all operators."""
    told = [
        text.partition("/")
        for name, text in annotations_of(each).items()
        if name.startswith(COUNTS)
    ]
    return sum(int(one[0]) for one in told), sum(int(one[2]) for one in told)
