"""What is known of a cluster: small facts about pods and nodes, made from objects of its API.

Only what a selector, a guard or a fault asks for is kept, so that ten thousand pods are a few
megabytes.
"""

from __future__ import annotations

import calendar
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from faultline.kubeapi.model import Object, metadata

PROTECT: Final = "faultline.dev/protect"
"""The annotation of a pod, node or namespace that is never hit."""
MIRROR: Final = "kubernetes.io/config.mirror"
ZONES: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
ROLES: Final = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
NOTHING: Final[dict[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of an object."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Running:
    """One container of a pod that runs now."""

    name: str
    id: str  # in its runtime, without the name of the runtime


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod."""

    namespace: str
    name: str
    uid: str
    node: str = ""
    phase: str = "Running"
    created: float = 0.0
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    owner: Owner | None = None
    containers: tuple[Running, ...] = ()  # in their order in the pod; init containers are not
    waiting: str = ""  # why one of its containers does not run: CrashLoopBackOff
    host_network: bool = False
    deleting: bool = False
    fields: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # what has no name above

    @property
    def path(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"

    @property
    def static(self) -> bool:
        """Whether the kubelet made it from a file, and the API server has only its picture."""
        return MIRROR in self.annotations

    @property
    def identity(self) -> str:
        """Its uid as the runtime on the node knows it."""
        return self.annotations.get(MIRROR, self.uid)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, of each family that it has."""
        told = self.fields.get("status.podIPs") or self.fields.get("status.podIP") or ""
        return tuple(each for each in told.split(",") if each)

    def field(self, name: str) -> str:
        """A field by its path in the document, as the API server compares it."""
        match name:
            case "metadata.name":
                return self.name
            case "metadata.namespace":
                return self.namespace
            case "spec.nodeName":
                return self.node
            case "spec.hostNetwork":
                return "true" if self.host_network else "false"
            case "status.phase":
                return self.phase
            case _:
                return self.fields.get(name, "")


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    protected: bool = False
    addresses: tuple[str, ...] = ()  # those inside the cluster

    @property
    def zone(self) -> str:
        """Where it stands; empty if it does not say."""
        return next((self.labels[each] for each in ZONES if each in self.labels), "")

    @property
    def control_plane(self) -> bool:
        return any(role in self.labels for role in ROLES)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of any other kind."""

    version: str  # of the API
    kind: str
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    owner: Owner | None = None
    deleting: bool = False

    @property
    def path(self) -> str:
        """NAMESPACE/NAME, or NAME."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def space(self) -> str:
        """The namespace that it belongs to: a Namespace to itself."""
        return self.name if self.kind == "Namespace" else self.namespace


@dataclass(frozen=True, slots=True)
class Serving:
    """Who answers for a service, also where that is no pod."""

    addresses: frozenset[str] = frozenset()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A service with an address of its own."""

    namespace: str
    name: str
    selector: Mapping[str, str]
    addresses: tuple[str, ...]

    @property
    def path(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """All that a selector may ask. What is read only where it is asked for may be empty."""

    pods: Mapping[str, Pod]  # by uid
    nodes: Mapping[str, Node]
    agents: Mapping[str, bool]  # nodes with a Host, and whether its agent answers
    protected: frozenset[str] = frozenset()  # namespaces
    ours: str = ""  # the namespace of the operator and its agents
    owners: Mapping[str, Owner] = field(default_factory=dict[str, Owner])  # of owners, by uid
    endpoints: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    leases: Mapping[str, str] = field(default_factory=dict[str, str])  # NAMESPACE/NAME: holder
    serving: Mapping[str, Serving] = field(default_factory=dict[str, Serving])
    components: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Programs of the control plane by the node that runs them."""
    things: tuple[Thing, ...] = ()  # of the kind that a selector asks for
    closed: Mapping[str, str] = field(default_factory=dict[str, str])  # namespaces, and why
    closed_nodes: str = ""  # why whoever asks may hit no node; empty if they may
    services: tuple[Service, ...] = ()  # of namespaces that peers are in

    def controllers(self, pod: Pod) -> list[Owner]:
        """To whom a pod belongs, its controller first, then the controller of that one."""
        found: list[Owner] = []
        here = pod.owner
        while here is not None and here not in found:
            found.append(here)
            here = self.owners.get(here.uid)
        return found

    def zone(self, node: str) -> str:
        found = self.nodes.get(node)
        return found.zone if found is not None else ""


# ---------------------------------------------------------------------- from objects


def pod_of(found: Object) -> Pod:
    """A pod of the API server."""
    meta, spec = metadata(found), _part(found, "spec")
    status = _part(found, "status")
    states = {
        str(each["name"]): each
        for each in cast("list[Object]", status.get("containerStatuses") or [])
    }
    running: list[Running] = []
    for each in cast("list[Object]", spec.get("containers") or []):
        state = states.get(str(each["name"]), {})
        if "running" in _part(state, "state"):
            known = str(state.get("containerID") or "").rpartition("//")[2]
            running.append(Running(sys.intern(str(each["name"])), known))
    reasons = [_part(_part(each, "state"), "waiting").get("reason") for each in states.values()]
    told = {
        f"{where}.{name}": sys.intern(str(part[name]))
        for where, part, names in (
            ("spec", spec, ("restartPolicy", "schedulerName", "serviceAccountName")),
            ("status", status, ("podIP", "nominatedNodeName")),
        )
        for name in names
        if part.get(name)
    }
    several = [str(each["ip"]) for each in cast("list[Object]", status.get("podIPs") or [])]
    if len(several) > 1:
        told["status.podIPs"] = ",".join(several)
    return Pod(
        namespace=sys.intern(str(meta["namespace"])),
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        node=sys.intern(str(spec.get("nodeName") or "")),
        phase=sys.intern(str(status.get("phase") or "Unknown")),
        created=moment(meta.get("creationTimestamp")),
        labels=_texts(meta.get("labels")),
        annotations=_texts(meta.get("annotations")),
        owner=owner_of(found),
        containers=tuple(running),
        waiting=next((str(each) for each in reasons if each), ""),
        host_network=bool(spec.get("hostNetwork")),
        deleting=bool(meta.get("deletionTimestamp")),
        fields=told,
    )


def service_of(found: Object) -> Service:
    """A service of the API server; without addresses where it has none of its own."""
    meta, spec = metadata(found), _part(found, "spec")
    told = cast("list[str]", spec.get("clusterIPs") or [spec.get("clusterIP")])
    more = cast("list[str]", spec.get("externalIPs") or [])
    addresses = tuple(each for each in (*told, *more) if each and each != "None")
    return Service(
        str(meta["namespace"]), str(meta["name"]), _texts(spec.get("selector")), addresses
    )


def node_of(found: Object) -> Node:
    """A node of the API server."""
    meta = metadata(found)
    told = cast("list[Object]", _part(found, "status").get("addresses") or [])
    inside = tuple(str(each["address"]) for each in told if each.get("type") == "InternalIP")
    return Node(
        str(meta["name"]), str(meta["uid"]), _texts(meta.get("labels")), is_protected(found), inside
    )


def thing_of(found: Object, version: str, kind: str) -> Thing:
    """Any object of the API server; those of a list do not name their kind."""
    meta = metadata(found)
    return Thing(
        version, kind, str(meta.get("namespace") or ""), str(meta["name"]), str(meta["uid"]),
        _texts(meta.get("labels")), _texts(meta.get("annotations")), owner_of(found),
        bool(meta.get("deletionTimestamp")),
    )  # fmt: skip


def owner_of(found: Object) -> Owner | None:
    """The controller of an object."""
    for each in cast("list[Object]", metadata(found).get("ownerReferences") or []):
        if each.get("controller"):
            return Owner(
                sys.intern(str(each["kind"])),
                sys.intern(str(each["name"])),
                sys.intern(str(each["uid"])),
            )
    return None


def is_protected(found: Object) -> bool:
    """Whether somebody has said that this is never to be hit."""
    return _texts(metadata(found).get("annotations")).get(PROTECT) == "true"


def moment(text: object) -> float:
    """A time of the API server as seconds since 1970; 0 if there is none."""
    if not isinstance(text, str) or not text:
        return 0.0
    whole, _, rest = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{rest or 0}")


def _part(found: Object, name: str) -> Object:
    return cast(Object, found.get(name) or {})


def _texts(found: Any) -> Mapping[str, str]:
    if not found:
        return NOTHING
    given = cast("dict[str, str]", found)
    # What kubectl notes for itself is the largest part of most objects.
    return {
        sys.intern(key): sys.intern(value)
        for key, value in given.items()
        if key != "kubectl.kubernetes.io/last-applied-configuration"
    }
