"""Calling an endpoint of somebody else: POST with JSON, bounded in time and in what it says."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from faultline.changes.kind import Data
from faultline.errors import ObserveFailed, Refused
from faultline.kernel import netns

if TYPE_CHECKING:
    import http.client

    from faultline.kernel.netlink import Netlink

_SAID: Final = 65536  # bytes of an answer; more is a failure


def token(path: str) -> str:
    """The bearer token in a file that only its owner can read; raises Refused for any other."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, os.geteuid()):
            raise Refused(f"{path} is not a file of ours")
        if info.st_mode & 0o077:
            raise Refused(f"others can read the token in {path}", hint=f"chmod 600 {path}")
        return os.read(fd, 8192).decode().strip()
    finally:
        os.close(fd)


def call(where: Data, verb: str, message: Data, netlink: Netlink | None) -> Data:
    """What the endpoint {url, token, time} answers to a verb; raises ObserveFailed if it does not.

    It is called from the network of the place, whoever calls.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if where["token"]:
        headers["Authorization"] = f"Bearer {token(where['token'])}"
    with _connected(where, netlink) as (connection, path):
        connection.request("POST", f"{path}/{verb}", json.dumps(message).encode(), headers)
        reply = connection.getresponse()
        text = reply.read(_SAID + 1)
    if len(text) > _SAID:
        raise ObserveFailed(f"{where['url']} said more than {_SAID} bytes")
    if reply.status // 100 != 2:
        said = text[:500].decode(errors="replace").strip()
        raise ObserveFailed(f"{where['url']} answered {verb} with {reply.status}: {said}")
    return parsed(text.decode(errors="replace"), where["url"])


def parsed(text: str, whose: str) -> dict[str, Any]:
    """An answer as JSON; raises ObserveFailed for anything that is not an object."""
    try:
        found: object = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ObserveFailed(f"{whose} did not answer with a JSON object: {text[:200]!r}")
    return cast("dict[str, Any]", found)


@contextmanager
def _connected(
    where: Data, netlink: Netlink | None
) -> Generator[tuple[http.client.HTTPConnection, str]]:
    """A connection, and the path at which the verbs are."""
    # 4 MiB that only keepers of such a fault need; the rehearsal loads them before it.
    import http.client
    from urllib.parse import urlsplit

    url = urlsplit(str(where["url"]))
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=where["time"])
    try:
        with inside(netlink):
            connection.connect()
        yield connection, url.path.rstrip("/")
    except (OSError, http.client.HTTPException) as error:
        raise ObserveFailed(f"{where['url']} does not answer: {error}") from error
    finally:
        connection.close()


@contextmanager
def inside(netlink: Netlink | None) -> Generator[None]:
    """Inside of the network namespace of a route socket, where that may be entered."""
    if netlink is None:
        yield
        return
    try:
        there = netns.of_socket(netlink.fileno())
    except PermissionError:
        yield
        return
    try:
        with netns.entered(there):
            yield
    finally:
        os.close(there)
