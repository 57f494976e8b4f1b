"""Leaving a cluster: every fault is undone, by whoever can, and then what we are made of goes.

It begins where it finds things: the operator may be gone already, or its rights, its namespace, or
half of the kinds. Nothing but our own objects is deleted, which are known by their label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final, cast

from faultline.errors import RecoveryIncomplete
from faultline.kube.manifests import PART_OF
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata

VERSION: Final = "faultline.dev/v1alpha1"
FAULTS: Final = Kind("Fault", "faults", VERSION)
HOSTS: Final = Kind("Host", "hosts", VERSION, namespaced=False)
HALTS: Final = Kind("Halt", "halts", VERSION, namespaced=False)
LEASES: Final = Kind("Lease", "leases", "coordination.k8s.io/v1")
PODS: Final = Kind("Pod", "pods", "v1")
SPACES: Final = Kind("Namespace", "namespaces", "v1", namespaced=False)
KINDS: Final = "CustomResourceDefinition"
FINALIZER: Final = "faultline.dev/undo"
HALT: Final = "uninstall"
OURS: Final = f"{PART_OF}=faultline"
HOOKS: Final = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
ORDER: Final = (
    # Agents before the Hosts that they would make anew, the operator before its webhooks.
    "DaemonSet", "Deployment", *HOOKS, "Job", "Service", "ConfigMap", "Secret", "ServiceMonitor",
    "PrometheusRule", "ResourceQuota", "PodDisruptionBudget", KINDS, "RoleBinding", "Role",
    "ClusterRoleBinding", "ClusterRole", "ServiceAccount",
)  # fmt: skip
PATIENCE: Final = 150.0  # seconds: an undo may take 60, and a lease may have to end before
_STEP: Final = 0.3
StandIn = Callable[[str], AbstractContextManager[None]]


@dataclass
class Leaving:
    """One farewell. `stand_in` is an operator that works for as long as its block lasts, with its
    lease in the namespace that it is given.
    """

    client: Client
    namespace: str
    say: Callable[[str], None]
    stand_in: StandIn | None = None
    patience: float = PATIENCE
    _gone: list[str] = field(default_factory=list[str])

    # ------------------------------------------------------------------ faults

    def faults(self) -> None:
        """Have every fault undone, and nothing new begun; raises RecoveryIncomplete."""
        left = self._left()
        if left is None:
            self.say("the kinds are not there any more")
            return
        self._halt()
        if left:
            self.say(f"{len(left)} faults are being undone")
        with ExitStack() as stack:
            if left and self.stand_in is not None:
                stack.enter_context(self.stand_in(self._home()))
            self._wait(self._none_left, self.patience)
        for each in self._left() or []:
            self._let_go(each)
        if left := self._left():
            named = ", ".join(_name(each) for each in left)
            raise RecoveryIncomplete(
                f"not undone yet: {named}",
                hint="their status says where; what is there ends at its deadline: "
                "kubectl get faults -A -o wide",
            )
        self.say("every fault is undone")

    def _none_left(self) -> bool:
        """Whether there is none; one that somebody makes meanwhile goes like the others."""
        left = self._left() or []
        for each in left:
            if not metadata(each).get("deletionTimestamp"):
                self._delete(FAULTS, each)
        return not left

    def lift(self) -> None:
        """Take our halt away: the kinds stay, and somebody may install again."""
        with _gone_is_fine():
            self.client.delete(HALTS, HALT)

    def _halt(self) -> None:
        made: Object = {
            "apiVersion": VERSION, "kind": "Halt", "metadata": {"name": HALT},
            "spec": {"reason": "Faultline is being uninstalled"},
        }  # fmt: skip
        try:
            self.client.create(HALTS, made)
        except ApiError as error:
            # There is one already, or the kind itself is just going.
            if error.status not in (404, 405, 409):
                raise

    def _home(self) -> str:
        """Where the lease of an operator can lie: its own namespace, if that is not gone."""
        try:
            found = self.client.get(SPACES, self.namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return "default"
        phase = cast(Object, found.get("status") or {}).get("phase")
        return "default" if phase == "Terminating" else self.namespace

    def _let_go(self, fault: Object) -> None:
        """Nobody has answered for it: it may go if no host says that anything of it is there."""
        uid = str(metadata(fault).get("uid"))
        for host in self._every(HOSTS):
            actual, desired = _listed(host, "status", "actual"), _listed(host, "spec", "desired")
            mine = {str(each["uid"]) for each in desired if each.get("ownerUid") == uid}
            if any(each["uid"] in mine and each["stage"] not in ("ended", "refused")
                   for each in actual):  # fmt: skip
                return
        there = cast("list[str]", metadata(fault).get("finalizers") or [])
        others = [each for each in there if each != FINALIZER]
        change: Object = {"metadata": {"finalizers": others or None}}
        with _gone_is_fine():
            where = str(metadata(fault).get("namespace"))
            self.client.patch(FAULTS, str(metadata(fault)["name"]), change, namespace=where)

    def _left(self) -> list[Object] | None:
        """The faults that there are; None where there is no such kind."""
        try:
            return list(self.client.every(FAULTS))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    # ------------------------------------------------------------------ what we are made of

    def objects(self, *, kinds: bool = True) -> list[str]:
        """Delete all that carries our label, and wait until it is gone; what was deleted. Without
        `kinds` the definitions stay, and whatever documents there are.
        """
        for name in ORDER:
            if name == KINDS and not kinds:
                continue
            for kind in self._kinds(name):
                found = list(self._every(kind, OURS))
                for each in found:
                    self._delete(kind, each)
                    self._gone.append(f"{name} {_name(each)}")
                if found:
                    self._wait(lambda kind=kind: not any(self._every(kind, OURS)), self.patience)
            if name == "DaemonSet":
                self._wait(lambda: not any(self._every(PODS, OURS)), 60.0)
        for space in {self.namespace, "default"}:
            self._leases(space)
        self._space()
        return self._gone

    def _kinds(self, name: str) -> Iterator[Kind]:
        with _gone_is_fine():
            yield self.client.kind(name)

    def _leases(self, space: str) -> None:
        for each in self._every(LEASES, space=space):
            name = str(metadata(each)["name"])
            if name == "faultline-operator" or (name.startswith("agent-") and space != "default"):
                self._delete(LEASES, each)

    def _space(self) -> None:
        """The namespace, if it is ours and nobody else lives there."""
        try:
            found = self.client.get(SPACES, self.namespace)
        except ApiError:
            return
        if _labels(found).get(PART_OF) != "faultline":
            self.say(f"the namespace {self.namespace} is not ours and stays")
            return
        others = [_name(each) for each in self._every(PODS, space=self.namespace)
                  if _labels(each).get(PART_OF) != "faultline"]  # fmt: skip
        if others:
            self.say(f"the namespace {self.namespace} stays: {', '.join(others[:5])} run there")
            return
        self._delete(SPACES, found)
        self._gone.append(f"Namespace {self.namespace}")
        self._wait(lambda: not self._there(), self.patience)

    def _there(self) -> bool:
        with _gone_is_fine():
            self.client.get(SPACES, self.namespace)
            return True
        return False

    # ------------------------------------------------------------------ the server

    def _every(self, kind: Kind, labels: str = "", space: str = "") -> Iterator[Object]:
        with _gone_is_fine():
            yield from self.client.every(kind, space, labels=labels)

    def _delete(self, kind: Kind, each: Object) -> None:
        meta = metadata(each)
        with _gone_is_fine():
            where = str(meta.get("namespace") or "")
            self.client.delete(kind, str(meta["name"]), where)

    def _wait(self, holds: Callable[[], bool], patience: float) -> bool:
        until = time.monotonic() + patience
        while not holds():
            if time.monotonic() > until:
                return False
            time.sleep(_STEP)
        return True


@contextmanager
def _gone_is_fine() -> Generator[None]:
    """What is not there any more needs no more doing."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise


def _labels(each: Object) -> dict[str, str]:
    return cast("dict[str, str]", metadata(each).get("labels") or {})


def _listed(each: Object, part: str, name: str) -> list[Object]:
    return cast("list[Object]", cast(Object, each.get(part) or {}).get(name) or [])


def _name(each: Object) -> str:
    meta = metadata(each)
    space = f"{meta['namespace']}/" if meta.get("namespace") else ""
    return f"{space}{meta['name']}"
