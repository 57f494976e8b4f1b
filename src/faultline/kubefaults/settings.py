"""Faults of what programs are told and allowed: values, quotas, limits, leases."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field as Bounds

from faultline.api.params import Params
from faultline.api.quantities import Between
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import FieldsFault, ObjectFault, View, field_of, words

Quantity = Annotated[str, Bounds(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class ConfigValueParams(Params):
    """Parameters of `config value`."""

    key: Annotated[str, Bounds(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
    """Which entry."""
    value: Annotated[str, Bounds(max_length=50_000)] | None = None
    """What it is to be; without it the entry is taken away."""


class ConfigValue(FieldsFault[ConfigValueParams]):
    """Change or take away one entry of a ConfigMap or a Secret."""

    id = "config.value"
    kinds = ("ConfigMap", "Secret")
    does = "Writes one entry of the data."
    cannot = "Make a program read it: as a file it comes within a minute, as a variable never."
    measures = "Whether the entry is still so."
    restores = "The entry as it was, unless somebody has changed it since."
    example: ClassVar = {"key": "mode", "value": "wild"}

    def fields(self, view: View, target: Object, params: ConfigValueParams) -> list[Field]:
        if target.get("immutable"):
            raise Refused(f"{words(target)} is immutable: the server accepts no change of it")
        value = params.value
        if value is not None and target["kind"] == "Secret":
            value = base64.b64encode(value.encode()).decode()
        return [field_of(target, ("data", params.key), value)]


class QuotaParams(Params):
    """Parameters of `namespace quota`."""

    resource: Literal[
        "pods", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory",
        "persistentvolumeclaims", "services", "configmaps", "secrets",
    ] = "pods"  # fmt: skip
    """What is counted."""
    most: Quantity = "0"
    """How much of it there may be; what is there already stays."""


class NamespaceQuota(ObjectFault[QuotaParams]):
    """Squeeze the quota of a namespace: nothing new of the kind is accepted."""

    id = "namespace.quota"
    kinds = ("Namespace",)
    does = "Creates a ResourceQuota."
    cannot = "Take away what is there already."
    measures = "Whether the server refuses a pod or object that is only tried (a dry run)."
    restores = "The quota is deleted."
    example: ClassVar = {"resource": "pods", "most": "0"}

    def plan(self, view: View, target: Object, params: QuotaParams) -> list[Change]:
        made: Object = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": f"faultline-{view.fault}"},
            "spec": {"hard": {params.resource: params.most}},
        }
        return [view.create(made, str(metadata(target)["name"]))]

    def observe(
        self, view: View, target: Object, params: QuotaParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        asked = f"at most {params.most} {params.resource}"
        if params.most != "0" or params.resource not in _TRIED:
            method = "the status of the quota, which the server writes"
            view.until(lambda: read(view.now(change) or {}, ("status", "hard")) is not None)
            if read(view.now(change) or {}, ("status", "hard")) is None:
                return Reading.unmeasured(asked, method, "no controller has counted yet")
            return Reading(Effect.EFFECTIVE, asked, "it is enforced", method)
        return self._tried(view, change, params, asked)

    def _tried(self, view: View, change: Change, params: QuotaParams, asked: str) -> Reading:
        method = "a dry run of one more, which the server must refuse"
        kind = view.client.kind(params.resource)
        made = {**_TRIED[params.resource], "metadata": {"name": f"faultline-{view.fault}-try"}}

        def refused() -> bool:
            path = kind.path(change.namespace)
            try:
                view.client.rest.request("POST", path, {"dryRun": "All"}, made).json()
            except ApiError as error:
                if error.reason == "Forbidden" and "quota" in error.message:
                    return True
                raise
            return False

        if view.until(refused):
            return Reading(Effect.EFFECTIVE, asked, "one more is refused", method)
        reason = "the server accepts one more"
        return Reading(Effect.INEFFECTIVE, asked, "accepted", method, reason)


_TRIED: dict[str, Object] = {
    "pods": {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{"name": "try", "image": "faultline.invalid/none:none"}],
        },
    },
    "configmaps": {"apiVersion": "v1", "kind": "ConfigMap"},
    "secrets": {"apiVersion": "v1", "kind": "Secret"},
    "services": {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 1}]}},
}


class LimitParams(Params):
    """Parameters of `namespace limit`."""

    cpu: Quantity | None = None
    """The most processor time of a container: `100m`."""
    memory: Quantity | None = None
    """The most memory of a container: `64Mi`."""


class NamespaceLimit(ObjectFault[LimitParams]):
    """Squeeze what new containers of a namespace may have, and give them no more by default."""

    id = "namespace.limit"
    kinds = ("Namespace",)
    does = "Creates a LimitRange with these values as the most and as the default."
    cannot = "Touch containers that are there already."
    measures = "What a pod that is only tried (a dry run) is given."
    restores = "The LimitRange is deleted."
    example: ClassVar = {"memory": "64Mi"}

    def plan(self, view: View, target: Object, params: LimitParams) -> list[Change]:
        given = {"cpu": params.cpu, "memory": params.memory}
        values = {name: value for name, value in given.items() if value is not None}
        if not values:
            raise Refused("expected cpu, memory or both")
        limit = {"type": "Container", "max": values, "default": values, "defaultRequest": values}
        made: Object = {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": f"faultline-{view.fault}"},
            "spec": {"limits": [limit]},
        }
        return [view.create(made, str(metadata(target)["name"]))]

    def observe(
        self, view: View, target: Object, params: LimitParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        given = {"cpu": params.cpu, "memory": params.memory}
        wanted = {name: value for name, value in given.items() if value is not None}
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        method = "a dry run of a pod, and the limits that the server gives it"
        made = {**_TRIED["pods"], "metadata": {"name": f"faultline-{view.fault}-try"}}
        address = view.client.kind("pods").path(change.namespace)

        def limits() -> dict[str, str]:
            pod = view.client.rest.request("POST", address, {"dryRun": "All"}, made).json()
            path = ("spec", "containers", "name=try", "resources", "limits")
            return {name: str(read(pod, (*path, name)) or "") for name in wanted}

        view.until(lambda: limits() == wanted)
        told = limits()
        shown = ", ".join(f"{name} {value or 'without limit'}" for name, value in told.items())
        effect = Effect.EFFECTIVE if told == wanted else Effect.INEFFECTIVE
        reason = "" if told == wanted else "another LimitRange decides"
        return Reading(effect, asked, shown, method, reason)


class LeaseStealParams(Params):
    """Parameters of `lease steal`."""

    seconds: Annotated[int, Between(1, 3600)] = 15
    """For how long the lease is taken."""


class LeaseSteal(FieldsFault[LeaseStealParams]):
    """Take the lease of a leader away: it loses the leadership, and another may take it later.

    https://kubernetes.io/docs/concepts/architecture/leases/
    """

    id = "lease.steal"
    kinds = ("Lease",)
    does = "Writes us as the holder, with a new time and one transition more."
    cannot = "Keep the lease for longer than `seconds`: then whoever is quickest has it."
    measures = "Whether the lease still names us."
    restores = "The holder as it was, unless somebody has taken the lease since."

    def fields(self, view: View, target: Object, params: LeaseStealParams) -> list[Field]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if not read(target, ("spec", "holderIdentity")):
            raise Refused(f"{words(target)} has no holder: there is no leader to lose")
        transitions = int(read(target, ("spec", "leaseTransitions")) or 0)
        values = {
            "holderIdentity": f"faultline-{view.fault}",
            "renewTime": now,
            "leaseDurationSeconds": params.seconds,
            "leaseTransitions": transitions + 1,
        }
        return [field_of(target, ("spec", name), value) for name, value in values.items()]
