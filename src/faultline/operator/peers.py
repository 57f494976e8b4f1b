"""The other side of a conversation: pods that a selector finds, by their addresses. Pure.

A fault of the network is confined to these addresses: where its targets send, or with `direction:
in` where what they get comes from. Packets to a service have the address of the service when they
leave a pod, so those of services that lead to peers alone are among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from faultline.api.host import Desired
from faultline.api.selector import Selector
from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError, InvalidParameter, Refused, TargetGone, UnknownName
from faultline.injection import registry
from faultline.operator import matching, protection, resolving
from faultline.operator.cluster import Cluster, Pod, Service

NOBODY = "0.0.0.0/32"
"""An address that no packet is sent to: an empty list would be everybody."""
MOST = 1000
"""Addresses that every target is told."""
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Peers:
    """Who it is now."""

    addresses: tuple[str, ...]
    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    partly: tuple[str, ...] = ()  # services that lead to others as well
    spared: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def text(self) -> str:
        """The same in one sentence."""
        named = ", ".join(self.pods[:SHOWN])
        more = f" and {len(self.pods) - SHOWN} more" if len(self.pods) > SHOWN else ""
        behind = f", also behind {', '.join(self.services[:SHOWN])}" if self.services else ""
        without = f"; {len(self.spared)} spared" if self.spared else ""
        beside = f"; not through {', '.join(self.partly[:SHOWN])}" if self.partly else ""
        return f"{len(self.pods)} peers: {named}{more}{behind}{beside}{without}"


def check(spec: AimedFaultSpec) -> None:
    """Raise InvalidParameter where the peers of this fault can mean nothing."""
    if spec.peer is None:
        return
    if not _takes_addresses(spec.fault):
        raise InvalidParameter(
            "spec.peer", spec.fault, "a fault that takes addresses, such as network.partition",
            hint="those of the network that have the parameters source and destination",
        )  # fmt: skip
    if spec.params.get("look") == "denied":
        raise InvalidParameter(
            "spec.params.look", "denied", "another look with a peer",
            hint="its addresses cannot be changed while it is there",
        )  # fmt: skip
    side = side_of(spec)
    if spec.params.get(side):
        raise InvalidParameter(f"spec.params.{side}", spec.params[side], "none: the peer says it")


@cache
def _takes_addresses(fault: str) -> bool:
    from faultline.injection.packets import PacketParams

    try:
        return issubclass(registry.get(fault).params_type(), PacketParams)
    except UnknownName:
        return False


def side_of(spec: AimedFaultSpec) -> str:
    """Which parameter has the addresses of peers."""
    return "source" if spec.params.get("direction") == "in" else "destination"


def needs(spec: AimedFaultSpec, namespace: str) -> frozenset[str]:
    """What must be read besides pods: `services:NS`, and what their selector asks for."""
    if spec.peer is None:
        return frozenset()
    asked = spec.peer.pods
    found = resolving.needs(Selector(pods=asked, mode="all"), namespace)
    spaces = asked.namespaces or [namespace]
    if any("/" in each for each in asked.names) or any(set(s) & set("*?[") for s in spaces):
        spaces = [""]
    return found | {f"services:{space}" for space in spaces}


def find(spec: AimedFaultSpec, namespace: str, cluster: Cluster) -> Peers:
    """Who they are now, none if there are none; raises Refused if there are too many."""
    if spec.peer is None:
        return Peers(())
    family = spec.fault.partition(".")[0]
    spared: dict[str, str] = {}
    there: list[Pod] = []
    for pod in matching.pods(spec.peer.pods, namespace, cluster):
        # One that is being deleted goes on talking until it is gone.
        lives = replace(pod, deleting=False)
        why = protection.of_pod(lives, family, cluster, spec.allow, agent=False)
        if not why and matching.fits_any(spec.peer.exclude, pod.name, pod.path):
            why = "excluded"
        if why:
            spared[f"pod {pod.path}"] = why
        elif pod.addresses:
            there.append(pod)
    addresses = [address for pod in there for address in pod.addresses]
    whole, partly = _services(there, cluster)
    addresses += [address for each in whole for address in each.addresses]
    if len(addresses) > MOST:
        raise Refused(f"the peers have {len(addresses)} addresses, more than {MOST}",
                      hint="name fewer, or their network: params.destination")  # fmt: skip
    return Peers(
        tuple(sorted(set(addresses))), tuple(sorted(pod.path for pod in there)),
        tuple(each.path for each in whole), tuple(each.path for each in partly), spared,
    )  # fmt: skip


def _services(there: list[Pod], cluster: Cluster) -> tuple[list[Service], list[Service]]:
    """Services that lead to peers alone, and those that lead to others too."""
    mine = {pod.uid for pod in there}
    spaces = {pod.namespace for pod in there}
    whole: list[Service] = []
    partly: list[Service] = []
    for service in cluster.services:
        if service.namespace not in spaces or not service.selector or not service.addresses:
            continue
        behind = {
            pod.uid
            for pod in cluster.pods.values()
            if pod.namespace == service.namespace
            and pod.phase == "Running"
            and service.selector.items() <= dict(pod.labels).items()
        }
        if behind and behind <= mine:
            whole.append(service)
        elif behind & mine:
            partly.append(service)
    return sorted(whole, key=lambda s: s.path), sorted(partly, key=lambda s: s.path)


def begun(spec: AimedFaultSpec, namespace: str, cluster: Cluster) -> Peers | None:
    """Those at the beginning; raises what `check` and `find` raise, TargetGone for none."""
    if spec.peer is None:
        return None
    check(spec)
    found = find(spec, namespace, cluster)
    if not found.addresses:
        told = "; ".join(f"{words}: {why}" for words, why in list(found.spared.items())[:SHOWN])
        raise TargetGone("there are no peers: none of the pods fits", hint=told)
    return found


def params(spec: AimedFaultSpec, found: Peers) -> dict[str, Any]:
    """What each target is told."""
    if spec.peer is None:
        return spec.params
    return {**spec.params, side_of(spec): list(found.addresses) or [NOBODY]}


def later(spec: AimedFaultSpec, namespace: str, cluster: Cluster | None) -> Peers | None:
    """Who they are by now; None where that is no question, or cannot be told."""
    if spec.peer is None or cluster is None:
        return None
    try:
        return find(spec, namespace, cluster)
    except FaultlineError:  # there are too many by now: those that it has stand
        return None


def told(spec: AimedFaultSpec, found: Peers, entries: Mapping[str, Desired]) -> dict[str, Desired]:
    """What is wanted of a host, with the addresses that peers have now."""
    now = params(spec, found)
    made: dict[str, Desired] = {}
    for uid, each in entries.items():
        same = each.undo or each.params == now
        made[uid] = each if same else each.model_copy(update={"params": now})
    return made
