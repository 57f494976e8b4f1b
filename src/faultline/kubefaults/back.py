"""Deleting an object and making it anew: what comes back, and what cannot."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Literal

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults.notes import NOTE, annotations_of

if TYPE_CHECKING:
    from faultline.kubefaults.change import Change

LOST = "its uid, its status and what belonged to it do not come back"
NEVER = frozenset(
    {
        *("Namespace", "Node", "PersistentVolume", "PersistentVolumeClaim", "Pod", "Secret"),
        *("CustomResourceDefinition", "ServiceAccount", "APIService", "Event"),
    }
)
"""Kinds that are never put back: with them goes what no manifest holds, or theirs is a secret."""
_SERVERS = (
    *("uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)
_TRIES, _STEP = 40, 0.25


def manifest(target: Object) -> Object:
    """An object as somebody could have applied it: without what the server and we have written."""
    made = copy.deepcopy({name: value for name, value in target.items() if name != "status"})
    made["metadata"] = {k: v for k, v in metadata(made).items() if k not in _SERVERS}
    kept = {k: v for k, v in annotations_of(made).items() if not k.startswith(NOTE)}
    if "annotations" in metadata(made):
        made["metadata"]["annotations"] = kept
    return made


def delete(client: Client, change: Change) -> None:
    """Delete this very object; if it is one that is made anew, harmless if it is gone."""
    policy: Literal["Background", "Orphan"] = (
        "Orphan" if change.extra.get("dependents") == "keep" else "Background"
    )
    try:
        client.delete(
            change.kind, change.name, change.namespace,
            uid=change.uid, grace=change.grace, propagation=policy,
        )  # fmt: skip
    except ApiError as error:
        if error.status != 404 or change.object is None:
            raise


def put(client: Client, change: Change) -> tuple[bool, str]:
    """Make it anew unless it is there, or another one; whether that went well, and what to say."""
    for _ in range(_TRIES):
        now = found(client, change)
        if now is None:
            if _made(client, change):
                return True, f"it was made anew; {LOST}"
            continue
        meta = metadata(now)
        if str(meta.get("uid")) != change.uid:
            return True, "somebody has made another one"
        if not meta.get("deletionTimestamp"):
            return True, ""  # it was never deleted
        time.sleep(_STEP)  # its grace, or a finalizer
    where = f" -n {change.namespace}" if change.kind.namespaced else ""
    get = f"kubectl get {change.kind.plural} {change.name}{where} -o yaml"
    return False, f"{change.words} is still ending, so it cannot be made anew: {get}"


def _made(client: Client, change: Change) -> bool:
    """False if somebody was quicker."""
    made = copy.deepcopy(change.object or {})
    try:
        client.create(change.kind, made, change.namespace)
    except ApiError as error:
        if error.reason == "AlreadyExists":
            return False
        addresses = ("clusterIP", "clusterIPs")
        if error.reason != "Invalid" or "clusterIP" not in error.message:
            raise
        for name in addresses:  # somebody else has got its address meanwhile
            made["spec"].pop(name, None)
        client.create(change.kind, made, change.namespace)
    return True


def missing(client: Client, change: Change) -> bool:
    """Whether nothing of that name is there, or this one is ending."""
    now = found(client, change)
    if now is None:
        return True
    meta = metadata(now)
    return str(meta.get("uid")) == change.uid and bool(meta.get("deletionTimestamp"))


def found(client: Client, change: Change) -> Object | None:
    """The object of a change, whoever made it; None if there is none."""
    try:
        return client.get(change.kind, change.name, change.namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
