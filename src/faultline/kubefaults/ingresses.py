"""Faults of ingresses."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Bounds
from pydantic import model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused, Unsupported
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import FieldsFault, View, field_of, words

NOBODY = "faultline-none"
"""A name that no service and no class of ingresses has."""


class IngressBackendParams(Params):
    """Parameters of `ingress backend`."""

    host: Annotated[str, Bounds(max_length=253)] = ""
    """The rule of which host; without it every rule."""
    service: Annotated[str, Bounds(min_length=1, max_length=63)] = NOBODY
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


class IngressRuleParams(Params):
    """Parameters of `ingress rule`."""

    host: Annotated[str, Bounds(max_length=253)] = ""
    """The rules of which host; without it of every host."""
    path: Annotated[str, Bounds(max_length=1000)] = ""
    """Which paths of theirs, exactly as they are written; without it all."""
    to_host: Annotated[str, Bounds(max_length=253)] | None = None
    """The host that these rules are about instead."""
    to_path: Annotated[str, Bounds(pattern=r"^/", max_length=1000)] | None = None
    """The path that they are about instead."""
    drop: bool = False
    """Whether they are taken out altogether: what comes for them finds nobody."""

    @model_validator(mode="after")
    def _one(self) -> IngressRuleParams:
        if self.drop == bool(self.to_host is not None or self.to_path is not None):
            raise ValueError("expected to_host, to_path or both, or drop alone")
        return self


class IngressRule(FieldsFault[IngressRuleParams]):
    """Tamper with what an ingress lets in: another host, another path, or a rule that is lost."""

    id = "ingress.rule"
    kinds = ("Ingress",)
    does = "Writes spec.rules of the ingress, with these rules changed or without them."
    cannot = "Make the ingress controller act at once: that is its own affair."
    measures = "Whether the rules are still so; what clients see is for a probe to tell."
    restores = "The rules as they were."
    example: ClassVar = {"to_path": "/faultline-none"}

    def fields(self, view: View, target: Object, params: IngressRuleParams) -> list[Field]:
        rules: Any = read(target, ("spec", "rules")) or []
        changed = [made for rule in rules for made in _ruled(rule, params)]
        if changed == rules:
            raise Refused(f"{words(target)} has no such rule, or it is so already")
        if not changed and read(target, ("spec", "defaultBackend")) is None:
            raise Refused(f"{words(target)} would be left without any rule, which no server takes")
        return [Field(("spec", "rules"), rules, changed or None)]


def _ruled(rule: Any, params: IngressRuleParams) -> list[Any]:
    """What becomes of one rule: itself, another one, or none."""
    if params.host not in ("", rule.get("host", "")):
        return [rule]
    http: Any = rule.get("http")
    paths: list[Any] = http["paths"] if http else []
    hit = [each for each in paths if params.path in ("", each.get("path", ""))]
    if params.path and not hit:
        return [rule]
    if params.drop:
        kept = [each for each in paths if each not in hit]
        return [{**rule, "http": {**http, "paths": kept}}] if kept else []
    made = dict(rule)
    if params.to_host is not None:
        made["host"] = params.to_host
    if params.to_path is not None and http:
        moved = [{**each, "path": params.to_path} if each in hit else each for each in paths]
        made["http"] = {**http, "paths": moved}
    return [made]


class IngressDetachParams(Params):
    """Parameters of `ingress detach`: none."""


class IngressDetach(FieldsFault[IngressDetachParams]):
    """Take an ingress from its controller: nobody serves it any more, and it looks well.

    https://kubernetes.io/docs/concepts/services-networking/ingress/#ingress-class
    """

    id = "ingress.detach"
    kinds = ("Ingress",)
    does = "Writes the name of a class that nobody serves, as field or as the older annotation."
    cannot = "Reach a controller that serves every ingress, whatever its class."
    measures = "Whether the class is still so; what clients see is for a probe to tell."
    restores = "The class as it was."

    def fields(self, view: View, target: Object, params: IngressDetachParams) -> list[Field]:
        if read(target, _CLASS) is not None:
            return [field_of(target, _CLASS, NOBODY)]
        return [field_of(target, ("spec", "ingressClassName"), NOBODY)]


_CLASS = ("metadata", "annotations", "kubernetes.io/ingress.class")


class IngressLimitParams(Params):
    """Parameters of `ingress limit`."""

    requests: Annotated[int, Between(1, 1_000_000)] | None = None
    """How many requests a second each client may make."""
    connections: Annotated[int, Between(1, 1_000_000)] | None = None
    """How many connections each client may have at a time; not of traefik."""
    controller: Literal["auto", "nginx", "haproxy", "haproxytech", "traefik"] = "auto"
    """Whose annotations: found by the class of the ingress. `haproxy` is that of the community,
    `haproxytech` that of HAProxy Technologies."""

    @model_validator(mode="after")
    def _something(self) -> IngressLimitParams:
        if self.requests is None and self.connections is None:
            raise ValueError("expected requests, connections or both")
        return self


class IngressLimit(FieldsFault[IngressLimitParams]):
    """Limit the rate of an ingress by the annotations of its controller: clients get 429 or 503.

    https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/
    https://haproxy-ingress.github.io/docs/configuration/keys/
    https://doc.traefik.io/traefik/middlewares/http/ratelimit/
    """

    id = "ingress.limit"
    kinds = ("Ingress",)
    does = (
        "Writes the annotations of the controller; for traefik it creates a Middleware that "
        "limits, and names it in the annotation, behind those that are there."
    )
    cannot = "Limit where the controller is another one, or ignores its annotations."
    measures = "Whether the annotations are still so; what clients see is for a probe to tell."
    restores = "The annotations as they were; the Middleware is deleted."
    example: ClassVar = {"requests": "1", "controller": "nginx"}

    def plan(self, view: View, target: Object, params: IngressLimitParams) -> list[Change]:
        changes = super().plan(view, target, params)
        if _controller(view, target, params.controller) == "traefik":
            meta = {"name": f"faultline-{view.fault}"}
            limit = {"average": params.requests, "burst": params.requests}
            made = {"apiVersion": _traefik(view), "kind": "Middleware", "metadata": meta}
            where = str(metadata(target)["namespace"])
            return [view.create({**made, "spec": {"rateLimit": limit}}, where), *changes]
        return changes

    def fields(self, view: View, target: Object, params: IngressLimitParams) -> list[Field]:
        controller = _controller(view, target, params.controller)
        if controller == "traefik":
            if params.requests is None or params.connections is not None:
                raise Refused("traefik is limited by requests alone")
            return [_middleware(view, target)]
        asked = (("requests", params.requests), ("connections", params.connections))
        found: list[Field] = []
        for name, value in asked:
            if value is None:
                continue
            keys = _LIMITS[controller].get(name)
            if keys is None:
                raise Refused(f"{controller} has no annotation that limits {name}")
            for key, fixed in keys.items():
                path = ("metadata", "annotations", key)
                found.append(field_of(target, path, fixed or str(value)))
        return found


_LIMITS: dict[str, dict[str, dict[str, str]]] = {
    "nginx": {
        "requests": {"nginx.ingress.kubernetes.io/limit-rps": ""},
        "connections": {"nginx.ingress.kubernetes.io/limit-connections": ""},
    },
    "haproxy": {
        "requests": {"haproxy-ingress.github.io/limit-rps": ""},
        "connections": {"haproxy-ingress.github.io/limit-connections": ""},
    },
    "haproxytech": {
        "requests": {
            "haproxy.org/rate-limit-requests": "",
            "haproxy.org/rate-limit-period": "1s",
        },
    },
}
"""By controller: the annotations, with their values where those are fixed."""
_CONTROLLERS = {
    "k8s.io/ingress-nginx": "nginx",
    "haproxy-ingress.github.io/controller": "haproxy",
    "haproxy.org/ingress-controller": "haproxytech",
    "traefik.io/ingress-controller": "traefik",
}


def _controller(view: View, target: Object, asked: str) -> str:
    """Whose ingress it is; raises Refused if that cannot be told."""
    if asked != "auto":
        return asked
    name = str(read(target, ("spec", "ingressClassName")) or read(target, _CLASS) or "")
    said = ""
    if name:
        try:
            known = view.client.get(view.client.kind("ingressclasses", "networking.k8s.io"), name)
            said = str(read(known, ("spec", "controller")) or "")
        except ApiError as error:
            if error.status not in (403, 404):
                raise
    for beginning, controller in _CONTROLLERS.items():
        if said.startswith(beginning) or (not said and name == controller):
            return controller
    raise Refused(
        f"{words(target)}: whose controller serves the class {name or '(none)'} is not known",
        hint="say so: controller: nginx, haproxy, haproxytech or traefik",
    )


_ROUTERS = "traefik.ingress.kubernetes.io/router.middlewares"


def _middleware(view: View, target: Object) -> Field:
    where = str(metadata(target)["namespace"])
    ours = f"{where}-faultline-{view.fault}@kubernetescrd"
    path = ("metadata", "annotations", _ROUTERS)
    there = str(read(target, path) or "")
    return field_of(target, path, f"{there},{ours}" if there else ours)


def _traefik(view: View) -> str:
    for version in ("traefik.io/v1alpha1", "traefik.containo.us/v1alpha1"):
        if any(each.kind == "Middleware" for each in view.client.served(version)):
            return version
    raise Unsupported("this cluster has no Middleware of traefik", hint="another controller?")
