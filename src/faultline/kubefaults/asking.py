"""The two configurations by which the API server asks us about what people ask for.

`Fail` is only for what begins something: then nothing begins that nobody has judged. What is
`Ignore` is as safe, since what was not judged carries no signature and is refused by the operator;
and a halt, or the end of a fault, must never wait for a webhook.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object
from faultline.kubefaults.webhooks import GROUP, KINDS, NAME, SPACE, reached

HERE = "faultline.dev"
SECONDS = 10
_STRICT = ("faults", "runs", "schedules", "traffics")
_LOOSE = ("experiments", "probes", "halts", "calendars")


def configurations(
    namespace: str, client_config: Object | None = None, bundle: bytes = b""
) -> list[Object]:
    """Both. Without a bundle they are only prepared: nobody is reached until an operator has put in
    how, and what is `Fail` is refused so long.
    """
    made: list[Object] = []
    config = client_config or {
        "service": {
            "namespace": namespace,
            "name": "faultline-webhook",
            "port": 443,
            "path": "/unset",
        }
    }
    for kind, path in zip(KINDS, ("/check", "/ask"), strict=True):
        where = reached(config, path)
        if bundle:
            where["caBundle"] = base64.b64encode(bundle).decode()
        mutating = kind.kind.startswith("Mutating")
        hooks = [
            _hook("begins", _STRICT, ("CREATE",), "Fail", where, mutating=mutating),
            _hook("changes", _STRICT, ("UPDATE",), "Ignore", where, mutating=mutating),
            _hook("says", _LOOSE, ("CREATE", "UPDATE"), "Ignore", where, mutating=mutating),
        ]
        made.append(
            {
                "apiVersion": GROUP,
                "kind": kind.kind,
                "metadata": {
                    "name": NAME,
                    "labels": {"app.kubernetes.io/part-of": "faultline"},
                    "annotations": {SPACE: namespace},
                },
                "webhooks": hooks,
            }
        )
    return made


def _hook(
    name: str, resources: Sequence[str], operations: Sequence[str], policy: str, where: Object,
    *, mutating: bool,
) -> Object:  # fmt: skip
    rule = {
        "apiGroups": [HERE],
        "apiVersions": ["*"],
        "resources": list(resources),
        "operations": list(operations),
        "scope": "*",
    }
    return {
        "name": f"{name}.{'ask' if mutating else 'check'}.{HERE}",
        "clientConfig": where,
        "rules": [rule],
        "failurePolicy": policy,
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": SECONDS,
        "admissionReviewVersions": ["v1"],
        # Somebody else's webhook may change it behind ours: then it is signed again.
        **({"reinvocationPolicy": "IfNeeded"} if mutating else {}),
    }


def install(client: Client, namespace: str, client_config: Object, bundle: bytes) -> None:
    """Have the API server ask us, with what it is to trust; raises ApiError."""
    for kind, made in zip(KINDS, configurations(namespace, client_config, bundle), strict=True):
        client.patch(kind, NAME, made, "apply", force=True)


def noted(notes: dict[str, str], name: str, value: str | None) -> Object:
    """The part of an answer that gives an annotation this value; None: it is not there."""
    if notes.get(name) == value:
        return {}
    path = f"/metadata/annotations/{name.replace('~', '~0').replace('/', '~1')}"
    edits: list[Any] = []
    if value is None:
        edits.append({"op": "remove", "path": path})
    elif notes:
        edits.append({"op": "add", "path": path, "value": value})
    else:
        edits.append({"op": "add", "path": "/metadata/annotations", "value": {name: value}})
    return {
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(edits).encode()).decode(),
    }
