"""Faults of services, and of autoscalers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

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
