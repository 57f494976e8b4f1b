"""Containers of Podman and CRI-O: each is watched over by a process called conmon.

Its command line names the container and its bundle, and the first process is its child. The command
that conmon calls when the container ends is Podman with the very options that it was started with,
which is how the right Podman can be asked, whatever its folders are.
Source: conmon(8); CRI-O's annotations (pkg/annotations).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from faultline.kernel.procfs import Process
from faultline.places import bundle, shims
from faultline.places.bundle import Data
from faultline.places.container import Container

_CONMON: Final = "conmon"
_CRIO: Final = "io.kubernetes.cri-o."
_STOP: Final = "org.opencontainers.image.stopSignal"


def find(processes: Mapping[int, Process]) -> Iterator[Container]:
    """Every container of Podman or CRI-O among these processes."""
    for conmon in processes.values():
        if conmon.name != _CONMON or not bundle.of_the_host(conmon):
            continue
        argv = conmon.cmdline
        name = bundle.flag(argv, "-c", "--cid")
        if not name or {"-e", "--exec", "--exec-attach"} & set(argv):
            continue  # the latter watch over a further process of a container
        first = _first(conmon, processes)
        if first is None:
            continue
        folder = bundle.open_trusted(bundle.flag(argv, "-b", "--bundle"))
        if folder is None:
            continue
        try:
            spec = bundle.read_json(folder, "config.json")
        finally:
            os.close(folder)
        yield container(name, first, argv, spec)


def _first(conmon: Process, processes: Mapping[int, Process]) -> Process | None:
    """Its child that the runtime has noted; where its note cannot be read, its only one.

    Before there is a container the runtime is a child of conmon too, and when it has ended, the
    command that tidies up after it: whoever took that for the container would see it running again.
    """
    children = [each for each in processes.values() if each.ppid == conmon.pid]
    path = Path(bundle.flag(conmon.cmdline, "-p", "--container-pidfile"))
    folder = bundle.open_trusted(str(path.parent))
    if folder is not None:
        try:
            text = bundle.read(folder, path.name) or b""
        finally:
            os.close(folder)
        if text:
            return next((c for c in children if str(c.pid).encode() == text.strip()), None)
    options = ("-r", "--runtime", "--exit-command")
    named = {Path(bundle.flag(conmon.cmdline, option)).name for option in options}
    helpers = {_CONMON, *named} - {""}
    own = [each for each in children if not helpers & {each.name, each.program}]
    return own[0] if len(own) == 1 else None


def container(name: str, first: Process, argv: tuple[str, ...], spec: Data) -> Container:
    """What the command line of conmon and the specification tell."""
    notes = bundle.notes(spec)
    crio = notes.get("io.container.manager") == "cri-o" or f"{_CRIO}ContainerType" in notes
    labels = {**notes, **_labels(notes.get(f"{_CRIO}Labels", ""))}
    pod, inner, sandbox = shims.pod_of(labels) if crio else ("", "", False)
    return Container(
        id=name,
        runtime="cri-o" if crio else "podman",
        process=first.id,
        group=bundle.group(first.pid, name, spec),
        name=bundle.flag(argv, "-n", "--name"),
        labels=labels,
        bundle=bundle.flag(argv, "-b", "--bundle"),
        pod=pod,
        in_pod=inner,
        sandbox=sandbox,
        tool=() if crio else _podman(argv),
        stop_signal=notes.get(_STOP, ""),
        image=notes.get(f"{_CRIO}ImageName", ""),
        fleeting=notes.get("io.podman.annotations.autoremove") == "TRUE",
    )


def _labels(text: str) -> dict[str, str]:
    """CRI-O keeps the labels as JSON in an annotation."""
    try:
        found: object = json.loads(text) if text else {}
    except ValueError:
        return {}
    return cast("dict[str, str]", found) if isinstance(found, dict) else {}


def _podman(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Podman with the options that it had: `--exit-command PROGRAM`, then each of its arguments."""
    program = bundle.flag(argv, "--exit-command")
    words = [following for word, following in bundle.pairs(argv) if word == "--exit-command-arg"]
    if not program or "container" not in words:
        return ("podman",)
    return (program, *words[: words.index("container")])
