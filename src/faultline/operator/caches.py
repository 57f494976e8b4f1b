"""All that is watched, and the cluster as it is seen through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from faultline.errors import FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.kubefaults.notes import NOTE, OWNER
from faultline.operator import conditions, living, peers, resolving
from faultline.operator.cluster import Cluster, node_of, pod_of
from faultline.operator.hosts import OBJECTS, HostObject
from faultline.operator.informer import Informer
from faultline.operator.leading import LEASES
from faultline.operator.model import FaultView
from faultline.operator.reading import Extras, Reader
from faultline.operator.reconcile import OVER
from faultline.operator.spaces import space_of
from faultline.operator.tally import HostView
from faultline.operator.views import AGENT, fault_of, halt_of, lease_of
from faultline.operator.writing import FAULTS, HALTS, HOSTS

PODS: Final = Kind("Pod", "pods", "v1")
NODES: Final = Kind("Node", "nodes", "v1", namespaced=False)
NAMESPACES: Final = Kind("Namespace", "namespaces", "v1", namespaced=False)
T = TypeVar("T")

Wake = Callable[[str, str], None]
"""What has changed, and its key: `fault`, `gone` and `share` with the uid of a fault; `host`,
`node`, `pods`, `halt`.
"""

Tell = Callable[[HostObject | None, HostObject | None], None]
"""What a Host said before, and what it says now."""


class Caches:
    """Copies of what the API server has."""

    def __init__(
        self, namespace: str, reader: Reader, wake: Wake, tell: Tell | None = None
    ) -> None:
        self._namespace, self._reader, self._wake = namespace, reader, wake
        self._tell = tell or _nothing_told
        self.faults = _informer(FAULTS, fault_of, self._fault)
        self.hosts = _informer(HOSTS, HostObject.of, self._host)
        self.halts = _informer(HALTS, halt_of, self._halt)
        self.pods = _informer(PODS, pod_of, self._pod)
        self.nodes = _informer(NODES, node_of, self._node)
        self.spaces = _informer(NAMESPACES, space_of, _nothing)
        self.leases = _informer(LEASES, lease_of, _nothing, namespace)
        self._all: list[Informer[Any]] = [
            self.faults, self.hosts, self.halts, self.pods, self.nodes, self.spaces, self.leases
        ]  # fmt: skip
        self.alive: dict[str, bool] = {}
        self.looked = False  # whether `alive` is of now: who leads looks all the time

    def start(self, connect: Callable[[], Client]) -> None:
        for each in self._all:
            each.start(connect())

    def stop(self) -> None:
        for each in self._all:
            each.stop()

    @property
    def synced(self) -> bool:
        """Whether everything has been listed once."""
        return all(each.synced.is_set() for each in self._all)

    @property
    def ready(self) -> bool:
        """Whether all that is asked of them can be answered: also who is alive."""
        return self.synced and self.looked

    @property
    def watching(self) -> bool:
        """Whether all of it is still kept up to date."""
        return all(each.alive for each in self._all)

    # ------------------------------------------------------------------ what has changed

    def _fault(self, key: str, old: Any, new: Any) -> None:
        if old is not None and (new is None or new.view.uid != old.view.uid):
            self._wake("gone", old.view.uid)
        if new is not None:
            self._wake("fault", new.view.uid)

    def _host(self, key: str, old: HostObject | None, new: HostObject | None) -> None:
        self._wake("host", key)
        self._tell(old, new)
        for owner in {owner for each in (old, new) if each for owner in each.view.parts}:
            self._wake("share", owner)

    def _halt(self, key: str, old: object, new: object) -> None:
        self._wake("halt", key)

    def _pod(self, key: str, old: object, new: object) -> None:
        self._wake("pods", "")

    def _node(self, key: str, old: object, new: object) -> None:
        if (old is None) != (new is None):
            self._wake("node", key)

    # ------------------------------------------------------------------ what is known

    def look_at_leases(self) -> None:
        """By our own clock; what is on hosts whose agents have come or gone is looked at."""
        now, hosts = time.monotonic(), self.hosts.all()
        for name, host in hosts.items():
            lease = self.leases.get(f"{self._namespace}/{AGENT}{name}")
            # Whoever looks at the Host of objects is the one that acts on it.
            alive = name == OBJECTS or (lease is not None and lease.alive(now))
            if self.alive.get(name) != alive:
                self.alive[name] = alive
                for owner in host.view.parts:
                    self._wake("share", owner)
        for name in self.alive.keys() - hosts.keys():
            del self.alive[name]
        self.looked = True

    def views(self) -> dict[str, HostView]:
        """All hosts."""
        nodes = self.nodes.all()
        return {
            name: replace(
                host.view,
                alive=self.alive.get(name, name == OBJECTS),
                gone=name != OBJECTS and name not in nodes,
            )
            for name, host in self.hosts.all().items()
        }

    def marked_pods(self) -> list[tuple[str, str]]:
        """Pods that a fault of objects has changed or made, by namespace and name."""
        return [
            (pod.namespace, pod.name)
            for pod in self.pods.all().values()
            if OWNER in pod.labels or any(name.startswith(NOTE) for name in pod.annotations)
        ]

    def halted(self) -> str | None:
        """Why everything is stopped; None if nothing is."""
        halts = sorted(self.halts.all().values(), key=lambda each: each.name)
        return "; ".join(each.spec.reason or each.name for each in halts) if halts else None

    def cluster(
        self, fault: FaultView, views: Mapping[str, HostView]
    ) -> tuple[Cluster | None, str]:
        """The cluster as this fault asks for it, and why it could not be read."""
        if fault.spec is None or not asks(fault):
            return None, ""
        extras, unready = Extras(), ""
        pods = {pod.uid: pod for pod in self.pods.all().values()}
        try:
            selector = resolving.selector_of(fault.spec)
            needs = resolving.needs(selector, fault.namespace)
            needs |= peers.needs(fault.spec, fault.namespace)
            extras = self._reader.read(needs, pods.values())
        except ApiError as error:
            unready = f"the cluster cannot be read: {error.message}"
        except FaultlineError:
            pass  # the reconciler says what is wrong with it
        agents = {name: host.alive for name, host in views.items() if not host.gone}
        protected = frozenset(name for name, each in self.spaces.all().items() if each.protected)
        made = Cluster(
            pods, self.nodes.all(), agents, protected, self._namespace,
            extras.owners, extras.endpoints, extras.leases, things=extras.things,
            services=extras.services,
        )  # fmt: skip
        components = {name: host.components for name, host in views.items()}
        return replace(made, serving=extras.serving, components=components), unready


def asks(fault: FaultView) -> bool:
    """Whether who is hit is still a question."""
    status = fault.status
    if fault.deleting or status.phase == "recovering":
        return False
    if status.phase in OVER:
        return fault.generation > status.observed_generation
    if status.phase == "pending" or not conditions.holds(status.conditions, "Resolved"):
        return True
    return living.is_live(fault.spec) or (fault.spec is not None and fault.spec.peer is not None)


def _nothing_told(old: HostObject | None, new: HostObject | None) -> None:
    """Nobody counts."""


def _nothing(key: str, old: object, new: object) -> None:
    """It is asked for when it is needed."""


def _informer(
    kind: Kind,
    make: Callable[[Object], T | None],
    changed: Callable[[str, T | None, T | None], None],
    namespace: str = "",
) -> Informer[T]:
    return Informer(kind, make, changed, namespace)
