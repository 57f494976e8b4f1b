"""Whether what somebody asks for may be: is it right in itself, is everything halted, do namespaces
allow it, and may whoever asks do with their own hands what it would do.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from faultline.api.schedule import LABEL
from faultline.api.targets import AimedFaultSpec
from faultline.errors import FaultlineError, UnknownName
from faultline.injection import registry
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import registry as objects
from faultline.kubefaults.model import View
from faultline.kubefaults.notes import labels_of
from faultline.kubefaults.rights import Right
from faultline.operator.admission import contents, documents
from faultline.operator.admission.asking import Denied, Reviewer, demanded, refusal
from faultline.operator.admission.requesters import (
    Requester,
    Signer,
    kind_of,
    new_of,
    old_of,
    same,
)
from faultline.operator.caches import NAMESPACES
from faultline.operator.spaces import Policy, Space, space_of
from faultline.operator.writing import HALTS, VERSION

BEGINS = ("Fault", "Run", "Schedule", "Traffic")
"""Kinds with which something begins: not while everything is halted."""
OWNERS = {"Fault": "faults", "Run": "runs", "Schedule": "schedules", "Experiment": "experiments"}
SAMPLES = 3  # objects of a namespace for which a fault is planned to see what it demands
KEPT = 1.0  # seconds for which namespaces are remembered


@dataclass
class Judge:
    """Judges what the API server asks about. Safe in threads."""

    client: Client
    signer: Signer
    policy: Policy
    reviewer: Reviewer
    own: Callable[[], str] = lambda: ""  # our own account; empty as long as it is not known
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[str, Space] = field(default_factory=dict[str, Space])
    _known_at: float = -1e9

    # ------------------------------------------------------------------ who asks

    def requester(self, request: Object) -> Requester:
        """Who asks for it: whoever makes the request; of what we make ourselves, whoever asked for
        what it belongs to. Raises Denied.
        """
        who = Requester.of(cast(Object, request.get("userInfo") or {}))
        own = self.own()
        if not own or who.user != own or kind_of(request) == "Halt":
            return who
        if request.get("operation") == "UPDATE":
            before = self.signer.requester(old_of(request))
            if before is not None:
                return before
        return self._of_owner(new_of(request), str(request.get("namespace") or ""))

    def _of_owner(self, each: Object, namespace: str) -> Requester:
        for kind, name, owner in owners(each):
            path = f"/apis/{VERSION}/namespaces/{namespace}/{OWNERS[kind]}/{name}"
            try:
                found = self.client.rest.request("GET", path).json()
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
                continue
            asked = self.signer.requester({**found, "kind": kind})
            if asked is not None and owner in ("", metadata(found).get("uid")):
                return asked.by_way_of(f"{kind}/{namespace}/{name}")
        raise Denied(
            403, "Forbidden", "what the operator makes must belong to something that somebody has "
            "asked for through our webhook",
        )  # fmt: skip

    # ------------------------------------------------------------------ judged

    def judge(self, request: Object) -> None:
        """Raises Denied, or ApiError where the server does not answer."""
        kind, each = kind_of(request), new_of(request)
        spec = cast(Object, each.get("spec") or {})
        if request.get("operation") == "UPDATE" and same(request):
            return
        found = documents.problems(kind, each)
        if found:
            told = "; ".join(map(str, found))
            raise Denied(422, "Invalid", told, tuple((one.path, one.expected) for one in found))
        if kind in BEGINS and request.get("operation") == "CREATE":
            self._halted()
        if kind in ("Halt", "Calendar"):
            return
        who = self.requester(request)
        if self.signer.requester({**each, "kind": kind}) != who:
            raise Denied(
                403, "Forbidden", "who asks for it is not written into it: is the configuration "
                "MutatingWebhookConfiguration faultline in place?",
            )  # fmt: skip
        namespace = str(request.get("namespace") or "")
        self._permitted(who, namespace, contents.of(kind, namespace, spec, self.client))

    def _halted(self) -> None:
        for halt in self.client.every(HALTS):
            meta = metadata(halt)
            if not meta.get("deletionTimestamp"):
                reason = str(cast(Object, halt.get("spec") or {}).get("reason") or "")
                told = f": {reason}" if reason else ""
                hint = f"lift it: kubectl delete halt {meta['name']}"
                raise Denied(403, "Forbidden", f"everything is halted{told}; {hint}")

    def _permitted(self, who: Requester, namespace: str, asked: contents.Contents) -> None:
        for path, right in asked.rights:
            self._has(who, path, "a Job", [right])
        for one in asked.faults:
            self._fault(who, namespace, one)

    def _fault(self, who: Requester, namespace: str, asked: contents.Asked) -> None:
        spec = asked.spec
        try:
            reach = contents.reach(spec, namespace)
        except FaultlineError as error:
            raise Denied(422, "Invalid", f"{asked.path}: {error.message}") from error
        spaces = self._open(asked.path, reach)
        try:
            demands = registry.get(spec.fault).demands
        except UnknownName:
            rights = self._of_objects(spec, spaces, reach)
        else:
            rights = demanded(demands, spaces, nodes=reach.nodes)
        self._has(who, asked.path, spec.fault, rights)

    def _has(self, who: Requester, path: str, what: str, rights: Iterable[Right]) -> None:
        missing = self.reviewer.missing(who, rights)
        if missing:
            raise Denied(403, "Forbidden", f"{path}: {refusal(who, what, missing)}")

    # ------------------------------------------------------------------ namespaces

    def _open(self, path: str, reach: contents.Reach) -> list[str]:
        """The namespaces that are reached; raises Denied for one that is named and closed."""
        if not reach.spaces:
            return []
        named = [each for each in reach.spaces if not contents.is_pattern(each)]
        known = self.spaces(named)
        for each in named:
            why = self.policy.closed(each, known.get(each))
            if why:
                raise Denied(403, "Forbidden", f"{path}: {why}")
        patterns = [each for each in reach.spaces if contents.is_pattern(each)]
        found = [
            each
            for each in contents.fitting(patterns, list(known))
            if not self.policy.closed(each, known[each])
        ]
        return list(dict.fromkeys((*named, *found)))

    def spaces(self, wanted: Sequence[str] = ()) -> dict[str, Space]:
        """All namespaces, with those that are wanted if they are there; raises ApiError."""
        with self._lock:  # one asks, the others wait for its answer
            old = time.monotonic() - self._known_at >= KEPT
            if old or any(each not in self._known for each in wanted):
                listed = self.client.every(NAMESPACES)
                self._known = {str(metadata(each)["name"]): space_of(each) for each in listed}
                self._known_at = time.monotonic()
            return self._known

    # ------------------------------------------------------------------ faults of objects

    def _of_objects(
        self, spec: AimedFaultSpec, spaces: Sequence[str], reach: contents.Reach
    ) -> list[Right]:
        """What the changes demand that it would make to some of its targets; the operator looks
        again at what it makes to each.
        """
        fault = objects.get(spec.fault)
        params = fault.params_type().model_validate(spec.params)
        view = View(
            self.client, "0" * 16, random.Random(0), frozenset(spec.allow),
            seconds=spec.duration.seconds,
        )  # fmt: skip
        rights: dict[Right, None] = {}
        for target in self._samples(spec, fault.kinds, spaces, reach):
            try:
                changes = fault.plan(view, target, params)
                demands = fault.demands(view, target, params, changes)
            except FaultlineError:
                continue  # the operator says of each target what is wrong with it
            rights |= dict.fromkeys(demands)
        return list(rights)

    def _samples(
        self, spec: AimedFaultSpec, kinds: Sequence[str], spaces: Sequence[str],
        reach: contents.Reach,
    ) -> Iterable[Object]:  # fmt: skip
        selector = spec.selector
        asked = selector.objects if selector is not None else None
        name = "Node" if reach.nodes else "Pod"
        if asked is not None:
            name = asked.kind or (kinds[0] if len(kinds) == 1 else "")
        if not name:
            return
        group = asked.api_version.rpartition("/")[0] if asked is not None else ""
        kind = self.client.kind(name, group)
        wanted: dict[str, str] = reach.criteria.labels if reach.criteria is not None else {}
        labels = ",".join(f"{key}={value}" for key, value in wanted.items())
        names = contents.names_of(reach.criteria)
        for space in spaces if kind.namespaced else [""]:
            left = SAMPLES
            for each in self.client.every(kind, space, labels=labels):
                own = str(metadata(each)["name"])
                if kind.kind == "Namespace" and own not in spaces:
                    continue
                if names and not any(contents.fitting(names, [own, f"{space}/{own}"])):
                    continue
                yield {"apiVersion": kind.version, "kind": kind.kind, **each}
                left -= 1
                if not left:
                    break


def owners(each: Object) -> list[tuple[str, str, str]]:
    """To what of ours an object of ours belongs: kind, name and, if it says so, the uid. Runs that
    engines make have labels.
    """
    listed = cast("list[Object]", metadata(each).get("ownerReferences") or [])
    found = [
        (str(one["kind"]), str(one["name"]), str(one["uid"]))
        for one in listed
        if one.get("apiVersion") == VERSION and one.get("kind") in OWNERS
    ]
    if each.get("kind") == "Run":
        labels = labels_of(each)
        for label, kind in ((LABEL, "Schedule"), ("parent", "Run")):
            if label in labels:
                found.append((kind, labels[label], ""))
    return found
