"""Putting objects into a cluster, and waiting until what they describe works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, cast

from faultline.errors import ApplyFailed
from faultline.kube.manifests import AGENT, NAMESPACE, OPERATOR, Object
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, metadata

DEPLOYMENTS: Final = Kind("Deployment", "deployments", "apps/v1")
DAEMONS: Final = Kind("DaemonSet", "daemonsets", "apps/v1")
PODS: Final = Kind("Pod", "pods", "v1")
HOSTS: Final = Kind("Host", "hosts", "faultline.dev/v1alpha1", namespaced=False)
_IMAGE: Final = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
_BROKEN: Final = (*_IMAGE, "CreateContainerConfigError", "CreateContainerError", "CrashLoopBackOff")
_STEP: Final = 0.5


def apply(client: Client, objects: Iterable[Object]) -> int:
    """Make them as they are here, with server-side apply; how many they were. Raises ApiError."""
    count = 0
    for each in objects:
        kind = _kind(client, each)
        meta = metadata(each)
        where = str(meta.get("namespace") or "")
        client.patch(kind, str(meta["name"]), each, "apply", namespace=where, force=True)
        count += 1
    return count


def _kind(client: Client, each: Object) -> Kind:
    version = str(each["apiVersion"])
    for kind in client.served(version):
        if kind.kind == each["kind"]:
            return kind
    raise ApiError(404, "NotFound", f"the server knows no {each['kind']} of {version}")


def ready(
    client: Client, at: str = NAMESPACE, *, agents: bool = True, patience: float = 180.0,
    say: Callable[[str], None] = lambda _: None,
) -> int:  # fmt: skip
    """Wait until the operator and the agents work; how many agents. Raises ApplyFailed where they
    cannot, or do not in time.
    """
    until, told = time.monotonic() + patience, ""
    while True:
        waits = [*_operator(client, at), *(_agents(client, at) if agents else ())]
        if not waits:
            return sum(1 for _ in client.every(HOSTS)) if agents else 0
        if waits[0] != told:
            told = waits[0]
            say(told)
        if broken := _broken(client, at):
            raise broken
        if time.monotonic() > until:
            raise ApplyFailed(
                f"not ready after {patience:g} s: {'; '.join(waits)}",
                hint=f"kubectl -n {at} get pods; kubectl -n {at} describe pods",
            )
        time.sleep(_STEP)


def _operator(client: Client, at: str) -> Iterator[str]:
    status = _status(client, DEPLOYMENTS, OPERATOR, at)
    if not status.get("availableReplicas"):
        yield "the operator is starting"


def _agents(client: Client, at: str) -> Iterator[str]:
    status = _status(client, DAEMONS, AGENT, at)
    wanted, there = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    if not wanted or there < wanted:
        yield f"{there} of {wanted} agents run"
        return
    try:
        known = sum(1 for each in client.every(HOSTS) if each.get("status"))
    except ApiError as error:
        if error.status != 404:
            raise
        known = 0  # the kind is just being served
    if known < wanted:
        yield f"{known} of {wanted} agents have said what their host is"


def _status(client: Client, kind: Kind, name: str, at: str) -> Object:
    found = client.get(kind, name, at)
    status = cast(Object, found.get("status") or {})
    return status if status.get("observedGeneration") == metadata(found).get("generation") else {}


def _broken(client: Client, at: str) -> ApplyFailed | None:
    """What keeps a pod from starting, where waiting does not help."""
    for pod in client.every(PODS, at, labels="app.kubernetes.io/part-of=faultline"):
        status = cast(Object, pod.get("status") or {})
        for each in cast("list[Object]", status.get("containerStatuses") or []):
            state = cast(Object, each.get("state") or {})
            waiting = cast(Object, state.get("waiting") or {})
            reason = str(waiting.get("reason") or "")
            if reason not in _BROKEN:
                continue
            name = str(metadata(pod)["name"])
            hint = f"kubectl -n {at} logs {name} --previous"
            if reason in _IMAGE:
                hint = (
                    "build the image, push it where nodes can fetch it, and say where: "
                    "--registry REGISTRY (docs/install-kubernetes.md)"
                )
            said = str(waiting.get("message") or reason)
            return ApplyFailed(f"pod {name}: {reason}: {said}", hint=hint)
    return None
