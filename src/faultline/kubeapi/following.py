"""One object of the API server, followed until something is so of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import cast

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, version_of

_LONGEST = 30.0  # seconds of one watch
_PAUSE = 0.5  # seconds before it is read again after a watch that broke


def read(client: Client, kind: Kind, name: str, namespace: str) -> Object | None:
    """One object, or None if there is none; raises ApiError."""
    try:
        return client.get(kind, name, namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def follow(
    client: Client,
    kind: Kind,
    name: str,
    namespace: str,
    holds: Callable[[Object], bool],
    seconds: float,
) -> Object | None:
    """The object as soon as that is so, or as it is after so many seconds; None when it is gone.

    The server tells what changes. Raises ApiError.
    """
    until = time.monotonic() + seconds
    while True:
        found = read(client, kind, name, namespace)
        left = until - time.monotonic()
        if found is None or left <= 0 or holds(found):
            return found
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version_of(found),
            "timeoutSeconds": str(math.ceil(min(left, _LONGEST))),
        }
        try:
            with client.rest.lines(kind.path(namespace), query, _LONGEST + 10) as lines:
                for line in lines:
                    told = cast(Object, json.loads(line))
                    if told["type"] == "ERROR":
                        break
                    if told["type"] == "DELETED":
                        return None
                    if holds(told["object"]):
                        return told["object"]
                    if time.monotonic() > until:
                        break
        except ApiError:  # the next reading says whether the server is there
            time.sleep(_PAUSE)
