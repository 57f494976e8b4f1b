"""Pods of this node by identity: another pod of the same name is another pod.

The runtimes note the uid that the kubelet gave, and the kubelet puts it into the path of the
control group of every pod. For a static pod that is not the uid of its mirror in the API server,
but what its annotation `kubernetes.io/config.mirror` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from faultline.errors import Refused, TargetGone
from faultline.places import bundle, containers
from faultline.places.container import Container

_UID = re.compile(r"(?:^|[/-])pod([0-9a-f][0-9a-f_-]{30,35})(?:\.slice)?(?:/|$)")
_LABELS = ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pod, and perhaps one of its containers."""

    namespace: str
    name: str
    uid: str
    container: str = ""  # by its name in the pod
    container_id: str = ""  # `containerd://ID`, or the id alone: only that very one


def uid_of(container: Container) -> str:
    """The uid of the pod that a container belongs to; '' where nothing tells."""
    for label in _LABELS:
        if container.labels.get(label):
            return container.labels[label]
    for path in bundle.groups(container.process.pid):
        if found := _UID.search(path):
            return found[1].replace("_", "-")
    return ""


def find(wanted: Wanted, *, network: bool = False) -> Container:
    """The container that is meant: the one that is named, else the only one of the pod.

    With `network`, and without a container, the sandbox: it holds the network of the pod for as
    long as the pod lives, whichever of its containers is started anew. Raises TargetGone, Refused.
    """
    known = containers.all_containers()
    members = [each for each in known if each.pod and uid_of(each) == wanted.uid]
    if not members:
        raise _gone(wanted, known)
    inside = [each for each in members if not each.sandbox]
    sandboxes = [each for each in members if each.sandbox]
    pod = f"{wanted.namespace}/{wanted.name}"
    if wanted.container_id:
        name = wanted.container_id.rpartition("//")[2]
        inside = [each for each in inside if each.id == name]
        if not inside:
            raise TargetGone(f"the container {name[:12]} of the pod {pod} has ended")
    elif wanted.container:
        inside = [each for each in inside if each.in_pod == wanted.container]
        if not inside:
            raise TargetGone(f"no container {wanted.container} runs in the pod {pod}")
    elif network and sandboxes:
        return sandboxes[0]
    if not inside:
        raise TargetGone(f"no container runs in the pod {pod}")
    if len(inside) > 1:
        names = ", ".join(sorted(each.in_pod for each in inside))
        raise Refused(f"the pod {pod} has several containers: {names}", hint="name one of them")
    return inside[0]


def _gone(wanted: Wanted, known: Sequence[Container]) -> TargetGone:
    pod = f"{wanted.namespace}/{wanted.name}"
    others = sorted({uid_of(each) for each in known if each.pod == pod})
    hint = f"another pod of that name runs here: {', '.join(others)}" if others else ""
    return TargetGone(f"the pod {pod} with the uid {wanted.uid} is not on this node", hint=hint)
