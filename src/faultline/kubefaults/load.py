"""Load on the control plane: many objects, watches, lists, events; each bounded, ours by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults import loads, many, policy
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import read
from faultline.kubefaults.model import ObjectFault, View, level

_UNSCHEDULABLE = {"faultline.dev/no-node-has-this": "true"}
_IMAGE = "faultline.invalid/none:none"
_CLUTTER: dict[str, Object] = {
    "ConfigMap": {"apiVersion": "v1"},
    "Secret": {"apiVersion": "v1", "type": "Opaque"},
    "Service": {"apiVersion": "v1", "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
    "Lease": {"apiVersion": "coordination.k8s.io/v1", "spec": {}},
    "Deployment": {
        "apiVersion": "apps/v1",
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"faultline.dev/clutter": "true"}},
            "template": {
                "metadata": {"labels": {"faultline.dev/clutter": "true"}},
                "spec": {"containers": [{"name": "none", "image": _IMAGE}]},
            },
        },
    },
}


def _several(view: View, target: Object, made: Object, count: int, fill: int = 0) -> list[Change]:
    """So many of them in a namespace, as one change."""
    policy.spared(target)
    where = str(metadata(target)["name"])
    extra = {"count": count, **({"fill": fill} if fill else {})}
    name, kind = f"faultline-{view.fault}", view.kind_of(made)
    return [Change("many", kind, where, name, object=made, extra=extra)]


def _counted(view: View, changes: Sequence[Change], what: str) -> Reading:
    """How many of them the server has, by the label of the fault."""
    (change,) = changes
    found = many.there(view.client, change, view.fault)
    count = int(change.extra["count"])
    method = "a list by the label of the fault"
    return level(f"{count} {what}", count, found, method, "somebody deleted some")


class MassParams(Params):
    """Parameters of `namespace clutter`."""

    count: Annotated[int, Between(1, 5000)] = 100
    """How many."""
    kind: Literal["ConfigMap", "Secret", "Service", "Lease", "Deployment"] = "ConfigMap"
    """Of what. Services are without an address, Deployments without a copy."""
    size: Annotated[int, Between(0, 100_000)] = 100
    """Bytes in each, of ConfigMaps and Secrets."""


class NamespaceClutter(ObjectFault[MassParams]):
    """Fill a namespace with objects: lists, watches, controllers and etcd get slower."""

    id = "namespace.clutter"
    kinds = ("Namespace",)
    does = "Creates so many objects of so many bytes."
    cannot = "Go beyond what a quota of the namespace allows: then it is refused and undone."
    measures = "How many of them a list by their label finds."
    restores = "Those that we made are deleted, by their label and name."
    example: ClassVar = {"count": "20"}

    def plan(self, view: View, target: Object, params: MassParams) -> list[Change]:
        holds = params.kind in ("ConfigMap", "Secret")
        if holds and params.count * params.size > 50_000_000:
            view.guard("large-load", "more than 50 MB: etcd keeps all of it in memory")
        made = {**_CLUTTER[params.kind], "kind": params.kind}
        return _several(view, target, made, params.count, params.size if holds else 0)

    def observe(
        self, view: View, target: Object, params: MassParams, changes: Sequence[Change]
    ) -> Reading:
        return _counted(view, changes, f"objects of kind {params.kind}")


class PendingParams(Params):
    """Parameters of `namespace pending`."""

    count: Annotated[int, Between(1, 1000)] = 20
    """How many."""
    cpu: Annotated[str, Bounds(pattern=r"^[0-9]+m?$")] | None = None
    """What each asks for, so that an autoscaler of nodes would buy as many: `2`, `500m`."""
    memory: Annotated[str, Bounds(pattern=r"^[0-9]+(Ki|Mi|Gi)?$")] | None = None
    """The same of memory."""


class NamespacePending(ObjectFault[PendingParams]):
    """Pods that no node takes: the scheduler tries them again and again."""

    id = "namespace.pending"
    kinds = ("Namespace",)
    does = "Creates so many pods with a node selector that no node fits."
    cannot = "Keep an autoscaler of nodes from trying: exclude the selector there."
    measures = "How many of them a list by their label finds."
    restores = "Those that we made are deleted, by their label and name."
    example: ClassVar = {"count": "5"}

    def plan(self, view: View, target: Object, params: PendingParams) -> list[Change]:
        asked = {"cpu": params.cpu, "memory": params.memory}
        requests = {name: value for name, value in asked.items() if value is not None}
        container = {"name": "none", "image": _IMAGE, "resources": {"requests": requests}}
        spec = {
            "automountServiceAccountToken": False,
            "nodeSelector": _UNSCHEDULABLE,
            "containers": [container],
        }
        made = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
        return _several(view, target, made, params.count)

    def observe(
        self, view: View, target: Object, params: PendingParams, changes: Sequence[Change]
    ) -> Reading:
        return _counted(view, changes, "pods that wait")


class JobsParams(Params):
    """Parameters of `namespace jobs`."""

    count: Annotated[int, Between(1, 2000)] = 50
    """How many."""
    image: Annotated[str, Bounds(max_length=500)] = ""
    """The image that each runs once; without it the jobs have nothing to run and are complete at
    once, which is the same load on server and etcd and none on nodes."""
    command: Annotated[list[str], Bounds(max_length=50)] = Bounds(default_factory=lambda: ["true"])
    """With `image`: what it runs."""


class NamespaceJobs(ObjectFault[JobsParams]):
    """Jobs that are complete and that nobody cleans away: what a careless CronJob leaves."""

    id = "namespace.jobs"
    kinds = ("Namespace",)
    does = "Creates so many jobs, which end at once; with an image, each with a pod."
    cannot = "Have them complete where no controller of jobs runs."
    measures = "How many of them are complete."
    restores = "Those that we made are deleted with their pods, by their label and name."
    example: ClassVar = {"count": "5"}

    def plan(self, view: View, target: Object, params: JobsParams) -> list[Change]:
        container: Object = {"name": "job", "image": params.image or _IMAGE}
        container |= {"command": params.command, "imagePullPolicy": "IfNotPresent"}
        pod = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        runs = 1 if params.image else 0
        spec = {"completions": runs, "parallelism": runs, "backoffLimit": 0}
        made = {"apiVersion": "batch/v1", "kind": "Job"}
        return _several(
            view, target, {**made, "spec": {**spec, "template": {"spec": pod}}}, params.count
        )

    def observe(
        self, view: View, target: Object, params: JobsParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes

        def complete() -> int:
            found = view.client.every(change.kind, change.namespace)
            mine = [e for e in found if str(metadata(e)["name"]).startswith(f"{change.name}-")]
            return sum(_complete(each) for each in mine)

        view.until(lambda: complete() >= params.count)
        asked, method = f"{params.count} complete jobs", "their condition Complete"
        reason = "no controller of jobs has ended the others, or their pods fail"
        return level(asked, params.count, complete(), method, reason)


def _complete(job: Object) -> bool:
    conditions: Any = read(job, ("status", "conditions")) or []
    return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)


# ---------------------------------------------------------------------- while it lasts


Resource = Literal["pods", "configmaps", "secrets", "services", "events", "endpoints"]


def _load(view: View, target: Object, resource: str, spec: Object) -> list[Change]:
    policy.spared(target)
    kind = view.client.kind(resource)
    where = str(metadata(target)["name"])
    extra = {**spec, "seconds": view.seconds}
    if "path" in spec:
        extra["path"] = kind.path("" if spec["path"] == "all" else where)
    return [Change("load", kind, where, f"faultline-{view.fault}", extra=extra)]


def _figures(view: View, changes: Sequence[Change]) -> tuple[loads.Figures, float] | None:
    return loads.figures(changes[0], view.fault)


_NOT_HERE = "it runs in another process, or its time is over"


class WatchesParams(Params):
    """Parameters of `namespace watches`."""

    count: Annotated[int, Between(1, 500)] = 50
    """How many connections are held."""
    resource: Resource = "configmaps"
    """What is watched."""
    everywhere: bool = False
    """Of all namespaces instead of this one."""


class NamespaceWatches(ObjectFault[WatchesParams]):
    """Many watches on the API server: each is a connection that it has to feed.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
    """

    id = "namespace.watches"
    kinds = ("Namespace",)
    does = "Holds so many watches open, from the process of the operator."
    cannot = "Go on while no operator runs; go beyond what priority and fairness let it have."
    measures = "How many of them the server has accepted and holds open."
    restores = "They are closed; nothing is left on the server."
    example: ClassVar = {"count": "10"}

    def plan(self, view: View, target: Object, params: WatchesParams) -> list[Change]:
        spec = {"what": "watches", "count": params.count, "path": _where(params.everywhere)}
        return _load(view, target, params.resource, spec)

    def observe(
        self, view: View, target: Object, params: WatchesParams, changes: Sequence[Change]
    ) -> Reading:
        asked, method = f"{params.count} watches", "connections on which the server has answered"
        if _figures(view, changes) is None:
            return Reading.unmeasured(asked, method, _NOT_HERE)

        def held() -> int:
            found = _figures(view, changes)
            return found[0].open if found else 0

        view.until(lambda: held() >= params.count)
        found = _figures(view, changes)
        return level(asked, params.count, held(), method, found[0].error if found else _NOT_HERE)


class ListsParams(Params):
    """Parameters of `namespace lists`."""

    rate: Annotated[int, Between(1, 200)] = 10
    """How many times a second."""
    resource: Resource = "configmaps"
    """What is listed."""
    everywhere: bool = False
    """Of all namespaces instead of this one."""
    cached: bool = False
    """Answers from the cache of the server will do; without it each comes from etcd."""


class NamespaceLists(ObjectFault[ListsParams]):
    """Lists without a limit, again and again: what a careless client does to the API server."""

    id = "namespace.lists"
    kinds = ("Namespace",)
    does = "Lists all objects of a kind, so many times a second, from the process of the operator."
    cannot = "Go on while no operator runs; be faster than the server answers 16 at a time."
    measures = "How many lists a second were answered since it began."
    restores = "It stops; nothing is left on the server."
    example: ClassVar = {"rate": "5"}

    def plan(self, view: View, target: Object, params: ListsParams) -> list[Change]:
        query = {"resourceVersion": "0"} if params.cached else {}
        spec = {"what": "lists", "rate": params.rate, "path": _where(params.everywhere)}
        return _load(view, target, params.resource, {**spec, "query": query})

    def observe(
        self, view: View, target: Object, params: ListsParams, changes: Sequence[Change]
    ) -> Reading:
        return _rate(view, changes, params.rate, "lists")


class EventsParams(Params):
    """Parameters of `namespace events`."""

    rate: Annotated[int, Between(1, 200)] = 20
    """How many a second."""
    most: Annotated[int, Between(1, 50_000)] = 5000
    """How many in all: the server keeps each for an hour unless it is deleted."""
    size: Annotated[int, Between(1, 1000)] = 100
    """Letters of the message of each."""


class NamespaceEvents(ObjectFault[EventsParams]):
    """A storm of events: writes on etcd, and work for whoever watches them."""

    id = "namespace.events"
    kinds = ("Namespace",)
    does = "Creates events about the namespace, so many a second, from the process of the operator."
    cannot = "Go on while no operator runs, or be the same where events have a limit of their own."
    measures = "How many a second were accepted since it began."
    restores = "It stops, and its events are deleted by their label and name."
    example: ClassVar = {"rate": "5", "most": "50"}

    def plan(self, view: View, target: Object, params: EventsParams) -> list[Change]:
        spec = {"what": "events", "rate": params.rate, "most": params.most, "size": params.size}
        return _load(view, target, "events", spec)

    def observe(
        self, view: View, target: Object, params: EventsParams, changes: Sequence[Change]
    ) -> Reading:
        return _rate(view, changes, params.rate, "events", params.most)


def _where(everywhere: bool) -> str:
    return "all" if everywhere else "here"


def _rate(
    view: View, changes: Sequence[Change], rate: int, what: str, most: int | None = None
) -> Reading:
    """What came about, over some seconds: at least three quarters of what was asked for."""
    asked, method = f"{rate} {what} a second", "answers of the server since it began"
    if _figures(view, changes) is None:
        return Reading.unmeasured(asked, method, _NOT_HERE)

    def measured() -> float:
        found = _figures(view, changes)
        if found is None or found[1] <= 0:
            return 0.0
        done = found[0].done
        return float(rate) if most is not None and done >= most else done / found[1]

    view.until(lambda: measured() >= 0.75 * rate, patience=5.0)
    found, got = _figures(view, changes), measured()
    values = {"asked": float(rate), "measured": got}
    told = f"{got:.1f} a second"
    if got >= 0.75 * rate:
        return Reading(Effect.EFFECTIVE, asked, told, method, values=values)
    reason = (found[0].error if found else "") or "the server does not answer any faster"
    return Reading(Effect.INEFFECTIVE, asked, told, method, reason, values)
