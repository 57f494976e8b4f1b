"""Faults of admission: requests to the API server that are changed, refused, slowed or lost."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field as Bounds
from pydantic import model_validator

from faultline.api.quantities import Between, Duration, text
from faultline.errors import Refused
from faultline.kubefaults.admission_base import AdmissionFault, MatchParams, group_of
from faultline.kubefaults.behaviours import Behaviour, leaves
from faultline.kubefaults.dryruns import Met
from faultline.kubefaults.fields import read
from faultline.kubefaults.model import View

_RIGHTS = "rbac.authorization.k8s.io"
_OPEN = frozenset(
    {
        *("pods", "services", "configmaps", "endpoints", "persistentvolumeclaims"),
        *("deployments.apps", "statefulsets.apps", "daemonsets.apps", "replicasets.apps"),
        *(
            "jobs.batch",
            "cronjobs.batch",
            "ingresses.networking.k8s.io",
            "leases.coordination.k8s.io",
        ),
        *("networkpolicies.networking.k8s.io", "horizontalpodautoscalers.autoscaling"),
    }
)
"""What may be changed by anybody's request: it holds no rights and no secrets."""
_IDENTITY = (
    *("apiVersion", "kind", "status", "metadata.name", "metadata.namespace", "metadata.uid"),
    *("metadata.generateName", "metadata.ownerReferences", "metadata.managedFields"),
)


class MutateParams(MatchParams):
    """Parameters of `admission mutate`."""

    set: dict[str, Any] = Bounds(default_factory=dict[str, Any])
    """Fields as in the object itself; null takes one away (RFC 7386). A list is one field."""
    patch: list[dict[str, Any]] = Bounds(default_factory=list[dict[str, Any]], max_length=100)
    """Further changes as a JSON Patch (RFC 6902): for entries of lists."""

    @model_validator(mode="after")
    def _something(self) -> MutateParams:
        if not self.set and not self.patch:
            raise ValueError("expected set, patch or both")
        for each in self.patch:
            path = each.get("path")
            if each.get("op") not in ("add", "remove", "replace", "test") or not path:
                raise ValueError("expected in patch: op (add, remove, replace, test), path, value")
        for name in self.written():
            if any(name == one or name.startswith(f"{one}.") for one in _IDENTITY):
                raise ValueError(f"expected other fields than {name}: it is never written")
        return self

    def written(self) -> list[str]:
        """The fields that are written, by name."""
        pointers = [str(each["path"]).strip("/").replace("/", ".") for each in self.patch]
        return [".".join(path) for path, _ in leaves(self.set)] + pointers


class AdmissionMutate(AdmissionFault[MutateParams]):
    """Change what is about to be written: whoever creates an object gets another one.

    What is written stays so when the fault has ended.
    """

    id = "admission.mutate"
    phase = "mutating"
    does = "Has the API server ask our webhook, which answers with a patch."
    cannot = f"{AdmissionFault.cannot} Put back objects that were written while it lasted."
    measures = "Whether the object that a dry run gives back has these fields."
    example: ClassVar = {"set": '{"metadata": {"labels": {"chaos": "yes"}}}'}

    def behaviour(self, view: View, params: MutateParams) -> Behaviour:
        for each in params.resources:
            if group_of(each) == _RIGHTS:
                raise Refused(f"{each}: what rights somebody asks for is never changed")
            if each not in _OPEN:
                view.guard("any-kind", f"{each} may hold rights or secrets")
        common = self.common(view, params)
        return Behaviour("mutate", **common, set=params.set, patch=tuple(params.patch))

    def asked(self, params: MutateParams) -> str:
        return f"{', '.join(params.written())} of new objects written by us"

    def judged(self, params: MutateParams, met: Met) -> tuple[bool | None, str]:
        if met.status == 0 or met.status >= 400:
            return None, f"the dry run was refused: {met.message}"
        wanted = leaves(params.set)
        for each in params.patch:
            path = tuple(s.replace("~1", "/").replace("~0", "~")
                         for s in str(each["path"]).split("/")[1:])  # fmt: skip
            if each["op"] in ("add", "replace") and not any(s.isdigit() or s == "-" for s in path):
                wanted.append((path, each.get("value")))
        if not wanted:
            return None, "what the patch does to lists cannot be told from outside"
        held = all(read(met.object, path) == value for path, value in wanted)
        return held, "the object has these fields" if held else "the object is as it was sent"


class RejectParams(MatchParams):
    """Parameters of `admission reject`."""

    code: Annotated[int, Between(400, 599)] = 403
    """The status of HTTP that whoever asks gets."""
    message: Annotated[str, Bounds(min_length=1, max_length=1000)] = "refused by a fault"
    """What they are told."""


class AdmissionReject(AdmissionFault[RejectParams]):
    """Refuse requests: nothing new is created, or nothing changed, or nothing deleted."""

    id = "admission.reject"
    does = "Has the API server ask our webhook, which says no."
    measures = "Whether a dry run is refused with this status and message."
    example: ClassVar = {"code": "429", "message": "come back later"}

    def behaviour(self, view: View, params: RejectParams) -> Behaviour:
        common = self.common(view, params)
        return Behaviour("reject", **common, code=params.code, message=params.message)

    def asked(self, params: RejectParams) -> str:
        return f"{params.percent} of the requests that match refused with {params.code}"

    def judged(self, params: RejectParams, met: Met) -> tuple[bool | None, str]:
        if met.status == params.code and params.message in met.message:
            return True, f"refused with {met.status}"
        if 200 <= met.status < 300:
            return False, "it is let through"
        return None, f"the server refuses the dry run by itself: {met.message}"


class DelayParams(MatchParams):
    """Parameters of `admission delay`."""

    latency: Annotated[Duration, Between("1ms", "25s")]
    """How much later the answer comes."""


class AdmissionDelay(AdmissionFault[DelayParams]):
    """Answer requests later: the API server waits for our webhook."""

    id = "admission.delay"
    does = "Has the API server ask our webhook, which takes its time and then allows everything."
    measures = "How long a dry run takes."
    example: ClassVar = {"latency": "500ms"}

    def behaviour(self, view: View, params: DelayParams) -> Behaviour:
        return Behaviour("delay", **self.common(view, params), seconds=params.latency.seconds)

    def patience(self, params: DelayParams) -> float:
        return params.latency.seconds + 5

    def asked(self, params: DelayParams) -> str:
        return f"{params.percent} of the requests that match answered {params.latency} later"

    def judged(self, params: DelayParams, met: Met) -> tuple[bool | None, str]:
        if met.status == 0 or met.status >= 400:
            return None, f"the dry run was refused: {met.message}"
        return met.seconds >= params.latency.seconds, f"answered after {met.seconds:.3f} s"


class ErrorParams(MatchParams):
    """Parameters of `admission error`."""


class AdmissionError(AdmissionFault[ErrorParams]):
    """Break a webhook: requests fail with an internal error, as if somebody's webhook were down."""

    id = "admission.error"
    closed = True
    does = "Has the API server ask our webhook, which answers with an error of HTTP."
    measures = "Whether a dry run fails with an internal error of the server."

    def behaviour(self, view: View, params: ErrorParams) -> Behaviour:
        return Behaviour("error", **self.common(view, params))

    def asked(self, params: ErrorParams) -> str:
        return f"{params.percent} of the requests that match fail with an internal error"

    def judged(self, params: ErrorParams, met: Met) -> tuple[bool | None, str]:
        return _failed(met)


class TimeoutParams(MatchParams):
    """Parameters of `admission timeout`."""

    timeout: Annotated[Duration, Between("1s", "30s")] = text("10s")
    """How long whoever asks waits before it fails; whole seconds."""

    @model_validator(mode="after")
    def _whole(self) -> TimeoutParams:
        if self.timeout % 1_000_000_000:
            raise ValueError("expected whole seconds")
        return self


class AdmissionTimeout(AdmissionFault[TimeoutParams]):
    """Let requests wait for a webhook that never answers, and then fail."""

    id = "admission.timeout"
    closed = True
    does = "Has the API server ask our webhook, which does not answer before its time is over."
    measures = "Whether a dry run fails, and after how long."
    example: ClassVar = {"timeout": "2s"}

    def behaviour(self, view: View, params: TimeoutParams) -> Behaviour:
        return Behaviour("timeout", **self.common(view, params), seconds=params.timeout.seconds)

    def patience(self, params: TimeoutParams) -> float:
        return params.timeout.seconds

    def asked(self, params: TimeoutParams) -> str:
        return f"{params.percent} of the requests that match fail after {params.timeout}"

    def judged(self, params: TimeoutParams, met: Met) -> tuple[bool | None, str]:
        hit, said = _failed(met)
        if hit and met.seconds < params.timeout.seconds * 0.9:
            return False, f"{said}, but after {met.seconds:.3f} s already"
        return hit, f"{said} after {met.seconds:.3f} s" if hit else said


def _failed(met: Met) -> tuple[bool | None, str]:
    if met.status == 500 and "admission.faultline.dev" in met.message:
        return True, "failed with an internal error"
    if 200 <= met.status < 300:
        return False, "it is let through"
    return None, f"the server refuses the dry run by itself: {met.message}"
