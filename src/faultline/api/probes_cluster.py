"""Probes of clusters, of alerts, of what people report, and of programs of somebody else."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from faultline.api.expectation import Unit
from faultline.api.model import NodeName
from faultline.api.probe_base import Pattern, ProbeBase, Url
from faultline.api.probes_net import JsonPath
from faultline.api.quantities import Between, Duration, text
from faultline.api.secret import SecretRef

_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*')

Matching = tuple[str, str, str]
"""A label, `=`, `!=`, `=~` or `!~`, and what it is compared with."""


def matching(text: str) -> Matching:
    """A matcher taken apart; raises ValueError."""
    found = _MATCHER.fullmatch(text)
    if not found:
        raise ValueError('expected a matcher as Alertmanager has it: severity=~"crit.*"')
    name, operator, value = found.groups()
    value = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], value)
    if operator in ("=~", "!~"):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"expected a regular expression; {error}") from error
    return name, operator, value


def _matcher(text: str) -> str:
    matching(text)
    return text


def _as_kubectl(given: Any) -> Any:
    """A path as kubectl takes it, as the library does: from the root, without braces."""
    if not isinstance(given, str) or not given:
        return given
    path = given[1:-1] if given.startswith("{") and given.endswith("}") else given
    return path if path.startswith("$") else f"${'' if path.startswith(('.', '[')) else '.'}{path}"


KubePath = Annotated[JsonPath, BeforeValidator(_as_kubectl)]


class KubernetesProbe(ProbeBase):
    """Objects of a Kubernetes cluster, of any kind that its API server knows; `result` has count
    and names.

    Without anything to expect of it, all that are selected must be ready or fulfil the condition.
    Without `kubeconfig` and outside of a cluster the file is the one that kubectl takes. An API
    server that does not answer says nothing about the objects: the probe could not measure.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["kubernetes"]
    measure: Literal["ready", "count", "restarts", "events", "condition", "jsonPath"] = "ready"
    """`ready`: pods and other objects whose condition Ready holds, and ready replicas of workloads;
    `count`: objects that there are; `restarts`: of containers, since the first measurement;
    `events`: that tell of the objects, since the first measurement; `condition`: objects whose
    condition holds; `jsonPath`: a value in the objects."""
    kind: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9.-]*$")] = "Pod"
    """The kind of object: its kind, its plural or its short name, with the group if two have the
    same: `Deployment`, `deploy`, `widgets.example.org`."""
    namespace: Annotated[str, Field(pattern=r"^(\*|[a-z0-9]([a-z0-9-]*[a-z0-9])?)?$")] = ""
    """The namespace; without it that of the context, `*` for all."""
    object: Annotated[str, Field(pattern=r"^[a-zA-Z0-9.:_-]*$")] = ""
    """The name of one object. If it is not there, the probe fails."""
    selector: str = ""
    """Labels: `app=shop,tier in (web, api)`."""
    field_selector: str = ""
    """Fields: `spec.nodeName=node-1`."""
    min_seconds: Annotated[Duration, Between("0s", "24h")] = text("0s")
    """For how long Ready or the condition must have held to count. Of workloads, see their own
    minReadySeconds."""
    share: bool = False
    """For ready and condition: the value is the share of all that are wanted (`100%`)."""
    condition: Annotated[str, Field(pattern=r"^[A-Za-z0-9./-]+$")] = "Ready"
    """The type of the condition."""
    status: Literal["True", "False", "Unknown"] = "True"
    """What the condition must be."""
    json_path: KubePath = ""
    """Where the value stands in an object, as for kubectl: `{.status.readyReplicas}`; a name with
    dots in quotes: `{.metadata.annotations."example.org/size"}`. Quantities (`250m`, `1Gi`) are
    numbers; what is text stands in `result.values` alone."""
    reduce: Literal["only", "min", "max", "mean", "sum"] = "only"
    """How several values become one; `only` refuses more than one."""
    event_type: Literal["Warning", "Normal", "any"] = "Warning"
    """Which events count."""
    pattern: Pattern = ""
    """What `REASON: MESSAGE` of an event must contain to count."""
    kubeconfig: str = ""
    """The file that says how the cluster is reached."""
    context: str = ""
    """Which context of that file; without it the current one."""

    def value_unit(self) -> Unit:
        return "ratio" if self.share else ""

    @model_validator(mode="after")
    def _fits_its_measure(self) -> KubernetesProbe:
        if self.object and (self.selector or self.field_selector):
            raise ValueError("expected object or selectors, not both")
        if (self.measure == "jsonPath") != bool(self.json_path):
            raise ValueError("expected jsonPath with `measure: jsonPath`, and nowhere else")
        if self.measure not in ("ready", "condition") and (self.share or self.min_seconds):
            raise ValueError("expected share and minSeconds only to measure ready or a condition")
        if self.measure == "restarts" and self.kind.lower() not in ("pod", "pods", "po"):
            raise ValueError("expected kind Pod: only the containers of pods are started again")
        if self.object and self.namespace == "*":
            raise ValueError("expected one namespace for one object")
        return self


class AlertmanagerProbe(ProbeBase):
    """Alerts that fire. Its value is how many, or for how long; `result` has firing, silenced,
    inhibited, pending, since and alerts. The time of its samples is when the alert began to fire.

    It holds while an alert fires (`state`), which makes it the discovery probe of an experiment.
    With `expect` the value alone decides.
    """

    figure: ClassVar[str] = "alerts"

    type: Literal["alertmanager"]
    url: Url
    """Where Alertmanager is, or Prometheus, with the path that stands before `/api`."""
    source: Literal["alertmanager", "prometheus"] = "alertmanager"
    """Whom to ask. Prometheus without any Alertmanager knows alerts too, and none is silenced."""
    matchers: Annotated[list[Annotated[str, AfterValidator(_matcher)]], Field(min_length=1)]
    """Labels that an alert must have, all of them: `alertname="SlowAnswers"`, `pod=~"shop-.*"`."""
    state: Literal["firing", "resolved", "any"] | None = None
    """When it holds: while at least one fires, or while none does. Without it `firing`, or `any`
    if there is something to expect of the value."""
    measure: Literal["firing", "seconds"] = "firing"
    """The value: how many fire, or since how long the first of them (0 while none does)."""
    pending: bool = False
    """Of Prometheus: whether alerts that wait for their `for` count too."""
    silenced: bool = False
    """Whether alerts that somebody has silenced count: nobody is told of them."""
    inhibited: bool = False
    """Whether alerts that another one inhibits count: nobody is told of them."""
    headers: dict[str, str | SecretRef] = Field(default_factory=dict[str, str | SecretRef])
    """Headers to send; a secret by reference."""

    def value_unit(self) -> Unit:
        return "s" if self.measure == "seconds" else ""


class WebhookProbe(ProbeBase):
    """What a person or an on-call tool reports to the run (`faultline signal RUN found`). It holds
    from the moment at which the signal came, which is the time of its samples. Its value is the
    number of such signals; `result` has at, who, text and signals.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "signals"

    type: Literal["webhook"]
    signal: NodeName
    """The name of the signal: `found`, `located`, `fixed`, or any other."""
    who: Pattern = ""
    """Whose signals count; without it everybody's."""


class PluginProbe(ProbeBase):
    """A measurement of a program, an endpoint or a package of somebody else; see
    `faultline conformance`.
    """

    unit: ClassVar[Unit] = ""
    figure: ClassVar[str] = "number"

    type: Literal["plugin"]
    plugin: Annotated[str, Field(min_length=1, max_length=4095)]
    """The name of a manifest in the allowed folder or its path, or the name of an entry point
    `faultline.probes`."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What it takes; its manifest says."""
    measures: Unit = ""
    """The unit of its value, as its manifest says: `s`, `ratio`, `B`, or nothing."""

    def value_unit(self) -> Unit:
        return self.measures
