"""Faults of admission: requests to the API server that are changed, refused, slowed down or lost.

Each is a webhook configuration of ours, for one namespace that we label. It is over when either is
gone; it says itself until when it is to be there, so that agents remove it when nobody else does.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field as Bounds
from pydantic import model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Percent, text
from faultline.errors import Refused, Unsupported
from faultline.injection.reading import Effect, Reading, share_is
from faultline.kubeapi.model import Kind, Object, items, metadata
from faultline.kubefaults import dryruns, webhooks
from faultline.kubefaults.behaviours import Behaviour, leaves
from faultline.kubefaults.change import Change
from faultline.kubefaults.dryruns import Attempt, Met
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import ObjectFault, View, words
from faultline.kubefaults.notes import OWNER, annotations_of, labels_of
from faultline.kubefaults.rights import Right

PART_OF = "app.kubernetes.io/part-of"
HOSTS = Kind("Host", "hosts", "faultline.dev/v1alpha1", namespaced=False)
_NEVER = frozenset({"faultline.dev", "admissionregistration.k8s.io", "authentication.k8s.io",
                    "authorization.k8s.io"})  # fmt: skip
"""Groups that are never matched: what we need ourselves to end it, and what asks for rights."""
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
TRIES = 30  # dry runs of a fault that hits only a share
LONGEST = 20.0  # seconds that all of them may take
_METHOD = "dry runs of a request that matches, which the API server asks its webhooks about"
_RESOURCE = r"^(\*|[a-z0-9-]+)(/(\*|[a-z0-9-]+))?(\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"
Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
Glob = Annotated[str, Bounds(min_length=1, max_length=500)]


class MatchParams(Params):
    """Which requests are meant; all of it must fit."""

    resources: list[Annotated[str, Bounds(pattern=_RESOURCE)]] = Bounds(
        default_factory=lambda: ["pods"], min_length=1, max_length=50
    )
    """What they are about: `pods`, `pods/exec`, `deployments.apps`, `*.apps`."""
    operations: list[Operation] = Bounds(default_factory=lambda: ["CREATE"], min_length=1)
    """What they want to do: `CREATE`, `UPDATE`, `DELETE`, `CONNECT`."""
    labels: dict[str, str] = Bounds(default_factory=dict[str, str])
    """Labels that the object has, before or after the request."""
    names: list[Glob] = Bounds(default_factory=list[str], max_length=100)
    """Names of the object, or patterns; any of these."""
    users: list[Glob] = Bounds(default_factory=list[str], max_length=100)
    """Who makes the request, or patterns; any of these."""
    groups: list[Glob] = Bounds(default_factory=list[str], max_length=100)
    """A group of whoever makes the request, or patterns; any of these."""
    percent: Annotated[Percent, Between("0.1%", "100%")] = text("100%")
    """How many of the requests that match are hit."""
    seed: Annotated[str, Bounds(max_length=200)] = ""
    """What it is drawn from which ones; without it the uid of the fault."""

    @model_validator(mode="after")
    def _never_ours(self) -> MatchParams:
        for each in self.resources:
            if group_of(each) in _NEVER:
                raise ValueError(f"expected other resources than {each}: they are never hit")
        return self


def group_of(resource: str) -> str:
    """The group of `deployments.apps`; empty for the core."""
    return resource.partition(".")[2]


M = TypeVar("M", bound=MatchParams)


class AdmissionFault(ObjectFault[M]):
    """What all of them have in common."""

    kinds = ("Namespace",)
    phase: ClassVar[webhooks.Phase] = "validating"
    closed: ClassVar[bool] = False  # whether a webhook that does not answer fails the request
    cannot = (
        "Hit requests in `kube-system` and its like, or in the namespace of Faultline; requests of "
        "Faultline itself; and what is in no namespace."
    )
    restores = "The configuration is deleted, and the label of the namespace taken away."

    @abstractmethod
    def behaviour(self, view: View, params: M) -> Behaviour:
        """What is done to a request; raises Refused."""

    @abstractmethod
    def asked(self, params: M) -> str:
        """The same in words."""

    @abstractmethod
    def judged(self, params: M, met: Met) -> tuple[bool | None, str]:
        """Whether a request was hit, and what it met; None: that cannot be told."""

    def patience(self, params: M) -> float:
        """Seconds that the server waits for the webhook."""
        return 10.0

    # ------------------------------------------------------------------ plan

    def plan(self, view: View, target: Object, params: M) -> list[Change]:
        space = str(metadata(target)["name"])
        reached = webhooks.ours(view.client)
        if reached is None:
            raise Unsupported(
                "no operator of this cluster serves a webhook", hint="faultline operator --webhook"
            )
        client_config, own = reached
        self._never(target, space, own)
        if self.closed:
            self._watched(view)
        kind = webhooks.kind_of(self.phase)
        slot = next(iter(self._free(view, kind)), "")
        if not slot:
            raise Refused(f"there are {len(webhooks.SLOTS)} faults of admission already")
        label = Field(("metadata", "labels", webhooks.LABEL + view.fault), None, slot)
        config = self._configuration(view, params, own, slot, client_config)
        return [view.patch(target, [label]), Change("create", kind, "", slot, object=config)]

    def _free(self, view: View, kind: Kind) -> list[str]:
        found = webhooks.free(view.client, kind)
        view.chance.shuffle(found)  # so that two that begin at once do not want the same
        return found

    def _never(self, target: Object, space: str, own: str) -> None:
        if space in webhooks.SYSTEM:
            raise Refused(f"{space} is a namespace of the cluster itself: it is never hit")
        if space == own or labels_of(target).get(PART_OF) == "faultline":
            raise Refused(f"{space} is the namespace of Faultline: it is never hit")
        if annotations_of(target).get("faultline.dev/protect") == "true":
            raise Refused(f"{words(target)} is annotated as protected")

    def _watched(self, view: View) -> None:
        hosts = items(view.client.rest.request("GET", HOSTS.path()).json())
        if not any(read(each, ("spec", "warden")) for each in hosts):
            view.guard(
                "no-warden",
                "no agent would remove it if the operator were lost: until then it would fail all "
                "requests that match",
            )

    def _configuration(
        self, view: View, params: M, own: str, slot: str, client_config: Object
    ) -> Object:
        behaviour = self.behaviour(view, params)
        expressions: list[Object] = [
            {"key": PART_OF, "operator": "NotIn", "values": ["faultline"]},
            {"key": OWNER, "operator": "DoesNotExist"},
        ]
        # Servers before 1.21 have no such label: the namespaces are kept out by our own one.
        spaces = {"key": "kubernetes.io/metadata.name", "operator": "NotIn"}
        path = f"/fault/{self.phase}/{slot}/{view.fault}"
        hook: Object = {
            "name": f"{behaviour.do}.admission.faultline.dev",
            "clientConfig": webhooks.reached(client_config, path),
            "rules": _rules(params),
            "failurePolicy": "Fail" if self.closed else "Ignore",
            "matchPolicy": "Equivalent",
            "namespaceSelector": {
                "matchLabels": {webhooks.LABEL + view.fault: slot},
                "matchExpressions": [{**spaces, "values": sorted({*webhooks.SYSTEM, own})}],
            },
            "objectSelector": {"matchLabels": params.labels, "matchExpressions": expressions},
            "sideEffects": "None",
            "timeoutSeconds": max(1, min(30, round(self.patience(params)))),
            "admissionReviewVersions": ["v1"],
        }
        kind = webhooks.kind_of(self.phase)
        notes = {
            webhooks.BEHAVIOUR: behaviour.to_json(),
            webhooks.LASTS: f"{view.seconds:.0f}",
        }
        return {
            "apiVersion": kind.version,
            "kind": kind.kind,
            "metadata": {"name": slot, "labels": {PART_OF: "faultline"}, "annotations": notes},
            "webhooks": [hook],
        }

    def common(self, view: View, params: M) -> dict[str, Any]:
        """What every behaviour says."""
        return {
            "percent": float(params.percent),
            "seed": params.seed or view.fault,
            "users": tuple(params.users),
            "groups": tuple(params.groups),
            "names": tuple(params.names),
        }

    def demands(
        self, view: View, target: Object, params: M, changes: Sequence[Change]
    ) -> list[Right]:
        """Who may make, change and delete what is hit may also have it fail."""
        space = str(metadata(target)["name"])
        return [
            Right.read(f"{verb} {each}", space)
            for each in params.resources
            for verb in ("create", "update", "delete")
        ]

    # ------------------------------------------------------------------ effect

    def observe(self, view: View, target: Object, params: M, changes: Sequence[Change]) -> Reading:
        asked, share = self.asked(params), params.percent / 100
        attempt = self._attempt(view, target, params)
        if attempt is None:
            return self._counted(view, changes, asked)
        hits, tries, last, said = 0, 0, None, ""
        until, begun = time.monotonic() + LONGEST, False
        while time.monotonic() < until and tries < (TRIES if share < 1 else 1):
            met = dryruns.made(view.client, attempt, self.patience(params) + 10)
            hit, said = self.judged(params, met)
            if hit is None:
                return Reading.unmeasured(asked, _METHOD, said)
            if not begun and not hit:
                time.sleep(0.1)  # the server has not read the configuration yet, or it was spared
                continue
            tries += begun or share == 1
            hits += hit and (begun or share == 1)
            begun, last = True, met if hit else last
        return self._judgement(view, changes, asked, share, (hits, tries), said)

    def _judgement(
        self, view: View, changes: Sequence[Change], asked: str, share: float,
        found: tuple[int, int], said: str,
    ) -> Reading:  # fmt: skip
        (hits, tries), real = found, self._real(view, changes)
        measured = f"{said}; {hits} of {tries} dry runs were hit{real}"
        values = {"asked": share, "measured": hits / tries if tries else 0.0, "n": float(tries)}
        if not tries and share < 1:
            reason = f"none of the dry runs of {LONGEST:g} s was among the {share:.1%} that are hit"
            return Reading.unmeasured(asked, _METHOD, reason)
        if tries and share_is(share, hits, tries):
            return Reading(Effect.EFFECTIVE, asked, measured, _METHOD, "", values)
        reason = "the server does not ask the webhook, or does not reach it"
        return Reading(Effect.INEFFECTIVE, asked, measured, _METHOD, reason, values)

    def _attempt(self, view: View, target: Object, params: M) -> Attempt | None:
        name = f"faultline-try-{view.fault[:20].strip('-')}"
        space = str(metadata(target)["name"])
        return dryruns.attempt(
            view.client, space, params.operations, params.resources, params.labels, name, view.fault
        )

    def _real(self, view: View, changes: Sequence[Change]) -> str:
        now = view.now(changes[-1])
        matched, hit = webhooks.counted(now) if now is not None else (0, 0)
        return f"; of {matched} requests of others {hit}" if matched else ""

    def _counted(self, view: View, changes: Sequence[Change], asked: str) -> Reading:
        """Where no request can be made up: what the webhook has counted of those of others."""
        method = "what the webhook has counted"
        now = view.now(changes[-1])
        matched, hit = webhooks.counted(now) if now is not None else (0, 0)
        if not hit:
            return Reading.unmeasured(asked, method, f"{matched} requests matched, none was hit")
        values = {"asked": 1.0, "measured": hit / matched, "n": float(matched)}
        told = f"{hit} of {matched} requests were hit"
        return Reading(Effect.EFFECTIVE, asked, told, method, "", values)

    def remains(self, view: View, target: Object, params: M, changes: Sequence[Change]) -> str:
        """A dry run must pass as if nothing had been; the server may take a moment."""
        attempt = self._attempt(view, target, params)
        if attempt is None:
            return ""
        hit, said = self.judged(params, dryruns.made(view.client, attempt, 60.0))
        return f"a dry run still meets it: {said}" if hit else ""


def _rules(params: MatchParams) -> list[Object]:
    by_group: dict[str, list[str]] = {}
    for each in params.resources:
        by_group.setdefault(group_of(each), []).append(each.partition(".")[0])
    return [
        {
            "apiGroups": [group],
            "apiVersions": ["*"],
            "resources": resources,
            "operations": list(params.operations),
            "scope": "Namespaced",  # what is in no namespace is not kept out by selectors
        }
        for group, resources in by_group.items()
    ]


# ---------------------------------------------------------------------- the faults


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
