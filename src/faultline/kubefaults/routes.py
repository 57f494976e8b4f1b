"""Faults of routes of the Gateway API: weights, backends, time.

https://gateway-api.sigs.k8s.io/api-types/httproute/
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration
from faultline.errors import Refused
from faultline.kubeapi.model import Object
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.ingresses import NOBODY
from faultline.kubefaults.model import FieldsFault, View, words


class RouteWeightsParams(Params):
    """Parameters of `route weights`."""

    weights: Annotated[dict[str, Annotated[int, Between(0, 1_000_000)]], Bounds(max_length=16)]
    """The weight of each backend, by the name of its service: `{web: 0, canary: 100}`."""
    rule: Annotated[int, Between(0, 15)] | None = None
    """Which rule, counted from 0; without it every rule that has one of these backends."""


class RouteWeights(FieldsFault[RouteWeightsParams]):
    """Shift the weights of the backends of a route: a canary gets all, or a backend nothing.

    https://gateway-api.sigs.k8s.io/api-types/httproute/#backendrefs-optional
    """

    id = "route.weights"
    kinds = ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute")
    does = "Writes spec.rules of the route with other weights."
    cannot = "Make the gateway act at once: that is its own affair."
    measures = "Whether the rules are still so; what clients see is for a probe to tell."
    restores = "The rules as they were."
    example: ClassVar = {"weights": '{"shop": 0}'}

    def fields(self, view: View, target: Object, params: RouteWeightsParams) -> list[Field]:
        def weighed(rule: Any) -> Any:
            backends: list[Any] = [
                {**each, "weight": params.weights[each["name"]]}
                if each["name"] in params.weights
                else each
                for each in _refs(rule)
            ]
            return {**rule, "backendRefs": backends} if backends else rule

        names = {str(each["name"]) for rule in _rules(target) for each in _refs(rule)}
        if missing := sorted(params.weights.keys() - names):
            raise Refused(f"{words(target)} has no backend {', '.join(missing)}")
        return _changed(target, params.rule, weighed)


class RouteBackendParams(Params):
    """Parameters of `route backend`."""

    service: Annotated[str, Bounds(min_length=1, max_length=253)] = NOBODY
    """The service that answers instead; by default one that does not exist: clients get 500."""
    rule: Annotated[int, Between(0, 15)] | None = None
    """Which rule, counted from 0; without it every rule."""


class RouteBackend(FieldsFault[RouteBackendParams]):
    """Send what a route takes to another service, by default to none."""

    id = "route.backend"
    kinds = ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute")
    does = "Writes spec.rules of the route with another name in its backends."
    cannot = "Make the gateway act at once: that is its own affair."
    measures = "Whether the rules are still so; what clients see is for a probe to tell."
    restores = "The rules as they were."

    def fields(self, view: View, target: Object, params: RouteBackendParams) -> list[Field]:
        def sent(rule: Any) -> Any:
            named: list[Any] = [{**each, "name": params.service} for each in _refs(rule)]
            return {**rule, "backendRefs": named}

        return _changed(target, params.rule, sent)


class RouteTimeoutParams(Params):
    """Parameters of `route timeout`."""

    timeout: Annotated[Duration, Between("1ms", "1h")]
    """How long a request may take in all: clients get 504 for what takes longer."""
    rule: Annotated[int, Between(0, 15)] | None = None
    """Which rule, counted from 0; without it every rule."""


class RouteTimeout(FieldsFault[RouteTimeoutParams]):
    """Cut the time that a route gives to requests.

    https://gateway-api.sigs.k8s.io/api-types/httproute/#timeouts-optional
    """

    id = "route.timeout"
    kinds = ("HTTPRoute",)
    does = "Writes spec.rules of the route with another timeouts.request."
    cannot = "Cut where the gateway, or its version of the API, knows no timeouts."
    measures = "Whether the rules are still so; what clients see is for a probe to tell."
    restores = "The rules as they were."
    example: ClassVar = {"timeout": "10ms"}

    def fields(self, view: View, target: Object, params: RouteTimeoutParams) -> list[Field]:
        asked = f"{max(1, int(params.timeout) // 1_000_000)}ms"

        def cut(rule: Any) -> Any:
            present: Any = rule.get("timeouts") or {}
            return {**rule, "timeouts": {**present, "request": asked}}

        return _changed(target, params.rule, cut)


def _rules(target: Object) -> list[Any]:
    found: Any = read(target, ("spec", "rules")) or []
    return found


def _refs(rule: Any) -> list[Any]:
    found: Any = rule.get("backendRefs") or []
    return found


def _changed(target: Object, which: int | None, change: Any) -> list[Field]:
    rules = _rules(target)
    if not rules or (which is not None and which >= len(rules)):
        raise Refused(f"{words(target)} has {len(rules)} rules, counted from 0")
    made = [change(each) if which in (None, n) else each for n, each in enumerate(rules)]
    return [Field(("spec", "rules"), rules, made)]
