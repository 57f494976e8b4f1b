"""What keepers and commands say to each other: one JSON object a packet, with descriptors beside
it.

A SOCK_SEQPACKET unix(7) socket keeps message boundaries. The path lies in a folder that only the
store's owner may enter, and the peer's user is checked as well.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any, cast

from faultline.errors import UntrustedStore

LIMIT = 1 << 20  # bytes of one message; a record takes some 4 KiB
_FDS = 16

Message = dict[str, Any]


def channel(connection: socket.socket | None = None) -> socket.socket:
    """A socket of the right kind with room for a whole message."""
    made = connection or socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for force, option in (
        (socket.SO_SNDBUF if os.geteuid() else 32, socket.SO_SNDBUF),  # 32: SO_SNDBUFFORCE
        (socket.SO_RCVBUF if os.geteuid() else 33, socket.SO_RCVBUF),  # 33: SO_RCVBUFFORCE
    ):
        try:
            made.setsockopt(socket.SOL_SOCKET, force, LIMIT)
        except PermissionError:  # root of a user namespace may not force it
            made.setsockopt(socket.SOL_SOCKET, option, LIMIT)
    return made


def send(to: socket.socket, message: Message, fds: list[int] | None = None) -> None:
    """Send one message; blocks at most for the socket's own timeout."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    to.sendmsg([json.dumps(message, separators=(",", ":")).encode()], rights)


def receive(source: socket.socket) -> tuple[Message, list[int]] | None:
    """One message and its descriptors; None when the other side has closed."""
    space = socket.CMSG_SPACE(_FDS * 4)
    data, ancillary, _flags, _address = source.recvmsg(LIMIT, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % 4])
    if not data:
        return None
    try:
        return _read(data), list(fds)
    except ValueError:
        close(list(fds))
        raise


def _read(data: bytes) -> Message:
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError(f"a message is a JSON object, not {type(message).__name__}")  # noqa: TRY004
    return cast("Message", message)


def close(fds: list[int]) -> None:
    """Let go of descriptors that came with a message and were of no use."""
    for fd in fds:
        os.close(fd)


def check_peer(connection: socket.socket) -> int:
    """The peer's pid, after checking that it is ours or root's."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _gid = struct.unpack("iII", raw)
    if uid not in (0, os.geteuid()):
        raise UntrustedStore(
            f"process {pid} of user {uid} spoke to the keeper of user {os.geteuid()}"
        )
    return pid
