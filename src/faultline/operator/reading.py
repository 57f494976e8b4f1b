"""What is read of a cluster only where a selector asks for it: owners, endpoints, Leases."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from faultline.errors import Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.operator.cluster import (
    Owner,
    Pod,
    Service,
    Serving,
    Thing,
    owner_of,
    service_of,
    thing_of,
)
from faultline.operator.leading import LEASES

ENDPOINTS = Kind("Endpoints", "endpoints", "v1")
SERVICES = Kind("Service", "services", "v1")
KEPT = 5.0
"""Seconds after which services are read again."""
OWNERS = {
    "ReplicaSet": Kind("ReplicaSet", "replicasets", "apps/v1"),
    "Job": Kind("Job", "jobs", "batch/v1"),
}
GROUPS = {"Ingress": "networking.k8s.io", "NetworkPolicy": "networking.k8s.io"}
"""Kinds that older servers have in two groups, and which one is meant."""
FEW = 5
"""Owners that are read one by one; of more the whole namespace is listed."""


@dataclass
class Extras:
    """What was read."""

    owners: dict[str, Owner] = field(default_factory=dict[str, Owner])
    endpoints: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    leases: dict[str, str] = field(default_factory=dict[str, str])
    serving: dict[str, Serving] = field(default_factory=dict[str, Serving])
    things: tuple[Thing, ...] = ()
    services: tuple[Service, ...] = ()


class Reader:
    """Reads it. Owners are kept: to whom a ReplicaSet belongs does not change."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._owners: dict[str, Owner | None] = {}
        self._services: dict[str, tuple[float, tuple[Service, ...]]] = {}

    def read(self, needs: Iterable[str], pods: Iterable[Pod]) -> Extras:
        """What is needed; raises ApiError."""
        extras = Extras()
        for need in needs:
            what, _, path = need.partition(":")
            space, _, name = path.partition("/")
            if what == "owners":
                self._read_owners(pods)
                extras.owners = {uid: own for uid, own in self._owners.items() if own is not None}
            elif what == "endpoints":
                extras.endpoints[path] = self._behind(space, name)
            elif what == "addresses":
                extras.serving[path] = self._serving(space, name)
            elif what == "lease":
                extras.leases[path] = self._holder(space, name)
            elif what == "things":
                extras.things = self._things(path)
            elif what == "services":
                extras.services += self._of_space(path)
        return extras

    def _of_space(self, space: str) -> tuple[Service, ...]:
        """Its services, read anew after a while: they seldom change."""
        now = time.monotonic()
        for name in [name for name, kept in self._services.items() if now - kept[0] > KEPT]:
            del self._services[name]
        if space not in self._services:
            found = tuple(map(service_of, self._client.every(SERVICES, space)))
            self._services[space] = (now, found)
        return self._services[space][1]

    def _things(self, asked: str) -> tuple[Thing, ...]:
        """All of a kind, given as KIND|VERSION|NAMESPACES; raises Unsupported."""
        name, version, spaces = asked.split("|")
        try:
            kind = self._kind(name, version)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            raise Unsupported(error.message) from error
        within = spaces.split(",") if spaces and kind.namespaced else [""]
        return tuple(
            thing_of(each, kind.version, kind.kind)
            for space in within
            for each in self._client.every(kind, space)
        )

    def _kind(self, name: str, version: str) -> Kind:
        if version:
            return self._client.exact(name, version)
        try:
            return self._client.kind(name, GROUPS.get(name, ""))
        except ApiError as error:
            if error.reason != "NotFound" or name not in GROUPS:
                raise
            return self._client.kind(name)  # of a server that is older than the group

    def _read_owners(self, pods: Iterable[Pod]) -> None:
        missing: dict[tuple[str, str], dict[str, str]] = {}
        seen: set[str] = set()
        for pod in pods:
            owner = pod.owner
            if owner is None or owner.kind not in OWNERS:
                continue
            seen.add(owner.uid)
            if owner.uid not in self._owners:
                missing.setdefault((pod.namespace, owner.kind), {})[owner.uid] = owner.name
        self._owners = {uid: own for uid, own in self._owners.items() if uid in seen}
        for (space, kind), wanted in missing.items():
            if len(wanted) > FEW:
                found = {
                    str(metadata(each)["uid"]): owner_of(each)
                    for each in self._client.every(OWNERS[kind], space)
                }
                self._owners |= {uid: found.get(uid) for uid in wanted}
                continue
            for uid, name in wanted.items():
                made = self._get(OWNERS[kind], space, name)
                same = made is not None and metadata(made).get("uid") == uid
                self._owners[uid] = owner_of(made) if made is not None and same else None

    def _behind(self, space: str, name: str) -> frozenset[str]:
        found = self._get(ENDPOINTS, space, name) or {}
        uids: set[str] = set()
        for subset in cast("list[Object]", found.get("subsets") or []):
            for part in ("addresses", "notReadyAddresses"):
                for each in cast("list[Object]", subset.get(part) or []):
                    target = cast(Object, each.get("targetRef") or {})
                    uids.add(str(target.get("uid")))
        return frozenset(uids)

    def _serving(self, space: str, name: str) -> Serving:
        found = self._get(ENDPOINTS, space, name) or {}
        addresses: set[str] = set()
        ports: set[int] = set()
        for subset in cast("list[Object]", found.get("subsets") or []):
            addresses |= {
                str(each["ip"]) for each in cast("list[Object]", subset.get("addresses") or [])
            }
            ports |= {int(each["port"]) for each in cast("list[Object]", subset.get("ports") or [])}
        return Serving(frozenset(addresses), tuple(sorted(ports)))

    def _holder(self, space: str, name: str) -> str:
        found = self._get(LEASES, space, name) or {}
        spec = cast(Object, found.get("spec") or {})
        return str(spec.get("holderIdentity") or "")

    def _get(self, kind: Kind, space: str, name: str) -> Object | None:
        try:
            return self._client.get(kind, name, space)
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise
