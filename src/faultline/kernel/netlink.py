"""Netlink without a library: messages, attributes, dumps and the kernel's own error texts.

Queueing disciplines, filters, links and routes are what this project exists for, so it speaks to
the kernel directly: importing a general library for it costs more than 100 ms and 30 MiB, which the
keeper does not have. Wire format: linux/netlink.h, netlink(7), rtnetlink(7).

A `Netlink` never opens another socket by itself. The keeper is handed sockets that were opened
inside other network namespaces; whatever is done through such a socket happens in its namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from faultline.kernel import netns

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLMSGERR_ATTR_MSG = 1

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

SO_NETNS_COOKIE = 71

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 1 << 18
_DUMP_ATTEMPTS = 5

Attributes = Mapping[int, bytes]


def align(length: int) -> int:
    """Round up to the four bytes that netlink aligns everything to."""
    return (length + 3) & ~3


def attribute(kind: int, payload: bytes = b"") -> bytes:
    """One attribute: length, type, payload, padding."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(align(length) - length)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def text(kind: int, value: str) -> bytes:
    """A string attribute, ended by a zero byte as the kernel expects."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def u64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=Q", value))


def s64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=q", value))


def walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every attribute in order, with repeats. Stops at what cannot be one."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            return
        yield kind & NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += align(length)


def parse(data: bytes) -> dict[int, bytes]:
    """Attributes by type; of a repeated one the last."""
    return dict(walk(data))


def as_text(payload: bytes | None) -> str:
    """A string attribute's value; an absent one is the empty string."""
    return (payload or b"").split(b"\0", 1)[0].decode(errors="surrogateescape")


def as_int(payload: bytes | None, default: int = 0) -> int:
    """An unsigned attribute of any width in the host's byte order; `default` when it is absent."""
    if not payload:
        return default
    return int.from_bytes(payload, "little" if struct.pack("=H", 1) == b"\1\0" else "big")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: its type, its flags, and everything after the netlink header."""

    kind: int
    flags: int
    payload: bytes


def _message_of_error(payload: bytes, flags: int) -> str:
    """The text of an extended acknowledgement, or the empty string."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    echoed = _HEADER.size
    if not flags & NLM_F_CAPPED:
        echoed = align(struct.unpack_from("=I", payload, 4)[0])
    return as_text(parse(payload[4 + echoed :]).get(NLMSGERR_ATTR_MSG))


def _raise_for(payload: bytes, flags: int, what: str) -> None:
    code = -struct.unpack_from("=i", payload)[0]
    if code == 0:
        return
    said = _message_of_error(payload, flags)
    told = f"{os.strerror(code)}: {said}" if said else os.strerror(code)
    raise OSError(code, told, what or None)


_SHARED_PATIENCE: Final = 2.0  # seconds


class Netlink:
    """One netlink socket, one request at a time.

    Errors of the kernel are raised as OSError with its errno, its extended text, and as `filename`
    what was being done. Not safe for use by several threads at once.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._sequence = 0
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            try:
                sock.setsockopt(SOL_NETLINK, option, 1)
            except (
                OSError
            ) as problem:  # kernels before 4.12 and 4.20: answers are only less detailed
                if problem.errno != errno.ENOPROTOOPT:
                    raise

    @classmethod
    def open(cls, protocol: int = NETLINK_ROUTE) -> Self:
        """A new socket in the calling thread's network namespace."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        return cls(socket.socket(socket.AF_NETLINK, kind, protocol))

    @classmethod
    def from_fd(cls, fd: int) -> Self:
        """Take over a descriptor, for instance one received over SCM_RIGHTS; it is closed by
        `close`.
        """
        return cls(socket.socket(fileno=fd))

    @classmethod
    def beside(cls, fd: int) -> Self:
        """A route socket of our own in the network namespace of one that somebody else uses too.

        Two users of one socket take each other's answers, and then one waits for ever. Without
        the right to enter the namespace it is that very socket, with a time-out. Closes `fd`.
        """
        shared = cls.from_fd(fd)
        try:
            there = netns.of_socket(shared.fileno())
            try:
                with netns.entered(there):
                    own = cls.open()
            finally:
                os.close(there)
        except PermissionError:
            shared.sock.settimeout(_SHARED_PATIENCE)
            return shared
        shared.close()
        return own

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def cookie(self) -> int:
        """The cookie of the network namespace that this socket lives in."""
        return netns_cookie(self.sock)

    def request(
        self, kind: int, payload: bytes, *, flags: int = 0, what: str = ""
    ) -> list[Message]:
        """Send one request and wait for its acknowledgement; answers before it are returned."""
        return self._exchange(kind, NLM_F_REQUEST | NLM_F_ACK | flags, payload, what)

    def dump(self, kind: int, payload: bytes, *, what: str = "") -> list[Message]:
        """List objects. Repeated when the list changed while it was being read."""
        for _ in range(_DUMP_ATTEMPTS):
            found = self._exchange(kind, NLM_F_REQUEST | NLM_F_DUMP, payload, what)
            if not any(message.flags & NLM_F_DUMP_INTR for message in found):
                return found
        raise OSError(errno.EAGAIN, "the list kept changing while it was read", what or None)

    def _exchange(self, kind: int, flags: int, payload: bytes, what: str) -> list[Message]:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        length = _HEADER.size + len(payload)
        self.sock.send(_HEADER.pack(length, kind, flags, self._sequence, 0) + payload)
        found: list[Message] = []
        while True:
            data, _, received, _ = self.sock.recvmsg(_RECEIVE_BYTES)
            if received & socket.MSG_TRUNC:
                raise OSError(errno.EMSGSIZE, "a netlink answer did not fit", what or None)
            if self._collect(data, found, what):
                return found

    def _collect(self, data: bytes, found: list[Message], what: str) -> bool:
        """Add the messages of one datagram; True when the exchange is over."""
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                raise OSError(errno.EBADMSG, "a netlink message without a length", what or None)
            payload = data[offset + _HEADER.size : offset + length]
            offset += align(length)
            if sequence != self._sequence or kind == NLMSG_NOOP:
                continue  # the late answer to a request that failed half way
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                if len(payload) >= 4:
                    _raise_for(payload, flags, what)
                found.append(Message(kind, flags, b""))
                _drop_marker(found)
                return True
            found.append(Message(kind, flags, payload))
        return False


def _drop_marker(found: list[Message]) -> None:
    """Remove the end marker, but keep its 'dump was interrupted' flag on what came before."""
    last = found.pop()
    if last.flags & NLM_F_DUMP_INTR and found:
        before = found[-1]
        found[-1] = Message(before.kind, before.flags | NLM_F_DUMP_INTR, before.payload)


def netns_cookie(sock: socket.socket) -> int:
    """The number of a socket's network namespace, never used twice since boot (SO_NETNS_COOKIE).

    Inode numbers of namespaces are reused at once; this is not. OSError ENOPROTOOPT before Linux
    5.14.
    """
    return struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
