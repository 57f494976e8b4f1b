"""Faults of claims and volumes: unbound, mounted otherwise, kept or not when they are let go.

https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import policy
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import FieldsFault, ObjectFault, View, field_of, words

_POLICY = ("spec", "persistentVolumeReclaimPolicy")


class ClaimUnbindParams(Params):
    """Parameters of `claim unbind`: none."""


class ClaimUnbind(ObjectFault[ClaimUnbindParams]):
    """Let a claim lose its volume: pods that run go on, new ones cannot start.

    Only of a volume that is kept when it is let go (`Retain`): any other would be deleted with all
    that is on it.
    """

    id = "claim.unbind"
    kinds = ("PersistentVolumeClaim",)
    does = "Writes another uid into spec.claimRef of the volume: it belongs to nobody who lives."
    cannot = "Unmount what is mounted, or touch what is on the volume."
    measures = "Whether the claim is Lost, which the controller of volumes writes."
    restores = "The uid of the claim; the controller binds the two again."

    def plan(self, view: View, target: Object, params: ClaimUnbindParams) -> list[Change]:
        policy.spared(target)
        name = str(read(target, ("spec", "volumeName")) or "")
        if not name:
            raise Refused(f"{words(target)} has no volume yet")
        kind = view.client.kind("persistentvolumes")
        volume = {**view.client.get(kind, name), "apiVersion": "v1", "kind": kind.kind}
        policy.spared(volume)
        if read(volume, _POLICY) != "Retain":
            raise Refused(
                f"{words(volume)} would be deleted with all that is on it: its policy is "
                f"{read(volume, _POLICY)}",
                hint="only a volume with persistentVolumeReclaimPolicy: Retain can lose its claim",
            )
        path = ("spec", "claimRef", "uid")
        if read(volume, path) != metadata(target)["uid"]:
            raise Refused(f"{words(volume)} belongs to another claim")
        nobody = f"faultline-{view.fault}"
        return [view.patch(volume, [field_of(volume, path, nobody)])]

    def observe(
        self, view: View, target: Object, params: ClaimUnbindParams, changes: Sequence[Change]
    ) -> Reading:
        asked, method = "the claim is lost", "status.phase of the claim"
        kind, meta = view.client.kind("persistentvolumeclaims"), metadata(target)

        def phase() -> str:
            try:
                now = view.client.get(kind, str(meta["name"]), str(meta["namespace"]))
            except ApiError as error:
                if error.status == 404:
                    return "gone"
                raise
            return str(read(now, ("status", "phase")) or "")

        view.until(lambda: phase() == "Lost")
        told = phase()
        if told == "Lost":
            return Reading(Effect.EFFECTIVE, asked, told, method)
        reason = "no controller of volumes has acted"
        return Reading(Effect.INEFFECTIVE, asked, told or "unknown", method, reason)


class VolumeReclaimParams(Params):
    """Parameters of `volume reclaim`."""

    policy: Literal["Retain", "Recycle", "Delete"] = "Retain"
    """What is done with the volume when its claim goes."""


class VolumeReclaim(FieldsFault[VolumeReclaimParams]):
    """Change what becomes of a volume when its claim goes: volumes that nobody takes pile up."""

    id = "volume.reclaim"
    kinds = ("PersistentVolume",)
    does = "Writes spec.persistentVolumeReclaimPolicy."
    cannot = "Bring back what was deleted meanwhile: all but `Retain` need `allow: [lose-data]`."
    measures = "Whether the policy is still so."
    restores = "The policy as it was."
    example: ClassVar = {"policy": "Retain"}

    def fields(self, view: View, target: Object, params: VolumeReclaimParams) -> list[Field]:
        if params.policy != "Retain":
            view.guard("lose-data", "what is on the volume would go with its claim")
        return [field_of(target, _POLICY, params.policy)]


class VolumeOptionsParams(Params):
    """Parameters of `volume options`."""

    options: Annotated[list[str], Bounds(min_length=1, max_length=20)] = Bounds(
        default_factory=lambda: ["ro"]
    )
    """The options of the next mount; `ro`: nothing can be written."""


class VolumeOptions(FieldsFault[VolumeOptionsParams]):
    """Have a volume mounted otherwise by the next pod: read only, or with options that fail."""

    id = "volume.options"
    kinds = ("PersistentVolume",)
    does = "Writes spec.mountOptions of the volume."
    cannot = "Change what is mounted already, or reach volumes whose kind takes no options."
    measures = "Whether the options are still so."
    restores = "The options as they were."
    example: ClassVar = {"options": "ro"}

    def fields(self, view: View, target: Object, params: VolumeOptionsParams) -> list[Field]:
        return [field_of(target, ("spec", "mountOptions"), params.options)]
