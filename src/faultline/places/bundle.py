"""Files that a runtime keeps of a container, read only where nobody but root could write them.

A container is known by its bundle: the folder whose `config.json` is the specification that its
first process was started from (opencontainers/runtime-spec, config.md).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from faultline.kernel import files, machine, procfs

Data = dict[str, Any]
_LIMIT: Final = 8 << 20
_NO_FILE: Final = (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError)


def trusted(info: os.stat_result) -> bool:
    """Whether only root and we can write it."""
    return info.st_uid in (0, os.geteuid()) and not info.st_mode & 0o022


def read(folder: int, name: str) -> bytes | None:
    """A file in an open folder; None where there is none, or where others could have written it."""
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or not trusted(info) or info.st_size > _LIMIT:
            return None
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_json(folder: int, name: str) -> Data:
    """The same as an object; {} for what is none."""
    text = read(folder, name)
    try:
        found: object = json.loads(text) if text else {}
    except ValueError:  # half written: it is looked at again
        return {}
    return cast("Data", found) if isinstance(found, dict) else {}


def read_at(path: str, root: int | None = None) -> Data:
    """The object in the file at an absolute path, as it is seen from `root`."""
    seen = path if root is not None else machine.path(path)
    try:
        folder = files.open_folder(str(Path(seen).parent), root)
    except OSError:
        return {}
    try:
        return read_json(folder, Path(path).name) if trusted(os.fstat(folder)) else {}
    finally:
        os.close(folder)


def open_trusted(path: str, folder: int | None = None) -> int | None:
    """A descriptor of a folder that only root and we can write; None otherwise."""
    if folder is None and path.startswith("/") and not path.startswith("/proc/"):
        path = machine.path(path)  # it was noted by whoever does not live in our container
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except _NO_FILE:
        return None
    if trusted(os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def notes(spec: Data) -> dict[str, str]:
    """What the runtime and the orchestrator have noted in a specification."""
    found: object = spec.get("annotations")
    inside = cast("Data", found) if isinstance(found, dict) else {}
    return {name: value for name, value in inside.items() if isinstance(value, str)}


def group(pid: int, container: str, spec: Data) -> str:
    """The control group that the runtime made, though the process may sit in one below; '' if not
    known.

    By the container's id in its path, else by what the specification says: a path, or
    `SLICE:PREFIX:NAME` for a scope of systemd.
    """
    linux: object = spec.get("linux")
    said = str(cast("Data", linux).get("cgroupsPath", "")) if isinstance(linux, dict) else ""
    parts = said.split(":")
    scope = f"/{parts[1]}-{parts[2]}.scope" if len(parts) == 3 else said
    for path in groups(pid):
        if cut := _through_id(path, container) or _through(path, scope.rstrip("/")):
            return cut
    return ""


def groups(pid: int) -> list[str]:
    """The control group of a process in each hierarchy; none when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except _NO_FILE:
        return []
    return [line.split(":", 2)[2] for line in lines]


def _through_id(path: str, container: str) -> str:
    parts = path.split("/")
    at = [number for number, part in enumerate(parts) if container in part]
    return "/".join(parts[: at[-1] + 1]) if at else ""


def _through(path: str, inner: str) -> str:
    at = f"{path}/".find(f"{inner}/") if inner.strip("/") else -1
    return path[: at + len(inner)] if at >= 0 else ""


def flag(argv: Iterable[str], *names: str) -> str:
    """The value of an option of a command line, given as two words or with '='; '' without it."""
    for word, following in pairs(argv):
        if word in names:
            return following
        name, equals, value = word.partition("=")
        if equals and name in names:
            return value
    return ""


def pairs(argv: Iterable[str]) -> list[tuple[str, str]]:
    """Each word of a command line with the one after it, '' after the last."""
    words = list(argv)
    return list(zip(words, [*words[1:], ""], strict=False))


def of_the_host(process: procfs.Process) -> bool:
    """Whether a process that says what a container is belongs to us or root, outside of any."""
    if process.uid not in (0, os.geteuid()):
        return False
    return all(_shares(process.pid, each) for each in ("pid", "user"))


def _shares(pid: int, namespace: str) -> bool:
    """Whether a process is in the namespace of this kind that we are in."""
    try:
        theirs, ours = (Path(f"/proc/{who}/ns/{namespace}").stat() for who in (pid, "self"))
    except OSError:  # it has ended, or is not ours to look at
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
