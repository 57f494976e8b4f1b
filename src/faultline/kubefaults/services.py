"""Faults of what stands between programs: services, ingresses, network policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused, Unsupported
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults.change import OWNER, Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import (
    FieldsFault,
    ObjectFault,
    View,
    field_of,
    fields_hold,
    words,
)

_NONE = "none"


class ServiceEmptyParams(Params):
    """Parameters of `service empty`: none."""


class ServiceEmpty(FieldsFault[ServiceEmptyParams]):
    """Let a service select no pod: who calls it is refused, while all copies are well."""

    id = "service.empty"
    kinds = ("Service",)
    does = "Adds a label to the selector of the service that no pod has."
    cannot = "Reach a service without a selector, or end connections that are open."
    measures = "Whether the service has no endpoints any more."
    restores = "The label is removed from the selector; the rest of it was never written."

    def fields(self, view: View, target: Object, params: ServiceEmptyParams) -> list[Field]:
        if not read(target, ("spec", "selector")):
            raise Refused(f"{words(target)} has no selector: its endpoints are somebody else's")
        return [field_of(target, ("spec", "selector", OWNER), view.fault)]

    def observe(
        self, view: View, target: Object, params: ServiceEmptyParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        asked, method = "no endpoints", "the Endpoints object of the service"
        kind = view.client.kind("endpoints")

        def ready() -> int:
            try:
                found = view.client.get(kind, change.name, change.namespace)
            except ApiError as error:
                if error.status == 404:
                    return 0
                raise
            subsets: Any = found.get("subsets") or []
            return sum(len(each.get("addresses") or []) for each in subsets)

        view.until(lambda: ready() == 0)
        if count := ready():
            reason = "the controller has not acted, or the selector was set back"
            return Reading(Effect.INEFFECTIVE, asked, f"{count} endpoints", method, reason)
        return Reading(Effect.EFFECTIVE, asked, "0 endpoints", method)


class IngressBackendParams(Params):
    """Parameters of `ingress backend`."""

    host: Annotated[str, Bounds(max_length=253)] = ""
    """The rule of which host; without it every rule."""
    service: Annotated[str, Bounds(min_length=1, max_length=63)] = "faultline-none"
    """The service that answers instead; by default one that does not exist."""


class IngressBackend(FieldsFault[IngressBackendParams]):
    """Send what comes in to another service, by default to none."""

    id = "ingress.backend"
    kinds = ("Ingress",)
    does = "Writes the name of the service in the rules of the ingress."
    cannot = "Make the ingress controller act at once: that is its own affair."
    measures = "Whether the rules are still so; what clients see is for a probe to tell."
    restores = "The rules as they were."

    def fields(self, view: View, target: Object, params: IngressBackendParams) -> list[Field]:
        rules: Any = read(target, ("spec", "rules")) or []
        wanted = [each for each in rules if params.host in ("", each.get("host", ""))]
        if not wanted:
            raise Refused(f"{words(target)} has no rule for {params.host or 'any host'}")
        changed = [_sent_to(each, params.service) if each in wanted else each for each in rules]
        return [Field(("spec", "rules"), rules, changed)]


def _sent_to(rule: Any, service: str) -> Any:
    http: Any = rule.get("http") or {"paths": []}
    paths: list[Any] = []
    for each in http["paths"]:
        backend: Any = each["backend"]
        if "service" in backend:
            backend = {**backend, "service": {**backend["service"], "name": service}}
        elif "serviceName" in backend:  # before networking.k8s.io/v1
            backend = {**backend, "serviceName": service}
        paths.append({**each, "backend": backend})
    return {**rule, "http": {**http, "paths": paths}}


class NetworkDenyParams(Params):
    """Parameters of `namespace deny`."""

    direction: Literal["in", "out", "both"] = "both"
    """What is denied: what comes in, what goes out, or both."""
    labels: dict[str, str] = Bounds(default_factory=dict[str, str])
    """To which pods of the namespace it applies; without it to all."""


class NetworkDeny(ObjectFault[NetworkDenyParams]):
    """Deny the pods of a namespace their network, by a NetworkPolicy.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """

    id = "namespace.deny"
    kinds = ("Namespace",)
    does = "Creates a NetworkPolicy that allows nothing."
    cannot = (
        "Deny where the network plug-in does not know policies, or what another policy allows: "
        "policies add up."
    )
    measures = "Not at all: whether packets are dropped is for a probe to tell."
    restores = "The policy is deleted."
    example: ClassVar = {"direction": "in"}

    def plan(self, view: View, target: Object, params: NetworkDenyParams) -> list[Change]:
        kinds = {"in": ["Ingress"], "out": ["Egress"], "both": ["Ingress", "Egress"]}
        made: Object = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"faultline-{view.fault}"},
            "spec": {
                "podSelector": {"matchLabels": params.labels},
                "policyTypes": kinds[params.direction],
            },
        }
        return [view.create(made, str(metadata(target)["name"]))]

    def observe(
        self, view: View, target: Object, params: NetworkDenyParams, changes: Sequence[Change]
    ) -> Reading:
        asked, method = f"nothing passes ({params.direction})", "the API server alone"
        if view.now(changes[0]) is None:
            return Reading(Effect.INEFFECTIVE, asked, "no policy", method, "somebody deleted it")
        reason = "the policy is there; whether the network obeys, a probe has to tell"
        return Reading.unmeasured(asked, method, reason)


class HpaBoundsParams(Params):
    """Parameters of `hpa bounds`."""

    low: Annotated[int, Between(1, 1000)] | None = None
    """The fewest copies that the autoscaler may choose; without it as it is."""
    high: Annotated[int, Between(1, 1000)] | None = None
    """The most that it may choose; without it as it is."""


class HpaBounds(FieldsFault[HpaBoundsParams]):
    """Squeeze what an autoscaler may choose: no growth under load, or no way back."""

    id = "hpa.bounds"
    kinds = ("HorizontalPodAutoscaler",)
    does = "Writes spec.minReplicas and spec.maxReplicas of the autoscaler."
    cannot = "Change the number of copies at once: the autoscaler does, at its next look."
    measures = "Whether the number that it wants lies within the bounds."
    restores = "The bounds as they were."
    example: ClassVar = {"high": "2"}

    def fields(self, view: View, target: Object, params: HpaBoundsParams) -> list[Field]:
        wanted = {"minReplicas": params.low, "maxReplicas": params.high}
        fields = [
            field_of(target, ("spec", name), value)
            for name, value in wanted.items()
            if value is not None
        ]
        low = params.low or read(target, ("spec", "minReplicas")) or 1
        if int(low) > int(params.high or read(target, ("spec", "maxReplicas"))):
            raise Refused(f"{words(target)}: the fewest would be more than the most")
        return fields

    def observe(
        self, view: View, target: Object, params: HpaBoundsParams, changes: Sequence[Change]
    ) -> Reading:
        held = fields_hold(view, changes)
        wanted = read(view.now(changes[0]) or {}, ("status", "desiredReplicas"))
        if held.effect is not Effect.EFFECTIVE or wanted is None:
            return held
        low, high = params.low or 0, params.high or 1000
        asked, method = held.asked, "status.desiredReplicas of the autoscaler"

        def within() -> bool:
            now = read(view.now(changes[0]) or {}, ("status", "desiredReplicas"))
            return low <= int(now or 0) <= high

        if view.until(within):
            return Reading(Effect.EFFECTIVE, asked, "it wants a number within them", method)
        return Reading(Effect.INEFFECTIVE, asked, f"it wants {wanted}", method, "it has not looked")


def need(view: View, kind: str, group: str) -> None:
    """Raise Unsupported where the server has no such kind."""
    try:
        view.client.kind(kind, group)
    except ApiError as error:
        raise Unsupported(f"this server has no {kind}.{group}") from error
