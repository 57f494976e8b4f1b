"""What faults of admission have in common: which requests are meant, and how it is seen.

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
from faultline.api.quantities import Between, Percent, text
from faultline.errors import Refused, Unsupported
from faultline.injection.reading import Effect, Reading, share_is
from faultline.kubeapi.model import Kind, Object, items, metadata
from faultline.kubefaults import dryruns, webhooks
from faultline.kubefaults.behaviours import Behaviour
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
            return self._counted(view, changes, asked, "no dry run is possible of what is hit")
        hits, tries, last, said = 0, 0, None, ""
        until, begun = time.monotonic() + LONGEST, False
        while time.monotonic() < until and tries < (TRIES if share < 1 else 1):
            met = dryruns.made(view.client, attempt, self.patience(params) + 10)
            hit, said = self.judged(params, met)
            if hit is None:
                return self._counted(view, changes, asked, said)
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

    def _counted(self, view: View, changes: Sequence[Change], asked: str, why: str) -> Reading:
        """Where a dry run says nothing: what the webhook has counted of the requests of others."""
        method = "what the webhook has counted"
        now = view.now(changes[-1])
        matched, hit = webhooks.counted(now) if now is not None else (0, 0)
        if not hit:
            told = f"{why}; of others {matched} requests have matched and none was hit yet"
            return Reading.unmeasured(asked, method, told)
        values = {"asked": 1.0, "measured": hit / matched, "n": float(matched)}
        told = f"{hit} of {matched} requests of others were hit"
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
