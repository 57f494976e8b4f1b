"""Load on the control plane: many objects, each ours by its label, and bounded in number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.injection.reading import Reading
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.change import OWNER, Change
from faultline.kubefaults.model import ObjectFault, View, level

_UNSCHEDULABLE = {"faultline.dev/no-node-has-this": "true"}


def _counted(view: View, changes: Sequence[Change], what: str) -> Reading:
    """How many of them the server has, by the label of the fault."""
    kind, namespace = changes[0].kind, changes[0].namespace
    found = sum(1 for _ in view.client.every(kind, namespace, labels=f"{OWNER}={view.fault}"))
    method = "a list by the label of the fault"
    return level(f"{len(changes)} {what}", len(changes), found, method, "somebody deleted some")


class MassParams(Params):
    """Parameters of `namespace clutter`."""

    count: Annotated[int, Between(1, 5000)] = 100
    """How many."""
    size: Annotated[int, Between(0, 100_000)] = 100
    """Bytes in each."""


class NamespaceClutter(ObjectFault[MassParams]):
    """Fill a namespace with ConfigMaps: lists, watches and etcd get slower."""

    id = "namespace.clutter"
    kinds = ("Namespace",)
    does = "Creates so many ConfigMaps of so many bytes."
    cannot = "Go beyond what a quota of the namespace allows: then it is refused and undone."
    measures = "How many of them a list by their label finds."
    restores = "Those that we made are deleted, one by one, by their label and uid."
    example: ClassVar = {"count": "20"}

    def plan(self, view: View, target: Object, params: MassParams) -> list[Change]:
        if params.count * params.size > 50_000_000:
            view.guard("large-load", "more than 50 MB: etcd keeps all of it in memory")
        where = str(metadata(target)["name"])
        return [
            view.create(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": f"faultline-{view.fault}-{number}"},
                    "data": {"clutter": "x" * params.size},
                },
                where,
            )
            for number in range(params.count)
        ]

    def observe(
        self, view: View, target: Object, params: MassParams, changes: Sequence[Change]
    ) -> Reading:
        return _counted(view, changes, "ConfigMaps")


class PendingParams(Params):
    """Parameters of `namespace pending`."""

    count: Annotated[int, Between(1, 1000)] = 20
    """How many."""


class NamespacePending(ObjectFault[PendingParams]):
    """Pods that no node takes: the scheduler tries them again and again."""

    id = "namespace.pending"
    kinds = ("Namespace",)
    does = "Creates so many pods with a node selector that no node fits."
    cannot = "Keep an autoscaler of nodes from buying some: exclude the selector there."
    measures = "How many of them a list by their label finds."
    restores = "Those that we made are deleted, by their label and uid."
    example: ClassVar = {"count": "5"}

    def plan(self, view: View, target: Object, params: PendingParams) -> list[Change]:
        spec = {
            "automountServiceAccountToken": False,
            "nodeSelector": _UNSCHEDULABLE,
            "containers": [{"name": "none", "image": "faultline.invalid/none:none"}],
        }
        return [
            view.create(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": f"faultline-{view.fault}-{number}"},
                    "spec": spec,
                },
                str(metadata(target)["name"]),
            )
            for number in range(params.count)
        ]

    def observe(
        self, view: View, target: Object, params: PendingParams, changes: Sequence[Change]
    ) -> Reading:
        return _counted(view, changes, "pods that wait")
