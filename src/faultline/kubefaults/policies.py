"""Network policies that deny: of Kubernetes itself, of Cilium and of Calico."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator
from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.errors import Refused, Unsupported
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults import policy
from faultline.kubefaults.change import Change
from faultline.kubefaults.model import ObjectFault, View

Direction = Literal["in", "out", "both"]
_ALL = {4: "0.0.0.0/0", 6: "::/0"}


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text, strict=False))


class NetworkDenyParams(Params):
    """Parameters of `namespace deny`."""

    direction: Direction = "both"
    """What is denied: what comes in, what goes out, or both."""
    labels: dict[str, str] = Bounds(default_factory=dict[str, str])
    """To which pods of the namespace it applies; without it to all."""
    networks: Annotated[list[Annotated[str, AfterValidator(_network)]], Bounds(max_length=100)] = (
        Bounds(default_factory=list[str])
    )
    """From and to which addresses or CIDR networks; without it from and to everywhere. All others
    are allowed then: refused where there are policies already, unless `opens-network` is allowed.
    """
    policy: Literal["kubernetes", "cilium", "calico"] = "kubernetes"
    """Whose policy: `kubernetes` adds up with others that allow; those of Cilium and Calico deny
    whatever others allow."""


class NetworkDeny(ObjectFault[NetworkDenyParams]):
    """Deny the pods of a namespace their network, by a policy. With `flap` it comes and goes.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    https://docs.cilium.io/en/stable/security/policy/language/#deny-policies
    https://docs.tigera.io/calico/latest/reference/resources/networkpolicy
    """

    id = "namespace.deny"
    kinds = ("Namespace",)
    does = (
        "Creates a NetworkPolicy that allows nothing, or nothing but other addresses; a "
        "CiliumNetworkPolicy with deny rules; or a NetworkPolicy of Calico that comes first."
    )
    cannot = (
        "Deny where the network plug-in does not know such policies; with `policy: kubernetes`, "
        "deny what another policy allows: policies add up."
    )
    measures = "Not at all: whether packets are dropped is for a probe to tell."
    restores = "The policy is deleted."
    example: ClassVar = {"direction": "in"}

    def plan(self, view: View, target: Object, params: NetworkDenyParams) -> list[Change]:
        policy.spared(target)
        where, name = str(metadata(target)["name"]), f"faultline-{view.fault}"
        match params.policy:
            case "cilium":
                made = _cilium(name, params)
            case "calico":
                made = _calico(view.client, name, params)
            case "kubernetes":
                made = _kubernetes(name, params)
        _served(view.client, made)
        if params.networks:
            _opens(view, made, where)
        return [view.create(made, where)]

    def observe(
        self, view: View, target: Object, params: NetworkDenyParams, changes: Sequence[Change]
    ) -> Reading:
        asked, method = f"nothing passes ({params.direction})", "the API server alone"
        if view.now(changes[0]) is None:
            return Reading(Effect.INEFFECTIVE, asked, "no policy", method, "somebody deleted it")
        reason = "the policy is there; whether the network obeys, a probe has to tell"
        return Reading.unmeasured(asked, method, reason)


def _served(client: Client, made: Object) -> None:
    """Raise Unsupported where the cluster has no such kind."""
    kind, version = str(made["kind"]), str(made["apiVersion"])
    if not any(each.kind == kind for each in client.served(version)):
        raise Unsupported(
            f"this cluster has no {kind} of {version}",
            hint="its network plug-in is another one: policy: kubernetes",
        )


def _opens(view: View, made: Object, where: str) -> None:
    """Raise Refused where there are policies already: one that denies some addresses has to allow
    all others, also those that these policies do not.
    """
    network = view.client.kind("networkpolicies", "networking.k8s.io")
    for kind in dict.fromkeys((view.kind_of(made), network)):
        for each in view.client.every(kind, where):
            name = metadata(each).get("name")
            view.guard("opens-network", f"the policy {name} of {where} would allow more than now")


def _sides(direction: Direction) -> tuple[bool, bool]:
    return direction != "out", direction != "in"


def _kubernetes(name: str, params: NetworkDenyParams) -> Object:
    inward, outward = _sides(params.direction)
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": params.labels},
        "policyTypes": [kind for kind, on in (("Ingress", inward), ("Egress", outward)) if on],
    }
    if params.networks:  # it can only allow: everything but these
        blocks = _all_but(params.networks)
        spec |= {"ingress": [{"from": blocks}]} if inward else {}
        spec |= {"egress": [{"to": blocks}]} if outward else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def _all_but(networks: list[str]) -> list[Object]:
    blocks: list[Object] = []
    for version, every in _ALL.items():
        but = [each for each in networks if ipaddress.ip_network(each).version == version]
        if every in but:
            continue
        blocks.append({"ipBlock": {"cidr": every, **({"except": but} if but else {})}})
    if not blocks:
        raise Refused("without networks everything is denied; these are all that there are")
    return blocks


def _cilium(name: str, params: NetworkDenyParams) -> Object:
    inward, outward = _sides(params.direction)
    spec: dict[str, Any] = {"endpointSelector": {"matchLabels": params.labels}}
    for on, rules, peer in ((inward, "ingressDeny", "from"), (outward, "egressDeny", "to")):
        if on and params.networks:
            spec[rules.removesuffix("Deny")] = [{f"{peer}Entities": ["all"]}]
            spec[rules] = [{f"{peer}CIDR": params.networks}]
        elif on:
            spec[rules] = [{f"{peer}Entities": ["all"]}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def _calico(client: Client, name: str, params: NetworkDenyParams) -> Object:
    """Of its API server where there is one, else as Calico itself keeps them."""
    inward, outward = _sides(params.direction)
    version = "projectcalico.org/v3"
    if not client.served(version):
        version, name = "crd.projectcalico.org/v1", f"default.{name}"
    conditions = [f"{key} == '{value}'" for key, value in sorted(params.labels.items())]
    spec: dict[str, Any] = {
        "order": 0,
        "selector": " && ".join(conditions) or "all()",
        "types": [kind for kind, on in (("Ingress", inward), ("Egress", outward)) if on],
    }
    for on, rules, peer in ((inward, "ingress", "source"), (outward, "egress", "destination")):
        if not on:
            continue
        deny: Object = {"action": "Deny"}
        if params.networks:
            spec[rules] = [{**deny, peer: {"nets": params.networks}}, {"action": "Allow"}]
        else:
            spec[rules] = [deny]
    return {
        "apiVersion": version,
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }
