"""HTTP on one connection: who is at the other end, and how long it may keep us waiting."""

from __future__ import annotations

import asyncio
import pwd
import socket
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from faultline.server import access

PATIENCE = 20.0
"""Seconds in which the head of a request must have arrived."""


class Protocol(H11Protocol):
    """That of uvicorn; the caller of a Unix socket is known by name, others are hung up on."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        connection = cast("socket.socket", transport.get_extra_info("socket"))
        if connection.family == socket.AF_UNIX:
            user = access.peer(connection)
            if not access.welcome(user):
                transport.abort()
                return
            self.client = (_name(user), 0)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        """A head that has begun, or is to come, must be complete in time."""
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(PATIENCE, self._hang_up)

    def _hang_up(self) -> None:
        self._late = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
