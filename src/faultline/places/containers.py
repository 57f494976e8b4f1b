"""Containers of this host, whichever runtime runs them.

They are found from the kernel down: processes, then the files that their runtimes keep of them; no
runtime is asked, so that it works while one hangs. Only labels that stand in no file are asked for.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

from faultline.errors import InvalidParameter, Refused, TargetGone, nearest
from faultline.kernel import procfs
from faultline.places import conmons, labelled, shims
from faultline.places.container import Container

__all__ = ["Container", "all_containers", "find", "find_in_pod", "with_label"]

_SHOWN = 10  # candidates that an answer names


def all_containers() -> list[Container]:
    """Every running container, also those that only hold a pod together."""
    processes = {each.pid: each for each in procfs.processes()}
    found = [*shims.find(processes), *conmons.find(processes)]
    found = [each for each in found if each.process.alive()]
    pods = {each.id: each.pod for each in found if each.sandbox}
    shared = Counter(each.group for each in found)
    return [
        replace(
            each,
            group=each.group if shared[each.group] == 1 else "",
            pod=each.pod or pods.get(shims.sandbox_id(each.labels), ""),
        )
        for each in found
    ]


def find(text: str) -> Container:
    """The container with this id, unambiguous beginning of it, name, or label KEY=VALUE.

    Raises TargetGone if none fits, Refused if several do.
    """
    known = all_containers()
    key, equals, value = text.partition("=")
    complaints: list[str] = []
    if equals:
        found, complaints = with_label(known, key, value)
    else:
        found = [each for each in known if text == each.id]
        found = found or [each for each in known if text == each.name]
        found = found or [each for each in known if text and each.id.startswith(text)]
    if not found:
        raise TargetGone(f"no container is called {text!r}", hint=_hint(text, known, complaints))
    return _one(found, f"fit {text!r}", "--container ID")


def with_label(known: list[Container], key: str, value: str) -> tuple[list[Container], list[str]]:
    """Those of them that have a label, or are in a pod that has it; and who could not be asked."""
    found, complaints = labelled.find(known, key, value)
    return _of_pods(found, known), complaints


def _of_pods(found: list[Container], known: list[Container]) -> list[Container]:
    """The same with the containers of a pod in the place of its sandbox, which has its labels."""
    pods = {each.pod for each in found if each.sandbox}
    ids = {each.id for each in found}
    members = [each for each in known if not each.sandbox and (each.id in ids or each.pod in pods)]
    return members or found


def _hint(text: str, known: list[Container], complaints: list[str]) -> str:
    if complaints:
        return "; ".join(complaints)
    if not known and os.geteuid() != 0:
        return "containers that root has started are seen by root only"
    return nearest(text, [each.name or each.id for each in known if not each.sandbox])


def _one(found: list[Container], fits: str, how: str) -> Container:
    if len(found) > 1:
        named = "; ".join(f"{each.words.removeprefix('container ')}" for each in found[:_SHOWN])
        raise Refused(f"{len(found)} containers {fits}: {named}", hint=f"name one of them: {how}")
    return found[0]


def find_in_pod(text: str) -> Container:
    """The container of a pod NAMESPACE/NAME[/CONTAINER]; of a pod with one, that one; of a pod in
    which none runs, the sandbox that holds its network.

    Raises TargetGone if there is none, Refused if several fit, InvalidParameter.
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidParameter("pod", text, "NAMESPACE/NAME or NAMESPACE/NAME/CONTAINER")
    pod, inner = "/".join(parts[:2]), "".join(parts[2:])
    known = all_containers()
    members = [each for each in known if each.pod == pod]
    if not members:
        pods = sorted({each.pod for each in known if each.pod})
        raise TargetGone(f"no container of this node is in the pod {pod}", hint=nearest(pod, pods))
    inside = [each for each in members if not each.sandbox]
    if inner:
        named = [each for each in inside if each.in_pod == inner]
        if not named:
            hint = nearest(inner, [each.in_pod for each in inside])
            raise TargetGone(f"no container {inner} runs in the pod {pod}", hint=hint)
        return _one(named, f"are called {inner}", "--container ID")
    return _one(inside or members, f"are in the pod {pod}", "--pod NAMESPACE/NAME/CONTAINER")
