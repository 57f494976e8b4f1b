"""What a fault would do in a cluster: its targets, and who suffers with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from faultline.api.targets import AimedFaultSpec
from faultline.kubeapi.model import Object, metadata
from faultline.operator import control_plane, peers, resolving
from faultline.operator.cluster import Pod
from faultline.operator.hosts import OBJECTS
from faultline.operator.looking import Look, covers
from faultline.operator.previewing import Preview, touched
from faultline.operator.protection import SHARED


@dataclass(frozen=True, slots=True)
class Target:
    """One target."""

    words: str
    uid: str = ""
    container: str = ""
    container_id: str = ""
    changes: tuple[tuple[str, str], ...] = ()  # of objects: what is done, and how it is undone
    why: str = ""  # it would be refused


@dataclass(frozen=True, slots=True)
class Node:
    """What one node has to bear."""

    name: str
    targets: tuple[Target, ...]
    works: bool
    why: str = ""  # it does not
    others: int = 0  # pods on it that are not hit
    share: tuple[str, ...] = ()  # what shares a network with a target, and is hit with it


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget that is touched."""

    path: str
    targets: int
    healthy: int
    needed: int
    allowed: int


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """The whole."""

    fault: str
    duration: str
    text: str
    nodes: tuple[Node, ...]
    rest: tuple[str, ...]
    spared: dict[str, str]
    budgets: tuple[Budget, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(
    spec: AimedFaultSpec, namespace: str, seed: str, seen: Look,
    preview: Callable[[resolving.Aim], Preview] = lambda _: Preview(),
) -> ClusterPlan:  # fmt: skip
    """What it would do now; `preview` looks up what is done to an object. Raises what
    `resolving.resolve` raises.
    """
    found = resolving.resolve(spec, namespace, seed, seen.cluster)
    others = peers.begun(spec, namespace, seen.cluster)
    by_node: dict[str, list[resolving.Aim]] = {}
    for aim in found.aims:
        by_node.setdefault(aim.host, []).append(aim)
    chosen = {aim.pod.uid for aim in found.aims if aim.pod is not None}
    pods = {pod.identity: pod for pod in seen.cluster.pods.values()}
    previews = {aim.key: preview(aim) for aim in by_node.get(OBJECTS, ())}
    nodes = tuple(
        _objects(aims, previews) if name == OBJECTS else _node(name, aims, spec, seen, chosen, pods)
        for name, aims in sorted(by_node.items())
    )
    away = [pods[uid] for uid in chosen if uid in pods]
    for aim in by_node.get(OBJECTS, ()):
        hit = touched(aim, previews[aim.key], seen.cluster)
        away += [seen.cluster.pods[uid] for uid in hit if uid in seen.cluster.pods]
    budgets = _budgets(away, seen.budgets)
    denied = {right for each in previews.values() for right in each.denied}
    return ClusterPlan(
        spec.fault, str(spec.duration),
        f"{found.text}; {others.text}" if others is not None else found.text, nodes,
        tuple(each.key for each in found.rest), dict(found.spared), budgets,
        (*_warnings(namespace, seen, nodes, budgets), *_lasting(found, spec, seen),
         *(f"you may not {each} yourself" for each in sorted(denied))),
    )  # fmt: skip


def _objects(aims: list[resolving.Aim], previews: Mapping[str, Preview]) -> Node:
    """What is done over the API server: no node has to bear it."""
    found = [(aim, previews[aim.key]) for aim in aims]
    targets = tuple(
        Target(aim.words, aim.key, changes=each.changes, why=each.why) for aim, each in found
    )
    why = next((f"{aim.words}: {each.why}" for aim, each in found if each.why), "")
    return Node(OBJECTS, targets, not why, why)


def _node(
    name: str, aims: list[resolving.Aim], spec: AimedFaultSpec, seen: Look, chosen: set[str],
    pods: dict[str, Pod],
) -> Node:  # fmt: skip
    targets = tuple(
        Target(aim.words, aim.pod.uid, aim.pod.container, aim.pod.container_id)
        if aim.pod is not None
        else Target(aim.words, aim.host)
        for aim in aims
    )
    host = seen.hosts[name]
    why = host.cannot.get(spec.fault)
    here = [pod for pod in seen.cluster.pods.values() if pod.node == name]
    share: list[str] = []
    named = spec.selector is not None and spec.selector.control_plane is not None
    if spec.fault.partition(".")[0] in SHARED and not named:  # else its own packets alone are hit
        share = _sharing(aims, here, pods)
    others = sum(pod.identity not in chosen for pod in here)
    return Node(name, targets, why is None, why or "", others, tuple(share))


def _sharing(aims: list[resolving.Aim], here: list[Pod], pods: dict[str, Pod]) -> list[str]:
    """Containers of the same pod; for the network of the node, everything that has no other."""
    found: list[str] = []
    of_node = False
    for aim in aims:
        pod = pods.get(aim.pod.uid) if aim.pod is not None else None
        of_node = of_node or pod is None or pod.host_network
        if pod is not None and aim.pod is not None:
            named = aim.pod.container
            others = [c.name for c in pod.containers if named and c.name != named]
            found += [f"{pod.path}/{name}" for name in others]
    if of_node:
        hit = {aim.pod.uid for aim in aims if aim.pod is not None}
        found += [pod.path for pod in here if pod.host_network and pod.identity not in hit]
    return found


def _budgets(pods: list[Pod], budgets: tuple[Object, ...]) -> tuple[Budget, ...]:
    made: list[Budget] = []
    for each in budgets:
        meta, status = metadata(each), cast(Object, each.get("status") or {})
        space = str(meta.get("namespace"))
        hit = [p for p in pods if p.namespace == space and covers(each, p.labels.items())]
        if hit:
            made.append(
                Budget(
                    f"{space}/{meta['name']}",
                    len(hit),
                    int(status.get("currentHealthy") or 0),
                    int(status.get("desiredHealthy") or 0),
                    int(status.get("disruptionsAllowed") or 0),
                )
            )
    return tuple(made)


def _lasting(found: resolving.Resolution, spec: AimedFaultSpec, seen: Look) -> list[str]:
    if any(control_plane.survives(spec, aim.pod, seen.cluster) for aim in found.aims):
        return ["it hits the API server or the way to it: nothing but its deadline may end it"]
    return []


def _warnings(
    namespace: str, seen: Look, nodes: tuple[Node, ...], budgets: tuple[Budget, ...]
) -> list[str]:
    told: list[str] = []
    if seen.halted is not None:
        told.append(f"everything is halted{f': {seen.halted}' if seen.halted else ''}: "
                    "it would be refused")  # fmt: skip
    if seen.allowed is False:
        told.append(f"you may not create Faults in {namespace}")
    told += [f"{node.name} cannot do it: {node.why}" for node in nodes if not node.works]
    told += [
        f"the budget {each.path} can bear {each.allowed} of {each.targets} targets being away"
        for each in budgets
        if each.targets > each.allowed
    ]
    return told
