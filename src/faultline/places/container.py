"""What is known of one container."""

from __future__ import annotations

from dataclasses import dataclass, field

from faultline.kernel.procfs import ProcessId


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
    fleeting: bool = False  # its runtime removes it as soon as it has ended

    @property
    def words(self) -> str:
        name = f"{self.pod}/{self.in_pod}" if self.pod else self.name or self.id[:12]
        return f"container {name.rstrip('/')} ({self.runtime} {self.id[:12]})"
