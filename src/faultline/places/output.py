"""Where a runtime keeps what a container writes to its standard output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from faultline.kernel import procfs
from faultline.places import bundle
from faultline.places.bundle import Data
from faultline.places.container import Container

JSON, CRI, JOURNAL = "json", "cri", "journal"
_CRIO: Final = "io.kubernetes.cri-o.LogPath"
_PODS: Final = Path("/var/log/pods")


@dataclass(frozen=True, slots=True)
class Output:
    """A log of a container: a file in one of two forms, the journal, or why there is none."""

    form: str = ""
    path: str = ""
    why: str = ""


def of(container: Container) -> Output:
    """Where its output is kept.

    Docker writes JSON lines (json-file); Podman and CRI-O write lines with a time, a stream and a
    letter, as the kubelet wants them (logging format of CRI), and so does containerd for a kubelet.
    """
    if container.runtime == "docker":
        return _docker(container)
    if container.runtime == "podman":
        return _podman(container)
    if path := container.labels.get(_CRIO, ""):
        return Output(CRI, path)
    if container.pod and (path := _kubelet(container)):
        return Output(CRI, path)
    return Output(why=f"{container.runtime} keeps no file of what {container.words} writes")


def _docker(container: Container) -> Output:
    for folder in _docker_folders(container):
        config = bundle.read_at(str(folder / "config.v2.json"))
        if config.get("ID") != container.id:
            continue
        driver = _driver(bundle.read_at(str(folder / "hostconfig.json")))
        if driver == "journald":
            return Output(JOURNAL, container.id)
        path = str(config.get("LogPath") or folder / f"{container.id}-json.log")
        if driver in ("json-file", ""):
            return Output(JSON, path)
        return Output(why=f"its log driver is {driver}, which cannot be read")
    return Output(why="the folder in which Docker keeps it was not found")


def _docker_folders(container: Container) -> Iterator[Path]:
    """The folder that Docker keeps of it lies beside the `hostname` that is mounted into it."""
    spec = bundle.read_at(f"{container.bundle}/config.json")
    for each in cast("list[Data]", spec.get("mounts") or []):
        source = Path(str(each.get("source", "")))
        if source.name in ("hostname", "hosts", "resolv.conf"):
            yield source.parent.parent / container.id


def _driver(host: Data) -> str:
    found: object = host.get("LogConfig")
    return str(cast("Data", found).get("Type") or "") if isinstance(found, dict) else ""


def _podman(container: Container) -> Output:
    """As it was told to the process that watches over it."""
    try:
        parent = procfs.process(procfs.process(container.process.pid).ppid)
    except ProcessLookupError:
        return Output(why="it has ended")
    told = [
        following
        for word, following in bundle.pairs(parent.cmdline)
        if word in ("-l", "--log-path") and following
    ]
    for each in told:
        driver, colon, path = each.partition(":")
        if driver in ("k8s-file", "json-file") and colon and path:
            return Output(CRI, path)
        if driver == "journald":
            return Output(JOURNAL, container.id)
    return Output(why="its output is kept nowhere" if told else "it is not told where it is kept")


def _kubelet(container: Container) -> str:
    """The newest file in the folder of the pod: NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log."""
    space, _, name = container.pod.partition("/")
    try:
        folders = [each for each in _PODS.iterdir() if each.name.startswith(f"{space}_{name}_")]
    except OSError:
        return ""
    files = [file for folder in folders for file in (folder / container.in_pod).glob("*.log")]
    found = [(int(file.stem), str(file)) for file in files if file.stem.isdigit()]
    return max(found, default=(0, ""))[1]
