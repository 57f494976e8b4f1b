"""A kubeconfig that somebody else wrote: how a server is reached, and nothing besides.

What lies in a Secret may come from anybody who may write it. It may hold an address, certificates,
a key and a token; it may name no program, no file of ours and no proxy.
https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any, cast

from faultline.errors import InvalidDocument
from faultline.kubeapi.model import Object
from faultline.kubeapi.plain import Access

_ELSEWHERE = ("exec", "auth-provider", "tokenFile", "client-certificate", "client-key",
              "certificate-authority", "proxy-url", "insecure-skip-tls-verify")  # fmt: skip


def access_of(text: str, context: str, folder: Path, what: str) -> Access:
    """How the server of a context is reached; certificates, key and token are put into `folder`.

    Raises InvalidDocument, which names `what` it is.
    """
    from yaml import YAMLError, safe_load

    try:
        told: Any = safe_load(text)
        chosen = context or str(told["current-context"])
        named = _named(told, "contexts", chosen, "context")
        cluster = _named(told, "clusters", str(named["cluster"]), "cluster")
        user = _named(told, "users", str(named["user"]), "user")
        server = str(cluster["server"])
    except (YAMLError, KeyError, TypeError) as error:
        raise InvalidDocument(f"{what} is no kubeconfig: {error}") from error
    for name in (*cluster, *user):
        if name in _ELSEWHERE and (cluster.get(name) or user.get(name)):
            raise InvalidDocument(
                f"{what} has {name}: a kubeconfig from a Secret holds all that it needs",
                hint="kubectl config view --flatten --minify",
            )
    if not server.startswith("https://"):
        raise InvalidDocument(f"{what} has the server {server!r}: https is needed")
    certificate = None
    if user.get("client-certificate-data") and user.get("client-key-data"):
        certificate = (
            _kept(folder / "user.crt", _decoded(user["client-certificate-data"], what)),
            _kept(folder / "user.key", _decoded(user["client-key-data"], what)),
        )
    authority, token = cluster.get("certificate-authority-data"), user.get("token")
    return Access(
        server.rstrip("/"),
        _kept(folder / "ca.crt", _decoded(authority, what)) if authority else None,
        _kept(folder / "token", str(token).encode()) if token else None,
        certificate,
        str(named.get("namespace") or "default"),
    )


def _named(told: Any, plural: str, name: str, part: str) -> Object:
    for each in told[plural]:
        if each["name"] == name:
            return cast(Object, each[part] or {})
    raise KeyError(f"no {part} {name!r}")


def _decoded(text: object, what: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidDocument(f"{what} has data that is no base64: {error}") from error


def _kept(path: Path, data: bytes) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    return path
