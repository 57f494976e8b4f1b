"""Faults of pods that need no agent: deleted, evicted, broken, held, taken out of service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import Object
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import (
    PATIENCE,
    FieldsFault,
    ObjectFault,
    View,
    deletion,
    field_of,
    is_going,
    words,
)
from faultline.kubefaults.workloads import images


class PodEndParams(Params):
    """Parameters of faults that end a pod."""

    grace: Annotated[int, Between(0, 3600)] | None = None
    """Seconds that it gets to end; without it what the pod says. 0 kills it at once."""


class _PodEnd(ObjectFault[PodEndParams]):
    """A fault that ends a pod, one way or the other."""

    kinds = ("Pod",)
    measures = "Whether the pod of this uid is gone, or ending."
    restores = "Nothing: a pod without an owner is refused unless `bare-pod` is allowed."
    way: ClassVar[Literal["delete", "evict"]]
    asked: ClassVar[str]

    def plan(self, view: View, target: Object, params: PodEndParams) -> list[Change]:
        return deletion(view, target, self.way, params.grace, "bare-pod")

    def observe(
        self, view: View, target: Object, params: PodEndParams, changes: Sequence[Change]
    ) -> Reading:
        return is_going(view, changes, self.asked)


class PodDelete(_PodEnd):
    """Delete a pod, as a roll-out or a person would; its owner makes another one."""

    id = "pod.delete"
    does = "Deletes this very pod (by uid) through the API server."
    cannot = "Bring it back: that is its owner's affair, and what is to be seen."
    way = "delete"
    asked = "deleted"


class PodEvict(_PodEnd):
    """Evict a pod, as the drain of a node does: disruption budgets are honoured."""

    id = "pod.evict"
    does = "Asks for the eviction of this very pod (by uid)."
    cannot = "Evict what a PodDisruptionBudget keeps: that is refused, and told."
    way = "evict"
    asked = "evicted"


class PodFailureParams(Params):
    """Parameters of `pod failure`."""

    container: Annotated[str, Bounds(max_length=63)] = ""
    """Which container; without it all of them."""
    image: Annotated[str, Bounds(min_length=1, max_length=500)] = "faultline.invalid/none:none"
    """The image that takes its place; by default one that can be pulled from nowhere."""


class PodFailure(FieldsFault[PodFailureParams]):
    """Make a pod fail for a while without deleting it: its containers get another image.

    The kubelet ends the container of an image that has changed, and cannot start the new one.
    """

    id = "pod.failure"
    kinds = ("Pod",)
    does = "Writes the image of the containers, the one field of a running pod that may be written."
    cannot = "Harm a pod whose kubelet does not answer."
    measures = "Whether the containers run no more, by the status that the kubelet writes."
    restores = "The images; the kubelet starts the containers again."

    def fields(self, view: View, target: Object, params: PodFailureParams) -> list[Field]:
        return images(target, ("spec", "containers"), params.container, params.image)

    def observe(
        self, view: View, target: Object, params: PodFailureParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        names = {
            step.partition("=")[2] for each in change.fields for step in each.path if "=" in step
        }
        asked, method = f"{len(names)} containers do not run", "status.containerStatuses"

        def running() -> list[str]:
            told: Any = read(view.now(change) or {}, ("status", "containerStatuses")) or []
            return [
                str(each["name"])
                for each in told
                if each["name"] in names and read(each, ("state", "running")) is not None
            ]

        if not view.until(lambda: not running(), patience=2 * PATIENCE):
            told = f"{', '.join(running())} still run"
            return Reading(Effect.INEFFECTIVE, asked, told, method, "the kubelet has not acted")
        return Reading(Effect.EFFECTIVE, asked, "none of them runs", method)


class PodUnreadyParams(Params):
    """Parameters of `pod unready`."""

    gate: Annotated[str, Bounds(max_length=316)] = ""
    """Which of its readiness gates; without it the only one."""


class PodUnready(FieldsFault[PodUnreadyParams]):
    """Take a pod out of service by one of its readiness gates, while its containers go on.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-gate
    """

    id = "pod.unready"
    kinds = ("Pod",)
    part: ClassVar = "status"
    does = "Sets the condition of the gate to False in the status of the pod."
    cannot = "Reach a pod without readiness gates: its probes cannot be written while it runs."
    measures = "Whether the pod is not ready any more."
    restores = "The condition as it was, unless whoever owns the gate has written it since."

    def fields(self, view: View, target: Object, params: PodUnreadyParams) -> list[Field]:
        gates: Any = read(target, ("spec", "readinessGates")) or []
        names = [str(each["conditionType"]) for each in gates]
        if not names or (params.gate and params.gate not in names):
            raise Refused(
                f"{words(target)} has no readiness gate {params.gate}".strip(),
                hint="take its label away instead (object label), or fail it (pod failure)",
            )
        if not params.gate and len(names) > 1:
            raise Refused(f"{words(target)} has several gates: name one of {', '.join(names)}")
        gate = params.gate or names[0]
        present = read(target, ("status", "conditions", f"type={gate}"))
        if present is None:
            raise Refused(f"the gate {gate} of {words(target)} was never opened: it is not ready")
        return [field_of(target, ("status", "conditions", f"type={gate}", "status"), "False")]

    def observe(
        self, view: View, target: Object, params: PodUnreadyParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        asked, method = "not ready", "the condition Ready, which the kubelet writes"
        path = ("status", "conditions", "type=Ready", "status")

        def unready() -> bool:
            return read(view.now(change) or {}, path) != "True"

        if not view.until(unready):
            return Reading(Effect.INEFFECTIVE, asked, "ready", method, "the kubelet has not acted")
        return Reading(Effect.EFFECTIVE, asked, "not ready", method)
