"""Containers of containerd: those of Docker, of Kubernetes, and its own.

Each has a process called containerd-shim*, or shares one with the others of its pod, whose current
folder is the bundle `.../<namespace of containerd>/<id>`. The first process of a container is a
child of its shim, so the kernel has the last word on who belongs to whom. It works while containerd
and dockerd hang.
Source: containerd, docs/runtime-v2.md; Docker's `config.v2.json`, which it keeps of each container
beside the `hostname` that it mounts into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from faultline.kernel.procfs import Process
from faultline.places import bundle
from faultline.places.bundle import Data
from faultline.places.container import Container

_COMM: Final = "containerd-shim"
_CRI: Final = "io.kubernetes.cri."
_PODS: Final = "/var/log/pods/"


@dataclass(frozen=True, slots=True)
class _Shim:
    namespace: str
    address: str


def find(processes: Mapping[int, Process]) -> Iterator[Container]:
    """Every container of every containerd among these processes."""
    shims = {pid: each for pid, each in processes.items() if _is_shim(each)}
    seen: set[tuple[int, int]] = set()
    for shim in shims.values():
        own = bundle.open_trusted(f"/proc/{shim.pid}/cwd")
        if own is None:
            continue
        above = bundle.open_trusted("..", own)
        os.close(own)
        if above is None:
            continue
        try:
            info = os.fstat(above)
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                yield from _in_folder(above, processes, shims)
        finally:
            os.close(above)


def _is_shim(process: Process) -> bool:
    return process.name.startswith(_COMM) and bundle.of_the_host(process)


def _in_folder(
    folder: int, processes: Mapping[int, Process], shims: Mapping[int, Process]
) -> Iterator[Container]:
    """Those whose bundles lie here."""
    path = str(Path(f"/proc/self/fd/{folder}").readlink())
    for name in sorted(os.listdir(folder)):
        fd = bundle.open_trusted(name, folder)
        if fd is None:
            continue
        try:
            pid = int(bundle.read(fd, "init.pid") or b"0")
            first = processes.get(pid)
            shim = shims.get(first.ppid) if first else None
            if first is not None and shim is not None:
                yield _container(name, first, _of(shim), bundle.read_json(fd, "config.json"), path)
        except ValueError:  # half written: it is just starting
            continue
        finally:
            os.close(fd)


def _of(shim: Process) -> _Shim:
    namespace = bundle.flag(shim.cmdline, "-namespace", "--namespace")
    address = bundle.flag(shim.cmdline, "-address", "--address")
    return _Shim(namespace, address)


def _container(name: str, first: Process, shim: _Shim, spec: Data, folder: str) -> Container:
    notes = bundle.notes(spec)
    docker = _docker(name, spec)
    config = cast("Data", docker.get("Config") or {})
    labels: dict[str, str] = {**notes, **(config.get("Labels") or {})}
    pod, inner, sandbox = pod_of(labels)
    return Container(
        id=name,
        runtime="docker" if docker else "containerd",
        process=first.id,
        group=bundle.group(first.pid, name, spec),
        name=str(docker.get("Name", "")).lstrip("/") or labels.get("nerdctl/name", ""),
        labels=labels,
        namespace=shim.namespace,
        bundle=f"{folder}/{name}",
        address=shim.address,
        pod=pod,
        in_pod=inner,
        sandbox=sandbox,
        tool=() if docker else ("ctr", "--address", shim.address, "--namespace", shim.namespace),
        stop_signal=str(config.get("StopSignal") or ""),
        image=str(config.get("Image") or labels.get(f"{_CRI}image-name", "")),
        fleeting=bool(docker.get("fleeting")),
    )


def _docker(name: str, spec: Data) -> Data:
    """What Docker keeps of a container, wherever it does; {} for a container that is not Docker's.

    A container of a pod has the `hostname` of the pod's first one, which lies beside its own.
    """
    mounts = cast("list[Data]", spec.get("mounts") or [])
    for source in (Path(str(each.get("source", ""))) for each in mounts):
        if source.name in ("hostname", "hosts", "resolv.conf"):
            folder = source.parent.parent / name
            found = bundle.read_at(str(folder / "config.v2.json"))
            if found.get("ID") == name:
                more = bundle.read_at(str(folder / "hostconfig.json"))
                return {**found, "fleeting": more.get("AutoRemove")}
    return {}


def pod_of(labels: Mapping[str, str]) -> tuple[str, str, bool]:
    """The pod NAMESPACE/NAME, the name in it, and whether it is the pod's sandbox.

    As containerd notes it, or as the kubelet labels it for CRI-O and cri-dockerd.
    """
    kind = labels.get(f"{_CRI}container-type", labels.get("io.kubernetes.docker.type", ""))
    kind = kind or labels.get("io.kubernetes.cri-o.ContainerType", "")
    inner = labels.get(f"{_CRI}container-name", labels.get("io.kubernetes.container.name", ""))
    space = labels.get(f"{_CRI}sandbox-namespace", labels.get("io.kubernetes.pod.namespace", ""))
    name = labels.get(f"{_CRI}sandbox-name", labels.get("io.kubernetes.pod.name", ""))
    if not name:  # before containerd 1.6: in the folder of its logs
        told = labels.get(f"{_CRI}sandbox-log-directory", "").removeprefix(_PODS).split("_")
        space, name = told[:2] if len(told) == 3 else ("", "")
    if not name:
        return "", "", False
    sandbox = kind in ("sandbox", "podsandbox")
    return f"{space}/{name}", "" if sandbox else inner, sandbox


def sandbox_id(labels: Mapping[str, Any]) -> str:
    """The id of the sandbox of a container's pod; '' where it is not noted."""
    return str(labels.get(f"{_CRI}sandbox-id", ""))
