"""Many objects of one kind as one change: made from a template, found and taken by their label.

What a record has to keep is the template and a number, however many they are.
"""

from __future__ import annotations

import base64
import copy
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from faultline.errors import Refused
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults.notes import OWNER, labels_of, marked

if TYPE_CHECKING:
    from faultline.kubefaults.change import Change

_WRITERS = 8
_TRIES, _STEP = 80, 0.25


def make(client: Client, change: Change, fault: str) -> str:
    """Create those that are missing; raises ApiError, or Refused if a name is somebody else's."""
    there = {str(metadata(each)["name"]) for each in _listed(client, change, fault)}
    missing = [n for n in range(int(change.extra["count"])) if f"{change.name}-{n}" not in there]

    def one(number: int) -> None:
        made = _one(change, fault, number)
        try:
            client.create(change.kind, made, change.namespace)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            name = str(metadata(made)["name"])
            now = client.get(change.kind, name, change.namespace)
            if labels_of(now).get(OWNER) != fault:
                raise Refused(
                    f"{change.kind.kind} {name} exists already, and is not ours"
                ) from None

    with ThreadPoolExecutor(_WRITERS) as pool:
        for done in [pool.submit(one, number) for number in missing]:
            try:
                done.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return ""


def _one(change: Change, fault: str, number: int) -> Object:
    template = copy.deepcopy(change.object or {})
    made = marked(template, fault, f"{change.name}-{number}", change.extra.get("about"))
    fill = int(change.extra.get("fill") or 0)
    if fill:
        text = "x" * fill
        if change.kind.kind == "Secret":
            text = base64.b64encode(text.encode()).decode()
        made["data"] = {"clutter": text}
    return made


def _listed(client: Client, change: Change, fault: str) -> list[Object]:
    """What carries the label of the fault and a name of this change."""
    label = f"{OWNER}={fault}"
    found = client.every(change.kind, change.namespace, labels=label)
    return [each for each in found if str(metadata(each)["name"]).startswith(f"{change.name}-")]


def there(client: Client, change: Change, fault: str) -> int:
    """How many there are."""
    return len(_listed(client, change, fault))


def unmake(client: Client, change: Change, fault: str) -> str:
    """Delete all of them; what is left and why, empty if nothing is. Raises ApiError."""
    left: list[Object] = []
    for _ in range(_TRIES):
        left = _listed(client, change, fault)
        if not left:
            return ""
        going = all(metadata(each).get("deletionTimestamp") for each in left)
        if not going:
            _delete(client, change, fault, left)
        else:
            time.sleep(_STEP)
    what = change.kind.plural
    where = f"-n {change.namespace} -l {OWNER}={fault}"
    return f"{len(left)} {what} are still ending: kubectl get {what} {where}"


def _delete(client: Client, change: Change, fault: str, ours: list[Object]) -> None:
    """With one request where everything of that label is ours, else one by one, by uid."""
    label = f"{OWNER}={fault}"
    every = sum(1 for _ in client.every(change.kind, change.namespace, labels=label))
    if every == len(ours) and _at_once(client, change, label):
        return

    def one(each: Object) -> None:
        meta: Any = metadata(each)
        where = (change.kind, str(meta["name"]), change.namespace)
        try:
            client.delete(*where, uid=str(meta["uid"]), grace=0)
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise

    with ThreadPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(one, ours):
            pass


def _at_once(client: Client, change: Change, label: str) -> bool:
    """Whether this kind can be deleted as a collection, and was."""
    options = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
    path = change.kind.path(change.namespace)
    try:
        client.rest.request("DELETE", path, {"labelSelector": label}, options).json()
    except ApiError as error:
        if error.status in (403, 405):  # not of every kind, and a right of its own
            return False
        raise
    return True
