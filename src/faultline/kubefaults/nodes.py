"""Faults of nodes over the API server: closed to new pods, emptied, tainted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field
from faultline.kubefaults.model import FieldsFault, ObjectFault, View, field_of

_MIRROR = "kubernetes.io/config.mirror"


class NodeCordonParams(Params):
    """Parameters of `node cordon`: none."""


class NodeCordon(FieldsFault[NodeCordonParams]):
    """Let no new pod onto a node."""

    id = "node.cordon"
    kinds = ("Node",)
    does = "Writes spec.unschedulable."
    cannot = "Move what runs there (`node drain`), or keep off what tolerates it."
    measures = "Whether the node is still marked."
    restores = "The field as it was."

    def fields(self, view: View, target: Object, params: NodeCordonParams) -> list[Field]:
        return [field_of(target, ("spec", "unschedulable"), True)]


class NodeTaintParams(Params):
    """Parameters of `node taint`."""

    key: Annotated[str, Bounds(pattern=r"^[A-Za-z0-9]([A-Za-z0-9./_-]*[A-Za-z0-9])?$")] = (
        "faultline.dev/fault"
    )
    """The key of the taint."""
    value: Annotated[str, Bounds(max_length=63)] = ""
    """Its value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"
    """What happens to pods that do not tolerate it."""


class NodeTaint(FieldsFault[NodeTaintParams]):
    """Taint a node; with `NoExecute` what does not tolerate the taint is evicted."""

    id = "node.taint"
    kinds = ("Node",)
    does = "Adds one taint to the node, beside those of others."
    cannot = "Bring evicted pods back: their owners make others."
    measures = "Whether the taint is there."
    restores = "The taint is removed; those of others stay."
    example: ClassVar = {"effect": "NoSchedule"}

    def fields(self, view: View, target: Object, params: NodeTaintParams) -> list[Field]:
        if params.effect == "NoExecute":
            view.guard("evict", "NoExecute evicts every pod that does not tolerate the taint")
        taint = {"key": params.key, "effect": params.effect}
        if params.value:
            taint["value"] = params.value
        return [Field(("spec", "taints", "[]"), None, taint)]


class NodeDrainParams(Params):
    """Parameters of `node drain`."""

    grace: Annotated[int, Between(0, 3600)] | None = None
    """Seconds that each pod gets to end; without it what the pod says."""
    most: Annotated[int, Between(1, 500)] = 100
    """How many pods at most; more are refused."""


class NodeDrain(ObjectFault[NodeDrainParams]):
    """Empty a node as for maintenance: no new pods, and those there are evicted.

    Disruption budgets are honoured: a pod that one keeps stays, and is told. Pods of DaemonSets
    and static pods stay, as with `kubectl drain`.
    """

    id = "node.drain"
    kinds = ("Node",)
    does = "Writes spec.unschedulable, then evicts each pod by its uid."
    cannot = "Bring the pods back: their owners make others, elsewhere."
    measures = "How many of these pods are gone or ending."
    restores = "New pods may come again."

    def plan(self, view: View, target: Object, params: NodeDrainParams) -> list[Change]:
        fields = [field_of(target, ("spec", "unschedulable"), True)]
        changes = [view.patch(target, fields)] if fields[0].before is not True else []
        kind, name = view.client.kind("pods"), str(metadata(target)["name"])
        for pod in view.client.every(kind, fields=f"spec.nodeName={name}"):
            meta = metadata(pod)
            owners: Any = meta.get("ownerReferences") or []
            if any(each["kind"] in ("DaemonSet", "Node") for each in owners):
                continue
            if _MIRROR in (meta.get("annotations") or {}):
                continue
            if not owners:
                view.guard("bare-pod", f"pod {meta['namespace']}/{meta['name']} has no owner")
            made = Change(
                "evict", kind, meta["namespace"], meta["name"], meta["uid"], grace=params.grace
            )
            changes.append(made)
        if len(changes) > params.most + 1:
            view.guard("many-pods", f"{len(changes) - 1} pods run there, more than {params.most}")
        return changes

    def observe(
        self, view: View, target: Object, params: NodeDrainParams, changes: Sequence[Change]
    ) -> Reading:
        pods = [each for each in changes if each.do == "evict"]
        asked, method = f"{len(pods)} pods leave", "the pods of these uids, read back"

        def staying() -> list[str]:
            found: list[str] = []
            for each in pods:
                now = view.now(each)
                if now is not None and not metadata(now).get("deletionTimestamp"):
                    found.append(each.words)
            return found

        view.until(lambda: not staying())
        left = staying()
        values = {"asked": float(len(pods)), "measured": float(len(pods) - len(left))}
        told = f"{len(pods) - len(left)} have gone or are ending"
        if left:
            reason = f"still there: {', '.join(left[:5])}"
            return Reading(Effect.INEFFECTIVE, asked, told, method, reason, values)
        return Reading(Effect.EFFECTIVE, asked, told, method, values=values)
