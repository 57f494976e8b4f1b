"""Selectors: which of a set a fault hits, and how many of them.

A selector says what the set is (`containers`, `processes`, `cgroups`, `pods`, `nodes`, `objects`,
or what a plug-in finds; exactly one), and which part of it is meant (`mode`). What of the set
is not hit is the control group.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.alias_generators import to_camel

from faultline.api.model import Model, NodeName, StatusModel
from faultline.api.probe_base import Pattern, Port
from faultline.api.quantities import Between, Percent
from faultline.api.selector_cluster import (
    FIELDS,
    ControlPlaneSelector,
    Glob,
    LabelExpression,
    NodeSelector,
    ObjectSelector,
    OwnerSelector,
    PodPhase,
)
from faultline.api.target import TargetSpec

Mode = Literal["one", "all", "fixed", "fixed-percent", "random-max-percent"]


class ContainerSelector(Model):
    """Running containers of this host. Everything that is given must fit; nothing means all."""

    name: Glob = ""
    """The name, or a pattern of it: `shop-*`."""
    image: Glob = ""
    """The image, whole or without its registry, or a pattern: `nginx:*`."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that it has, with these values."""
    runtime: Literal["docker", "containerd", "cri-o", "podman"] | None = None
    """Which runtime runs it."""


class ProcessSelector(Model):
    """Processes of this host, each with what it started. Everything that is given must fit."""

    process: str = ""
    """The name of the program, exactly."""
    pattern: Pattern = ""
    """A regular expression that is found in the command line."""
    user: str = ""
    """Whose it is, by name or number."""
    port: Port | None = None
    """The TCP port that it listens on."""
    parent: Pattern = ""
    """A regular expression that is found in the command line of its parent: the workers of a
    server."""

    @model_validator(mode="after")
    def _any(self) -> ProcessSelector:
        if not (self.process or self.pattern or self.user or self.port or self.parent):
            raise ValueError("expected one of process, pattern, user, port and parent")
        return self


class CgroupSelector(Model):
    """Control groups with processes in them."""

    pattern: Annotated[Glob, Field(min_length=1)]
    """The path as in /proc/PID/cgroup, or its last part: `shop-*.service`, `/shop.slice/*`. Of
    groups within each other that fit, the outermost."""


class PodSelector(Model):
    """Pods of this node or of a cluster. Everything that is given must fit; nothing means all.

    What only the API server knows can be asked for in a cluster alone.
    """

    namespaces: Annotated[list[Glob], Field(max_length=100)] = Field(default_factory=list[str])
    """Their namespaces, or patterns of them; any of these. Without it, in a cluster that of the
    fault itself, on one host all."""
    name: Glob = ""
    """The name, or a pattern of it: `web-*`."""
    names: Annotated[list[Glob], Field(max_length=1000)] = Field(default_factory=list[str])
    """Several names or patterns, as NAME or NAMESPACE/NAME; any of these. In a cluster."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that the pod has, with these values."""
    expressions: Annotated[list[LabelExpression], Field(max_length=100)] = Field(
        default_factory=list[LabelExpression]
    )
    """Requirements on its labels; all of them. In a cluster."""
    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    """Annotations that the pod has, with these values. In a cluster."""
    fields: dict[str, str] = Field(default_factory=dict[str, str])
    """Fields with these values, or with `!VALUE` any other: `spec.restartPolicy: Always`. In a
    cluster."""
    phases: Annotated[list[PodPhase], Field(max_length=5)] = Field(default_factory=list[PodPhase])
    """Their phases; any of these, without it `Running`. In a cluster."""
    owner: OwnerSelector | None = None
    """To whom they belong. In a cluster."""
    service: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[a-z0-9-]*$")] = ""
    """Those behind this service, NAME or NAMESPACE/NAME: what its endpoints lead to, ready or not.
    In a cluster."""
    nodes: Annotated[list[Glob], Field(max_length=1000)] = Field(default_factory=list[str])
    """The nodes on which they run, or patterns of them; any of these. In a cluster."""
    node_labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that their node has, with these values. In a cluster."""
    container: Glob = ""
    """Which of their containers. Without it, each container of a pod is a target of its own, and of
    a fault of the network, which they share, the first one alone. Init containers never are."""

    @model_validator(mode="after")
    def _known(self) -> PodSelector:
        for name in self.fields:
            if name not in FIELDS:
                raise ValueError(f"expected fields among {', '.join(FIELDS)}; not {name}")
        return self


ELSEWHERE = ("names", "expressions", "annotations", "fields", "phases", "owner", "service",
             "nodes", "node_labels")  # fmt: skip
"""What of a pod selector only a cluster can answer."""


class PluginSelector(Model):
    """What somebody else's package, program or endpoint finds."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """The name of a manifest, or of an entry point `faultline.selectors`; in a cluster `leader`,
    `oldest`, `same-zone`, `on-node-of`, or of an entry point `faultline.cluster_selectors`."""
    params: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Its parameters."""


SETS = ("containers", "processes", "cgroups", "pods", "nodes", "objects", "control_plane", "plugin")


class Selector(Model):
    """Which of a set are hit. What is protected is never among them."""

    containers: ContainerSelector | None = None
    """Containers of this host."""
    processes: ProcessSelector | None = None
    """Processes of this host."""
    cgroups: CgroupSelector | None = None
    """Control groups of this host."""
    pods: PodSelector | None = None
    """Pods of this node, or of a cluster."""
    nodes: NodeSelector | None = None
    """Whole nodes of a cluster, or with `target` something on each of them."""
    objects: ObjectSelector | None = None
    """Other objects of a cluster: workloads, services, settings, namespaces."""
    control_plane: ControlPlaneSelector | None = None
    """The components of a cluster itself."""
    plugin: PluginSelector | None = None
    """What somebody else finds."""
    mode: Mode | None = None
    """How many: `one` of them, by chance; `all`; `fixed`: so many as `count` says; `fixed-percent`:
    `percent` of them, rounded down; `random-max-percent`: by chance any number from one up to that
    share. Without it `one`; of a plug-in, which has chosen already, `all`."""
    count: Annotated[int, Field(ge=1, le=1000)] | None = None
    """With `fixed`: how many. Fewer than there must be is refused, not made do with."""
    percent: Annotated[Percent, Between("0.1%", "100%")] | None = None
    """With `fixed-percent` and `random-max-percent`: the share."""
    exclude: Annotated[list[Glob], Field(max_length=100)] = Field(default_factory=list[str])
    """Names that are never hit, or patterns of them: of containers and their images, programs,
    control groups, `NAMESPACE/POD`."""
    spread: Literal["zones", "nodes", "owners"] | None = None
    """In a cluster: take them as evenly as possible from zones, nodes or owners, and not just by
    chance."""
    live: Literal["freeze", "follow", "top-up"] = "freeze"
    """In a cluster, when a target has gone before the fault ends: `freeze`: it was one less;
    `follow`: a container that is started again in the same pod is hit, and so is the pod with which
    its owner replaces it; `top-up`: any other one that fits is hit, so that they stay as many, with
    `mode: all` also those that come anew."""
    seed: str = ""
    """What chance is drawn from; with the same seed the same of a set are hit. Without it each run
    draws anew, from its own seed."""

    @model_validator(mode="after")
    def _fits_together(self) -> Selector:
        if [getattr(self, name) is not None for name in SETS].count(True) != 1:
            raise ValueError(f"expected exactly one of {', '.join(map(to_camel, SETS))}")
        wanted = {"fixed": "count", "fixed-percent": "percent", "random-max-percent": "percent"}
        needed = wanted.get(self.how)
        for name in ("count", "percent"):
            if (getattr(self, name) is not None) != (name == needed):
                modes = " or ".join(mode for mode, field in wanted.items() if field == name)
                raise ValueError(f"expected {name} with `mode: {modes}`, and nowhere else")
        return self

    @property
    def how(self) -> Mode:
        """The mode, also where none is given."""
        return self.mode or ("all" if self.plugin is not None else "one")

    @property
    def kind(self) -> str:
        """Which set."""
        return next(name for name in SETS if getattr(self, name) is not None)


class Chosen(StatusModel):
    """One target that a selector found."""

    target: TargetSpec
    """The same by identity."""
    words: str = ""
    """The same for people."""


class Choice(StatusModel):
    """What a selector found, and what of it is hit."""

    node: NodeName
    """The fault of the document."""
    targets: list[Chosen] = Field(default_factory=list[Chosen])
    """What is hit."""
    rest: list[Chosen] = Field(default_factory=list[Chosen])
    """What of the set is not: the control group."""
    spared: dict[str, str] = Field(default_factory=dict[str, str])
    """What would fit and is never hit, with the reason."""
    text: str = ""
    """The same in one sentence."""
