"""From a fault to its targets in a cluster: who fits, who is spared, who is hit. Pure.

A target is named by what stays its own: the uid of a pod, the name of a node.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faultline.api.drawing import how_many, ordered, picked
from faultline.api.host import ObjectTarget, PodTarget
from faultline.api.selector import PodSelector, Selector
from faultline.api.selector_cluster import ControlPlaneSelector, NodeSelector, ObjectSelector
from faultline.api.target import TargetSpec
from faultline.api.targets import AimedFaultSpec
from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.operator import control_plane, matching, plugins, protection
from faultline.operator.aiming import checked, is_of_objects, selector_of
from faultline.operator.cluster import Cluster, Node, Owner, Pod, Running
from faultline.operator.hosts import OBJECTS

SHOWN = 10  # targets that a sentence names
MOST = 500  # objects that one fault changes: all of it stands in one Host


@dataclass(frozen=True, slots=True)
class Aim:
    """One target."""

    host: str
    words: str
    pod: PodTarget | None = None
    target: TargetSpec = field(default_factory=TargetSpec)
    object: ObjectTarget | None = None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])  # besides those asked for
    allow: tuple[str, ...] = ()  # guards that naming it has overridden

    @property
    def key(self) -> str:
        """The uid of the pod or object, else the name of the node."""
        if self.object is not None:
            return self.object.uid
        return self.pod.uid if self.pod is not None else self.host

    @property
    def owner(self) -> str:
        """Who replaces it when it goes; empty if nobody does."""
        one = self.object or self.pod
        return f"{one.namespace} {one.owner}" if one is not None and one.owner else ""

    @property
    def identity(self) -> str:
        """What is its own for ever."""
        if self.object is not None:
            return self.object.uid
        more = f"/{json.dumps(self.params, sort_keys=True)}" if self.params else ""
        if self.pod is not None:
            return f"{self.pod.uid}/{self.pod.container}{more}"
        return f"{self.host}/{self.target.model_dump_json(exclude_defaults=True)}{more}"

    def uid(self, fault_uid: str) -> str:
        """The uid of a fault on it: the same whoever asks, however often."""
        drawn = hashlib.sha256(f"{fault_uid}\0{self.identity}".encode()).hexdigest()
        return f"{fault_uid[:8]}-{drawn[:20]}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the set: a pod with those of its containers that are meant, or a node."""

    key: str  # what chance goes by
    aims: tuple[Aim, ...]
    group: str = ""  # what it is spread over


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a selector means now."""

    chosen: tuple[Candidate, ...]
    rest: tuple[Candidate, ...] = ()
    spared: Mapping[str, str] = field(default_factory=dict[str, str])
    what: str = "pods"
    reserve: tuple[Candidate, ...] = ()  # the rest in the order in which it would be hit

    @property
    def aims(self) -> list[Aim]:
        return [aim for each in self.chosen for aim in each.aims]

    @property
    def text(self) -> str:
        """The same in one sentence."""
        named = ", ".join(each.key for each in self.chosen[:SHOWN])
        more = f" and {len(self.chosen) - SHOWN} more" if len(self.chosen) > SHOWN else ""
        without = f"; {len(self.spared)} spared" if self.spared else ""
        of = len(self.chosen) + len(self.rest)
        return f"{len(self.chosen)} of {of} {self.what}: {named}{more}{without}"


@dataclass(frozen=True, slots=True)
class Set:
    """What fits, before it is known how many of it are hit."""

    free: tuple[Candidate, ...]
    rest: tuple[Candidate, ...] = ()
    spared: Mapping[str, str] = field(default_factory=dict[str, str])
    what: str = "pods"


def needs(selector: Selector, namespace: str) -> frozenset[str]:
    """What must be read to resolve it, besides pods and nodes: `owners`, `endpoints:NS/NAME`,
    `lease:NS/NAME`, `things:KIND|VERSION|NAMESPACES`; raises UnknownName, InvalidParameter.
    """
    found: set[str] = set()
    if selector.control_plane is not None:
        found |= control_plane.needs(selector.control_plane)
    if selector.nodes is not None:
        found.add(f"addresses:{control_plane.API}")  # whether it is cut off
    criteria = selector.pods
    if selector.plugin is not None:
        plugin = plugins.load(selector.plugin, namespace)
        found |= {each for each in plugin.reads if each == "owners"}
        found |= {f"lease:{path}" for path in plugin.leases()}
        criteria = plugin.pods()
    owned = criteria is not None and criteria.owner is not None
    if owned or selector.spread == "owners" or selector.live != "freeze":
        found.add("owners")
    if criteria is not None and criteria.service:
        service = criteria.service
        found.add(f"endpoints:{service if '/' in service else f'{namespace}/{service}'}")
    if selector.objects is not None:
        found.add(f"things:{_things(selector.objects, namespace)}")
    return frozenset(found)


def _things(asked: ObjectSelector, namespace: str) -> str:
    """What is to be listed: the kind, its version, the namespaces unless they are patterns."""
    spaces = matching.spaces_of(asked, namespace)
    named = (
        spaces if asked.kind != "Namespace" and not any(set(s) & set("*?[") for s in spaces) else []
    )
    return f"{asked.kind}|{asked.api_version}|{','.join(named)}"


def resolve(
    spec: AimedFaultSpec, namespace: str, seed: str, cluster: Cluster, name: str = "fault"
) -> Resolution:
    """Who is hit.

    Raises TargetGone if nothing fits, Refused if too few do, InvalidParameter for what means
    nothing in a cluster, and what a plug-in raises.
    """
    selector = selector_of(spec)
    found = candidates(spec, selector, namespace, cluster)
    if not found.free:
        told = "; ".join(f"{words}: {why}" for words, why in list(found.spared.items())[:SHOWN])
        raise TargetGone(f"none of the {found.what} fits", hint=told)
    drawn = selector.seed or seed
    groups = {each.key: each.group for each in found.free} if selector.spread else None
    if is_of_objects(spec.fault) and count(selector, len(found.free), drawn) > MOST:
        raise Refused(f"{len(found.free)} objects are more than {MOST}", hint="several Faults")
    hit = picked([each.key for each in found.free], selector, drawn, name, groups)
    control_plane.check(selector, hit, spec.allow, cluster)
    order = {key: n for n, key in enumerate(ordered([c.key for c in found.free], drawn, groups))}
    by_order = sorted(found.free, key=lambda each: order[each.key])
    reserve = tuple(each for each in by_order if each.key not in hit)
    return Resolution(
        tuple(each for each in by_order if each.key in hit),
        (*reserve, *found.rest), found.spared, found.what, reserve,
    )  # fmt: skip


def count(selector: Selector, size: int, seed: str) -> int:
    """How many of a set of this size are meant."""
    return how_many(size, selector, selector.seed or seed)


def candidates(spec: AimedFaultSpec, selector: Selector, namespace: str, cluster: Cluster) -> Set:
    """All that may be hit, and what is not and why."""
    checked(spec, selector)
    if selector.nodes is not None:
        return _of_nodes(selector.nodes, spec, selector, cluster)
    if selector.objects is not None:
        return _of_things(selector.objects, spec, selector, namespace, cluster)
    if selector.pods is not None:
        fitting = matching.pods(selector.pods, namespace, cluster)
        return _of_pods(fitting, (), selector.pods, spec, selector, cluster)
    if selector.plugin is not None:
        plugin = plugins.load(selector.plugin, namespace)
        chosen = plugin.select(cluster)
        asked = plugin.pods() or PodSelector()
        made = _of_pods(chosen.pods, chosen.rest, asked, spec, selector, cluster)
        return Set(made.free, made.rest, made.spared, f"pods of {selector.plugin.name}")
    if selector.control_plane is not None:
        return _of_control_plane(selector.control_plane, spec, selector, cluster)
    raise InvalidParameter(
        f"spec.selector.{selector.kind}",
        None,
        "pods, nodes, objects, controlPlane or plugin: this is a cluster",
    )


def _of_pods(
    found: Sequence[Pod], rest: Sequence[Pod], asked: PodSelector, spec: AimedFaultSpec,
    selector: Selector, cluster: Cluster,
) -> Set:  # fmt: skip
    family, by_api = spec.fault.partition(".")[0], is_of_objects(spec.fault)
    free: list[Candidate] = []
    others: list[Candidate] = []
    spared: dict[str, str] = {}
    for pods, into in ((found, free), (rest, others)):
        for pod in pods:
            why = protection.of_pod(pod, family, cluster, spec.allow, agent=not by_api)
            why = why or ("excluded" if _excluded(selector, pod.name, pod.path) else "")
            owner = (cluster.controllers(pod) or [None])[-1]
            aims: tuple[Aim, ...] = ()
            if not why:
                made = (_object_aim(pod, owner),) if by_api else ()
                aims = made or _aims(pod, asked.container, family, owner)
            if aims:
                into.append(Candidate(pod.path, aims, _group(pod, owner, selector, cluster)))
            else:
                spared[f"pod {pod.path}"] = why or _without(pod, asked.container)
    return Set(tuple(free), tuple(others), spared)


def _without(pod: Pod, container: str) -> str:
    told = f": {pod.waiting}" if pod.waiting else ""
    return f"no container {f'{container} ' if container else ''}of it runs{told}"


def _aims(pod: Pod, container: str, family: str, owner: Owner | None) -> tuple[Aim, ...]:
    wanted = [
        each
        for each in pod.containers
        if not container or matching.fits_any([container], each.name)
    ]
    if family in protection.SHARED:
        wanted = wanted[:1]  # they share it: twice would be the double of what was asked for
    if family == "network" and wanted and not container:
        wanted = [Running("", "")]  # the pod as a whole: containers may be started anew in it
    several = len(pod.containers) > 1 and bool(wanted and wanted[0].name)
    return tuple(
        Aim(
            pod.node,
            f"pod {pod.path}{f'/{each.name}' if several else ''}",
            PodTarget(
                namespace=pod.namespace, name=pod.name, uid=pod.identity, container=each.name,
                container_id=each.id,
                owner=f"{owner.kind}/{owner.name}" if owner else "",
            ),
        )
        for each in wanted
    )  # fmt: skip


def _object_aim(pod: Pod, owner: Owner | None) -> Aim:
    made = ObjectTarget(
        api_version="v1", kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid,
        owner=f"{owner.kind}/{owner.name}" if owner else "",
    )  # fmt: skip
    return Aim(OBJECTS, f"pod {pod.path}", object=made)


def _of_things(
    asked: ObjectSelector, spec: AimedFaultSpec, selector: Selector, namespace: str,
    cluster: Cluster,
) -> Set:  # fmt: skip
    free: list[Candidate] = []
    spared: dict[str, str] = {}
    for each in matching.things(asked, namespace, cluster):
        words = f"{each.kind} {each.path}"
        why = protection.of_thing(each, cluster, spec.allow)
        why = why or ("excluded" if _excluded(selector, each.name, each.path) else "")
        if why:
            spared[words] = why
            continue
        owner = f"{each.owner.kind}/{each.owner.name}" if each.owner else ""
        made = ObjectTarget(api_version=each.version, kind=each.kind, namespace=each.namespace,
                            name=each.name, uid=each.uid, owner=owner)  # fmt: skip
        group = owner or each.path if selector.spread else ""
        free.append(Candidate(each.path, (Aim(OBJECTS, words, object=made),), group))
    return Set(tuple(free), (), spared, f"objects of the kind {asked.kind}")


def _group(pod: Pod, owner: Owner | None, selector: Selector, cluster: Cluster) -> str:
    match selector.spread:
        case "zones":
            return cluster.zone(pod.node)
        case "nodes":
            return pod.node
        case "owners":
            return f"{owner.kind}/{pod.namespace}/{owner.name}" if owner else pod.path
        case None:
            return ""


def _of_control_plane(
    asked: ControlPlaneSelector, spec: AimedFaultSpec, selector: Selector, cluster: Cluster
) -> Set:
    free: list[Candidate] = []
    spared: dict[str, str] = {}
    for spot in control_plane.spots(asked, spec, cluster):
        node, pod = spot.replica.node, spot.replica.pod
        names = (node, pod.name, pod.path) if pod is not None else (node,)
        why = spot.why or ("excluded" if _excluded(selector, *names) else "")
        if why:
            spared[f"{asked.component} {spot.replica.key}"] = why
            continue
        aims = tuple(
            Aim(node, hit.words, hit.pod, hit.target, params=hit.params,
                allow=control_plane.guards(asked))
            for hit in spot.hits
        )  # fmt: skip
        group = cluster.zone(node) if selector.spread == "zones" else node
        free.append(Candidate(spot.replica.key, aims, group))
    return Set(tuple(free), (), spared, f"replicas of {asked.component}")


def _of_nodes(
    asked: NodeSelector, spec: AimedFaultSpec, selector: Selector, cluster: Cluster
) -> Set:
    free: list[Candidate] = []
    spared: dict[str, str] = {}
    for node in matching.nodes(asked, cluster):
        by_api = is_of_objects(spec.fault)
        why = protection.of_node(node, cluster, spec.allow, agent=not by_api)
        why = why or ("excluded" if _excluded(selector, node.name) else "")
        if why:
            spared[f"node {node.name}"] = why
            continue
        aim = Aim(node.name, f"node {node.name}", None, spec.target)
        if by_api:
            made = ObjectTarget(api_version="v1", kind="Node", name=node.name, uid=node.uid)
            aim = Aim(OBJECTS, f"node {node.name}", object=made)
        free.append(Candidate(node.name, (aim,), _node_group(node, selector)))
    return Set(tuple(free), (), spared, "nodes")


def _node_group(node: Node, selector: Selector) -> str:
    return node.zone if selector.spread == "zones" else node.name


def _excluded(selector: Selector, *names: str) -> bool:
    return bool(selector.exclude) and matching.fits_any(selector.exclude, *names)
