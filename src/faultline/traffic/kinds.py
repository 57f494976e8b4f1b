"""How requests fail, by short stable names. Standard library only: the generator loads it.

The engine reads the names alone, and so loads neither asyncio nor ssl by this module.
"""

from __future__ import annotations

import errno
import socket
import sys

NOT_SENT = "not sent"
"""The generator's own bound on requests under way, not an answer of the target."""

OURS = ("no local port", "no descriptors", "not permitted")
"""Failures of the machine that sends."""

_BY_ERRNO = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ECONNABORTED: "reset",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ETIMEDOUT: "timeout",
    errno.EADDRNOTAVAIL: "no local port",
    errno.EMFILE: "no descriptors",
    errno.ENFILE: "no descriptors",
    errno.EPERM: "not permitted",
    errno.ENOENT: "no socket",
    errno.EMSGSIZE: "too long",
}


def _raised_by(module: str, name: str, error: BaseException) -> bool:
    """Whether it is this module's error; one that was never loaded has raised nothing."""
    return isinstance(error, getattr(sys.modules.get(module), name, ()))


def error_kind(error: BaseException) -> str:
    """The name of what an operation of the network raised."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, socket.gaierror):
        return "name not found"
    if _raised_by("ssl", "SSLError", error):
        return "tls"
    if _raised_by("asyncio", "IncompleteReadError", error):
        return "cut off"
    if isinstance(error, OSError):
        # The loops raise ConnectionResetError and the like also without a number.
        named = {ConnectionRefusedError: "refused", ConnectionResetError: "reset"}
        found = _BY_ERRNO.get(error.errno or 0) or named.get(type(error))  # pyright: ignore[reportArgumentType]
        if found:
            return found
    return type(error).__name__


def cause_kind(error: BaseException, fallback: str) -> str:
    """The same for an error of a library that was caused by one of the network."""
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, OSError):  # as those of TLS are
            return error_kind(seen)
        seen = (seen.__cause__ or seen.__context__) if seen else None
    return fallback
