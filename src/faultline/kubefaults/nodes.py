"""Faults of nodes over the API server: closed to new pods, emptied, tainted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import FieldsFault, ObjectFault, View, field_of, words

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


class NodeUntaintParams(Params):
    """Parameters of `node untaint`."""

    key: Annotated[str, Bounds(min_length=1, max_length=317)]
    """The key of the taints that are taken away."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Those with this effect; without it all of that key."""


class NodeUntaint(FieldsFault[NodeUntaintParams]):
    """Take a taint away: pods come to a node that was kept for others."""

    id = "node.untaint"
    kinds = ("Node",)
    does = "Removes the taints of this key from the node; those of other keys stay."
    cannot = "Send away what came meanwhile."
    measures = "Whether the taints are gone."
    restores = "The taints are added again."
    example: ClassVar = {"key": "dedicated"}

    def fields(self, view: View, target: Object, params: NodeUntaintParams) -> list[Field]:
        taints: Any = read(target, ("spec", "taints")) or []
        hit = [
            each
            for each in taints
            if each["key"] == params.key and params.effect in (None, each["effect"])
        ]
        if not hit:
            raise Refused(f"{words(target)} has no such taint")
        return [Field(("spec", "taints", "[]"), each, None) for each in hit]


class NodeConditionParams(Params):
    """Parameters of `node condition`."""

    type: Annotated[str, Bounds(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$")] = (
        "KernelDeadlock"
    )
    """Which condition: one of the kubelet (`MemoryPressure`, `DiskPressure`, `PIDPressure`,
    `NetworkUnavailable`, `Ready`) or of whoever watches nodes."""
    status: Literal["True", "False", "Unknown"] = "True"
    """What it says."""
    reason: Annotated[str, Bounds(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")] = (
        "FaultlineInjected"
    )
    """Its reason, in one word."""
    message: Annotated[str, Bounds(max_length=1000)] = "said by a fault, not by the node"
    """Its message."""


class NodeCondition(FieldsFault[NodeConditionParams]):
    """Let a node seem ill: what watches conditions acts as if it were.

    A condition of the kubelet is written anew by it within seconds; so is ours, for as long as the
    fault lasts, and in between the node seems well.
    """

    id = "node.condition"
    kinds = ("Node",)
    part: ClassVar = "status"
    insists = True
    does = "Writes one entry of status.conditions, again whenever it is set back."
    cannot = "Make the node ill; keep the kubelet from saying how it really is in between."
    measures = "Whether the condition says so."
    restores = "The condition as it was; one that we added is removed."
    example: ClassVar = {"type": "KernelDeadlock"}

    def fields(self, view: View, target: Object, params: NodeConditionParams) -> list[Field]:
        if params.type in ("Ready", "NetworkUnavailable"):
            view.guard("evict", f"a node whose {params.type} is wrong loses all its pods in time")
        path = ("status", "conditions", f"type={params.type}")
        present = read(target, path)
        said = {"status": params.status, "reason": params.reason, "message": params.message}
        if present is None:
            entry = {"type": params.type, **said}
            return [Field(("status", "conditions", "[]"), None, entry)]
        if present["status"] == params.status:
            raise Refused(f"{words(target)} says so already: nothing would change")
        return [field_of(target, (*path, name), value) for name, value in said.items()]


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
