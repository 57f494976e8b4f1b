"""Names to addresses and connections within a time limit that holds for all of it.

A socket's own time-out counts each call anew, so a server that sends one byte a second is never
too late; here every call gets what is left of one limit. The resolver of the C library takes no
limit at all: it is asked in a thread that is left behind when it is too slow.
"""

from __future__ import annotations

import errno
import io
import os
import queue
import socket
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING

from faultline.probes.limit import Limit, NoAnswer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Address = tuple[socket.AddressFamily, str]


def resolve(host: str, limit: Limit) -> list[Address]:
    """The addresses of a name, as this host's programs see them; raises NoAnswer."""
    try:
        literal = ip_address(host.partition("%")[0])
    except ValueError:
        pass  # a name, then
    else:
        return [(socket.AF_INET if literal.version == 4 else socket.AF_INET6, host)]
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(errno.EINVAL, str(error)))
        else:
            answers.put([(family, str(where[0])) for family, *_, where in found])

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=limit.left())
    except queue.Empty:
        raise limit.late(f"the name {host} was not resolved") from None
    if isinstance(answer, OSError):
        raise NoAnswer(f"the name {host} was not resolved: {answer.strerror}") from answer
    return answer


def connect(host: str, port: int, limit: Limit) -> socket.socket:
    """A TCP connection to the first address of the host that accepts one; raises NoAnswer."""
    failure = NoAnswer(f"{host} has no address")
    addresses = resolve(host, limit)
    for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        # Each has its share, so that one that swallows packets leaves time for the others.
        share = limit.left() / left
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(share)
            connection.connect((address, port))
        except TimeoutError:
            connection.close()
            failure = limit.late(f"{where}: no connection")
        except OSError as error:
            connection.close()
            failure = NoAnswer(f"{where}: {reason(error)}")
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise failure


def reason(error: OSError) -> str:
    """What went wrong, as people say it."""
    if error.errno == errno.ECONNREFUSED:
        return "connection refused"
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "connection reset"
    if isinstance(error, TimeoutError):
        return "timed out"
    return (os.strerror(error.errno).lower() if error.errno else str(error)) or type(error).__name__


class LimitedReader(io.RawIOBase):
    """The incoming side of a connection, each read bounded by what is left of one limit."""

    def __init__(self, connection: socket.socket, limit: Limit) -> None:
        self._connection, self._limit = connection, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._connection.settimeout(self._limit.left())
        return self._connection.recv_into(buffer)
