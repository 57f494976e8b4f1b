"""What a fault of objects would change, looked up with the rights of whoever asks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError
from faultline.kubeapi.client import Client
from faultline.kubefaults.carrying import Carrier, Order
from faultline.kubefaults.change import Change
from faultline.kubefaults.rights import Right
from faultline.operator.aiming import complaint
from faultline.operator.cluster import Cluster
from faultline.operator.looking import may
from faultline.operator.resolving import Aim

SHOWN = 20  # targets of which the changes are looked up


@dataclass(frozen=True, slots=True)
class Preview:
    """One target."""

    changes: tuple[tuple[str, str], ...] = ()  # what is done, and how it is undone
    why: str = ""  # it is refused
    denied: tuple[str, ...] = ()  # rights that whoever asks does not have
    ends: tuple[str, ...] = ()  # uids of pods that are deleted, evicted or broken
    fewer: int = 0  # how many of its pods it takes away


@dataclass
class Previews:
    """Looks them up, as many as are shown."""

    client: Client
    spec: AimedFaultSpec
    _count: int = 0
    _rights: dict[Right, bool | None] = field(default_factory=dict[Right, "bool | None"])

    def of(self, aim: Aim) -> Preview:
        """What would be done to one target; raises ApiError if the server does not answer."""
        target = aim.object
        if target is None or self._count >= SHOWN:
            return Preview()
        self._count += 1
        order = Order(
            aim.uid("plan"), self.spec.fault, dict(self.spec.params), target.api_version,
            target.kind, target.namespace, target.name, target.uid, frozenset(self.spec.allow),
            seconds=self.spec.duration.seconds, flap=self.spec.flap,
        )  # fmt: skip
        carrier = Carrier(self.client)
        try:
            changes = carrier.plan(order)
            demanded = carrier.demands(order, changes)
        except FaultlineError as error:
            return Preview(why=complaint(error))
        denied = tuple(str(each) for each in demanded if self._may(each) is False)
        itself = (target.uid,) if target.kind == "Pod" else ()
        ends = itself or tuple(each.uid for each in changes if _ends_pod(each))
        told = tuple(each.describe() for each in changes[:SHOWN])
        return Preview(told, "", denied, ends, max(map(_fewer, changes), default=0))

    def _may(self, right: Right) -> bool | None:
        general = replace(right, name="")
        if general not in self._rights:
            self._rights[general] = may(self.client, general)
        return self._rights[general]


def _ends_pod(each: Change) -> bool:
    return each.do in ("delete", "evict") and each.kind.kind == "Pod"


def _fewer(each: Change) -> int:
    """By how many copies a workload gets smaller."""
    for one in each.fields:
        if one.path == ("spec", "replicas"):
            return int(1 if one.before is None else one.before) - int(one.after or 0)
    return 0


def touched(aim: Aim, seen: Preview, cluster: Cluster) -> Collection[str]:
    """The pods that would be away, by uid; of a workload as many of its pods as it loses."""
    if seen.fewer <= 0 or aim.object is None:
        return seen.ends
    uid = aim.object.uid
    owned = [
        pod.uid
        for pod in cluster.pods.values()
        if any(owner.uid == uid for owner in cluster.controllers(pod))
    ]
    return sorted(owned)[: seen.fewer]
