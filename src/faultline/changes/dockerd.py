"""Docker's daemon, spoken to over the socket that it listens on: HTTP by hand, since keepers do it.

The socket is read from the daemon itself (unix(7), proc_pid_net(5)), so that any address works; a
daemon is a process called dockerd that root or we have started outside of any container.
Source: the Docker Engine API, which answers paths without a version with its newest.
"""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any, Final, cast

from faultline.errors import Unsupported
from faultline.kernel import machine, procfs

Data = dict[str, Any]
_LIMIT: Final = 8 << 20
_LISTENS: Final = 0x10000  # __SO_ACCEPTCON
_LOOK: Final = 5.0  # seconds in which a daemon that is well answers a question
_BRIEF: Final = 2.0  # the same for each of several sockets of which one is the right one


def sockets() -> list[str]:
    """Where the daemons of this host listen."""
    found: list[str] = []
    for process in procfs.find_by_name("dockerd"):
        if process.uid in (0, os.geteuid()):
            found += [path for path in _listening(process.pid) if path.startswith("/")]
    return found


def _listening(pid: int) -> list[str]:
    held = {
        int(target[8:-1])
        for target in procfs.descriptors(pid).values()
        if target.startswith("socket:[")
    }
    try:
        lines = Path(f"/proc/{pid}/net/unix").read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:  # it has ended, or is not ours to look at
        return []
    rows = [line.split(maxsplit=7) for line in lines]
    return [
        row[7]
        for row in rows
        if len(row) == 8 and int(row[6]) in held and int(row[3], 16) & _LISTENS
    ]


def find(container: str) -> str:
    """The socket of the daemon that has this container; raises Unsupported."""
    known = sockets()
    for path in known:
        try:
            if inspect(path, container, _BRIEF) is not None:
                return path
        except OSError:  # another socket of the daemon, or it hangs
            continue
    if not known:
        raise Unsupported(
            "no dockerd listens on a unix socket here",
            hint="container kill and container pause work without it",
        )
    raise Unsupported(
        f"no daemon knows {container[:12]} or answers within {_BRIEF:g} s ({', '.join(known)})",
        hint="container kill and container pause work without it",
    )


def inspect(path: str, container: str, patience: float = _LOOK) -> Data | None:
    """What the daemon says of a container; None if it knows none of that id. Raises OSError."""
    status, body = call(path, "GET", f"/containers/{container}/json", patience)
    if status == 404:
        return None
    found: object = json.loads(body) if status == 200 else None
    if not isinstance(found, dict):
        raise ConnectionError(f"{path} answers with status {status}: {_said(body)}")
    return cast("Data", found)


def order(path: str, method: str, what: str, patience: float) -> bool:
    """Have something done; False if there is no such container. Raises OSError where it fails."""
    status, body = call(path, method, what, patience)
    if status == 404:
        return False
    if status >= 400:
        raise ConnectionError(f"docker answers: {_said(body)} ({status})")
    return True


def _said(body: bytes) -> str:
    found = re.search(rb'"message":\s*"((?:[^"\\]|\\.)*)"', body)
    return (found[1] if found else body[:300]).decode(errors="replace").strip()


def call(path: str, method: str, what: str, patience: float) -> tuple[int, bytes]:
    """One request of HTTP 1.0, after which the daemon closes; status and body. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        connection.connect(machine.path(path))
        head = f"{method} {what} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode("ascii"))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            if len(answer) > _LIMIT:
                raise ConnectionError(f"{path} says too much")
    first, _, rest = answer.partition(b"\r\n")
    found = re.fullmatch(rb"HTTP/1\.[01] (\d{3})\b.*", first)
    if found is None:
        raise ConnectionError(f"{path} does not speak HTTP")
    return int(found[1]), rest.partition(b"\r\n\r\n")[2]
