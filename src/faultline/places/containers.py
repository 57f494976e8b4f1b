"""Containers of this host, whichever runtime runs them."""

from __future__ import annotations

from dataclasses import dataclass, field

from faultline.errors import TargetGone
from faultline.kernel.procfs import ProcessId


@dataclass(frozen=True, slots=True)
class Container:
    """One running container."""

    id: str  # whole
    runtime: str  # docker, containerd, cri-o, podman
    process: ProcessId  # its first process
    group: str  # the control group that holds exactly this container
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    namespace: str = ""  # of containerd
    bundle: str = ""  # the folder with its config.json
    address: str = ""  # the socket of its runtime, where that is known
    pod: str = ""  # NAMESPACE/NAME
    in_pod: str = ""  # its name within the pod
    sandbox: bool = False  # holds the pod's namespaces and runs nothing

    @property
    def words(self) -> str:
        name = f"{self.pod}/{self.in_pod}" if self.pod else self.name or self.id[:12]
        return f"container {name} ({self.runtime} {self.id[:12]})"


def all_containers() -> list[Container]:
    """Every running container, also those that only hold a pod together."""
    return []


def find(text: str) -> Container:
    """The container with this id, unambiguous beginning of it, name, or label KEY=VALUE.

    Raises TargetGone if none fits, Refused if several do.
    """
    raise TargetGone(f"no container is called {text!r}")


def find_in_pod(text: str) -> Container:
    """The container of a pod NAMESPACE/NAME[/CONTAINER]; of a pod with one, that one."""
    raise TargetGone(f"no container of this node is in the pod {text!r}")
