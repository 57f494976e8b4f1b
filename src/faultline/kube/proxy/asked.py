"""What a client asks the API server: the path of a request as verb, resource and object. Pure.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
_TRUE = ("1", "true", "True")
_WRITES = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as the rights of Kubernetes see it."""

    verb: str  # one of VERBS; empty for what is no resource: discovery, health
    group: str = ""
    resource: str = ""  # the plural
    part: str = ""  # status, scale, log
    namespace: str = ""
    name: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All that a resource may be called: `pods`, `pods/status`, `deployments.apps`."""
        whole = f"{self.resource}.{self.group}" if self.group else self.resource
        tail = f"/{self.part}" if self.part else ""
        return (f"{self.resource}{tail}", f"{whole}{tail}")

    @property
    def collection(self) -> Asked:
        """The list that an object is one of."""
        return replace(self, verb="list", name="", part="")


def asked(method: str, path: str, query: Mapping[str, str]) -> Asked:
    """What a request means."""
    parts = [each for each in path.split("/") if each]
    if parts[:1] == ["api"] and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return Asked("")
    watching = query.get("watch") in _TRUE
    if rest[0] == "watch" and len(rest) > 1:  # deprecated, and still served
        watching, rest = True, rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource, name, part = (*rest, "", "")[:3]
    return Asked(_verb(method, name, watching=watching), group, resource, part, namespace, name)


def _verb(method: str, name: str, *, watching: bool) -> str:
    if method in _WRITES:
        return _WRITES[method]
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    if watching:
        return "watch"
    return "get" if name else "list"
