"""Faults of services, and of autoscalers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import ApiError, Object
from faultline.kubefaults.change import OWNER, Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import (
    FieldsFault,
    View,
    field_of,
    fields_hold,
    words,
)


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


class ServiceSelectorParams(Params):
    """Parameters of `service selector`."""

    labels: Annotated[dict[str, str], Bounds(min_length=1, max_length=20)]
    """Labels that pods must have besides, or instead where the selector names them already."""


class ServiceSelector(FieldsFault[ServiceSelectorParams]):
    """Let a service lead to other pods than those that it was made for."""

    id = "service.selector"
    kinds = ("Service",)
    does = "Writes these labels of spec.selector."
    cannot = "Reach a service without a selector, or end connections that are open."
    measures = "Whether the selector is still so; where it leads is for a probe to tell."
    restores = "Each label of the selector as it was; the rest of it was never written."
    example: ClassVar = {"labels": '{"app": "other"}'}

    def fields(self, view: View, target: Object, params: ServiceSelectorParams) -> list[Field]:
        if not read(target, ("spec", "selector")):
            raise Refused(f"{words(target)} has no selector: its endpoints are somebody else's")
        wanted = params.labels.items()
        return [field_of(target, ("spec", "selector", key), value) for key, value in wanted]


class ServicePortParams(Params):
    """Parameters of `service port`."""

    port: Annotated[int, Between(1, 65535)] | None = None
    """Which port of the service; without it the only one."""
    target: Annotated[int, Between(1, 65535)] = 1
    """The port of the pods that it leads to instead; by default one on which nobody listens."""


class ServicePort(FieldsFault[ServicePortParams]):
    """Let a service lead to the wrong port: who calls it is refused, and its pods are ready."""

    id = "service.port"
    kinds = ("Service",)
    does = "Writes the targetPort of one port of the service."
    cannot = "End connections that are open; change a service whose pods are reached directly."
    measures = "Whether the port is still so; what clients see is for a probe to tell."
    restores = "The port as it was."
    example: ClassVar = {"target": "1"}

    def fields(self, view: View, target: Object, params: ServicePortParams) -> list[Field]:
        ports: Any = read(target, ("spec", "ports")) or []
        hit = [each for each in ports if params.port in (None, each["port"])]
        if len(hit) != 1:
            have = ", ".join(str(each["port"]) for each in ports)
            raise Refused(f"{words(target)} has the ports {have}: name one of them")
        made = [{**each, "targetPort": params.target} if each is hit[0] else each for each in ports]
        return [Field(("spec", "ports"), ports, made)]


class EndpointsParams(Params):
    """Parameters of `service endpoints`."""

    addresses: Annotated[list[str], Bounds(max_length=100)] = Bounds(default_factory=list[str])
    """What the service leads to instead; without it to nothing."""


class ServiceEndpoints(FieldsFault[EndpointsParams]):
    """Tamper with the endpoints of a service: where it leads, whatever its selector says.

    Of a service with a selector the controller writes them anew; so does the fault while it lasts.
    """

    id = "service.endpoints"
    kinds = ("Endpoints",)
    insists = True
    does = "Writes the subsets of the Endpoints, again whenever they are set back."
    cannot = (
        "Reach a network that goes by EndpointSlices alone, of a service with a selector: they are "
        "somebody else's."
    )
    measures = "Whether the subsets are still so."
    restores = "The subsets as they were, unless somebody has written others since."
    example: ClassVar = {"addresses": "192.0.2.1"}

    def fields(self, view: View, target: Object, params: EndpointsParams) -> list[Field]:
        subsets: Any = target.get("subsets")
        if not subsets:
            raise Refused(f"{words(target)} leads to nothing already")
        if not params.addresses:
            return [Field(("subsets",), subsets, None)]
        new = [{"ip": each} for each in params.addresses]
        made = [
            {name: value for name, value in {**each, "addresses": new}.items()
             if name != "notReadyAddresses"}
            for each in subsets
        ]  # fmt: skip
        return [Field(("subsets",), subsets, made)]


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
