"""What is known of one container."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from faultline.kernel.procfs import ProcessId

_MADE_UP = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Container:
    """One running container."""

    id: str  # whole
    runtime: str  # docker, containerd, cri-o, podman
    process: ProcessId  # its first process
    group: str  # the control group that holds exactly this container; '' if it shares one
    name: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    namespace: str = ""  # of containerd
    bundle: str = ""  # the folder with its config.json
    address: str = ""  # the socket of its runtime, where that is known
    pod: str = ""  # NAMESPACE/NAME
    in_pod: str = ""  # its name within the pod
    sandbox: bool = False  # holds the pod's namespaces and runs nothing
    tool: tuple[str, ...] = ()  # the command that reaches the very runtime that started it
    stop_signal: str = ""  # what its image asks for instead of SIGTERM
    image: str = ""  # where it stands in a file of its runtime
    fleeting: bool = False  # its runtime removes it as soon as it has ended

    @property
    def short(self) -> str:
        """As much of its id as people use; an id that somebody chose is a name and left whole."""
        return self.id[:12] if _MADE_UP.fullmatch(self.id) else self.id

    @property
    def words(self) -> str:
        name = f"{self.pod}/{self.in_pod}" if self.pod else self.name or self.short
        return f"container {name.rstrip('/')} ({self.runtime} {self.short})"
