"""The components of the control plane as targets: where each replica is, what must be left. Pure.

A replica is a pod with a label that says so, else a process of that name which the agent of a node
has seen. What hits the API server or etcd cannot be called back while it lasts: it survives the
lease of the agents, and ends by its deadline alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from faultline.api.host import PodTarget
from faultline.api.selector import Selector
from faultline.api.selector_cluster import ControlPlaneSelector
from faultline.api.target import TargetSpec
from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidParameter, Protected
from faultline.operator import matching, protection
from faultline.operator.aiming import is_of_objects
from faultline.operator.cluster import Cluster, Node, Pod

ALLOW, SINGLE, QUORUM = "control-plane", "single-replica", "quorum"
API: Final = "default/kubernetes"
"""The Endpoints of the API server itself: one address for each replica."""
LEASES: Final = {
    "kube-scheduler": "kube-system/kube-scheduler",
    "kube-controller-manager": "kube-system/kube-controller-manager",
}
LABELS: Final = ("component", "k8s-app", "app.kubernetes.io/component", "app.kubernetes.io/name",
                 "app")  # fmt: skip
NAMES: Final = {
    "kube-apiserver": frozenset({"kube-apiserver", "openshift-kube-apiserver"}),
    "kube-scheduler": frozenset({"kube-scheduler", "openshift-kube-scheduler"}),
    "kube-controller-manager": frozenset({"kube-controller-manager"}),
    "etcd": frozenset({"etcd"}),
    "cluster-dns": frozenset({"kube-dns", "coredns", "dns-default"}),
    "kube-proxy": frozenset({"kube-proxy"}),
    "kubelet": frozenset[str](),
}
PROGRAMS: Final = {"cluster-dns": ("coredns", "kube-dns")}
PORTS: Final = {
    "kube-apiserver": (6443,), "etcd": (2379,), "kube-scheduler": (10259,),
    "kube-controller-manager": (10257,), "cluster-dns": (53,), "kube-proxy": (10256,),
    "kubelet": (10250,),
}  # fmt: skip
"""Where they listen as a rule; of the API server its Endpoints say it."""
ON_THE_WAY: Final = frozenset({"kube-apiserver", "etcd"})
"""Without these nobody can be told to undo anything."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One of them."""

    node: str
    pod: Pod | None = None  # None: a process of the node

    @property
    def key(self) -> str:
        return self.pod.path if self.pod is not None else self.node

    @property
    def on_host(self) -> bool:
        """Whether it shares the network of its node."""
        return self.pod is None or self.pod.host_network


@dataclass(frozen=True, slots=True)
class Hit:
    """What is done to one replica."""

    target: TargetSpec
    pod: PodTarget | None
    params: Mapping[str, Any]  # besides what was asked for
    words: str


@dataclass(frozen=True, slots=True)
class Spot:
    """A replica that may be hit, or why it is not."""

    replica: Replica
    hits: tuple[Hit, ...]
    why: str = ""


def needs(asked: ControlPlaneSelector) -> frozenset[str]:
    """What must be read: who serves, and who leads."""
    found = {f"addresses:{API}"}
    if asked.component in LEASES:
        found.add(f"lease:{LEASES[asked.component]}")
    return frozenset(found)


def replicas(component: str, cluster: Cluster) -> list[Replica]:
    """Where it runs: its pods, and its processes on nodes without one."""
    names = NAMES[component]
    pods = [
        pod
        for pod in cluster.pods.values()
        if is_system(pod.namespace) and pod.phase == "Running" and pod.node
        and any(pod.labels.get(label) in names for label in LABELS)
    ]  # fmt: skip
    found = [Replica(pod.node, pod) for pod in sorted(pods, key=lambda each: each.path)]
    with_pod = {each.node for each in found}
    programs = PROGRAMS.get(component, (component,))
    found += [
        Replica(node)
        for node, there in sorted(cluster.components.items())
        if node in cluster.nodes and node not in with_pod and any(p in there for p in programs)
    ]
    return found


def guards(asked: ControlPlaneSelector) -> tuple[str, ...]:
    """What naming a component overrides on its node: the guards of these programs."""
    return (asked.component, *PROGRAMS.get(asked.component, ()), "kube-system")


def is_system(namespace: str) -> bool:
    """Whether the cluster itself lives there."""
    return namespace in protection.SYSTEM or namespace.startswith("openshift-")


def spots(asked: ControlPlaneSelector, spec: AimedFaultSpec, cluster: Cluster) -> list[Spot]:
    """Each replica with what would be done to it; raises InvalidParameter."""
    family = spec.fault.partition(".")[0]
    if is_of_objects(spec.fault):
        path, told = "spec.selector.controlPlane", "a fault of machines; of pods as objects: pods"
        raise InvalidParameter(path, spec.fault, told)
    if asked.cut_from is not None and family != "network":
        path = "spec.selector.controlPlane.cutFrom"
        raise InvalidParameter(path, asked.cut_from, f"a fault of the network, not {spec.fault}")
    found: list[Spot] = []
    for each in replicas(asked.component, cluster):
        if asked.nodes and not matching.fits_any(asked.nodes, each.node):
            continue
        why = _why_not(each, family, spec.allow, cluster)
        hits = () if why else _hits(each, asked, family, cluster)
        if not why and not hits:
            why = f"no {asked.cut_from} runs that it could be cut from"
        found.append(Spot(each, hits, why))
    return found


def _why_not(each: Replica, family: str, allow: Collection[str], cluster: Cluster) -> str:
    if ALLOW not in allow:
        return f"it is part of the control plane: only with allow: [{ALLOW}]"
    # Its packets are told from those of its node; and it was named.
    more = {*allow, "host-network", "kube-system", "static-pods"}
    if each.pod is not None:
        return protection.of_pod(each.pod, family, cluster, more)
    return protection.of_node(cluster.nodes[each.node], cluster, more)


# ---------------------------------------------------------------------- what is done


def _hits(
    each: Replica, asked: ControlPlaneSelector, family: str, cluster: Cluster
) -> tuple[Hit, ...]:
    if asked.cut_from is None:
        return (_hit(each, asked, family, {}),)
    return tuple(
        _hit(each, asked, family, params)
        for params in _between(each, asked.component, asked.cut_from, cluster)
    )


def _hit(each: Replica, asked: ControlPlaneSelector, family: str, params: Mapping[str, Any]) -> Hit:
    cut = f", cut from {asked.cut_from}" if asked.cut_from else ""
    if each.pod is None:
        target = TargetSpec(process=asked.process or pattern(asked.component))
        return Hit(target, None, params, f"{asked.component} on {each.node}{cut}")
    pod, inside = each.pod, each.pod.containers
    programs = (asked.component, *PROGRAMS.get(asked.component, ()))
    one = next((c for c in inside if c.name in programs), inside[0])
    whole = family == "network" and not pod.host_network
    named = PodTarget(
        namespace=pod.namespace, name=pod.name, uid=pod.identity,
        container="" if whole else one.name, container_id="" if whole else one.id,
        owner=f"{pod.owner.kind}/{pod.owner.name}" if pod.owner else "",
    )  # fmt: skip
    return Hit(TargetSpec(), named, params, f"{asked.component} {pod.path} on {each.node}{cut}")


def pattern(component: str) -> str:
    """What its command line begins with."""
    names = "|".join(PROGRAMS.get(component, (component,)))
    return f"^([^ ]*/)?(hyperkube )?({names})( |$)"


def _between(each: Replica, component: str, other: str, cluster: Cluster) -> list[dict[str, Any]]:
    """The parameters that confine a fault of the network to what two components exchange: what goes
    over the node itself, and what goes to other nodes, since these are two devices.
    """
    port = "destination_port" if _is_client(component, other) else "source_port"
    served = other if port == "destination_port" else component
    ports = [str(number) for number in _ports(served, cluster)]
    others = replicas(other, cluster)
    made: list[dict[str, Any]] = []
    if each.on_host and any(one.on_host and one.node == each.node for one in others):
        made.append({port: ports, "interface": "lo"})
    away = [
        address
        for one in others
        if not (each.on_host and one.on_host and one.node == each.node)
        for address in _addresses(one, cluster)
    ]
    if away:
        more = [] if each.on_host or served != "kube-apiserver" else ["443"]  # by its service
        made.append({port: [*ports, *more], "destination": sorted(set(away))})
    return made


def _is_client(component: str, other: str) -> bool:
    """Whether it is the one that opens the connections."""
    return (
        other == "etcd"
        or (other == "kube-apiserver" and component != "etcd")
        or (component == "kube-apiserver" and other != "etcd")
    )


def _ports(component: str, cluster: Cluster) -> tuple[int, ...]:
    serving = cluster.serving.get(API)
    if component == "kube-apiserver" and serving is not None and serving.ports:
        return tuple(sorted({*serving.ports, *PORTS[component]}))
    return PORTS[component]


def _addresses(each: Replica, cluster: Cluster) -> Sequence[str]:
    if each.pod is not None:
        address = each.pod.field("status.podIP")
        return [address] if address else []
    node: Node | None = cluster.nodes.get(each.node)
    return node.addresses if node is not None else ()


# ---------------------------------------------------------------------- what must be left


def check(selector: Selector, chosen: Collection[str], allow: Collection[str],
          cluster: Cluster) -> None:  # fmt: skip
    """Raise Protected if nothing of it would be left, or no majority of etcd."""
    asked = selector.control_plane
    if asked is None or not chosen:
        return
    total = count(asked.component, cluster)
    left = total - len(chosen)
    if left < 1 and SINGLE not in allow:
        raise Protected(
            f"{asked.component} has {total} replica{'s' if total > 1 else ''}: none would be left",
            hint=f"if you mean it: allow: [{ALLOW}, {SINGLE}]",
        )
    if asked.component == "etcd" and 0 < left < total // 2 + 1 and QUORUM not in allow:
        raise Protected(
            f"{left} of {total} members of etcd would be left, which is no majority",
            hint=f"if you mean it: allow: [{ALLOW}, {QUORUM}]",
        )


def count(component: str, cluster: Cluster) -> int:
    """How many replicas there are, also such as nobody of ours can see."""
    seen = replicas(component, cluster)
    total = len(seen)
    if component == "kube-apiserver" and API in cluster.serving:
        total = max(total, len(cluster.serving[API].addresses))
    holder = cluster.leases.get(LEASES.get(component, ""), "").partition("_")[0]
    if holder and holder not in {n for e in seen for n in (e.node, e.pod.name if e.pod else "")}:
        total += 1  # who leads is none of those that were seen
    return total


# ---------------------------------------------------------------------- what cannot be called back


def survives(spec: AimedFaultSpec, aimed: PodTarget | None, cluster: Cluster | None) -> bool:
    """Whether a fault on a target must not end because the API server cannot be reached: that is
    what it does.
    """
    if cluster is None:
        return False
    pod = None
    if aimed is not None:
        if not is_system(aimed.namespace):
            return False
        path = f"{aimed.namespace}/{aimed.name}"
        pod = next((each for each in cluster.pods.values() if each.path == path), None)
        if pod is None:
            return False
    return is_on_the_way(spec, pod, cluster)


def is_on_the_way(spec: AimedFaultSpec, pod: Pod | None, cluster: Cluster) -> bool:
    """Whether a fault names the API server, its etcd, or the way to it."""
    if spec.selector is not None and spec.selector.control_plane is not None:
        return spec.selector.control_plane.component in ON_THE_WAY
    if pod is not None:
        names = {pod.labels.get(label, "") for label in LABELS}
        return is_system(pod.namespace) and any(names & NAMES[each] for each in ON_THE_WAY)
    return _names_them(spec) or _is_cut_off(spec, cluster)


def _names_them(spec: AimedFaultSpec) -> bool:
    """Whether a process of a node is meant that is one of them."""
    if spec.params.get("process") in ON_THE_WAY:
        return True
    for text in (spec.target.process, str(spec.params.get("pattern") or "")):
        if text and any(_found(text, each) for each in ON_THE_WAY):
            return True
    return False


def _found(text: str, program: str) -> bool:
    try:
        return re.search(text, f"/usr/local/bin/{program} --") is not None
    except re.error:
        return program in text


def _is_cut_off(spec: AimedFaultSpec, cluster: Cluster) -> bool:
    """Whether a fault of a node's network names the address of the API server."""
    serving = cluster.serving.get(API)
    if not spec.fault.startswith("network.") or serving is None:
        return False
    asked: Any = spec.params.get("destination") or ()
    named = {asked} if isinstance(asked, str) else {str(each) for each in asked}
    return bool(named & serving.addresses)
