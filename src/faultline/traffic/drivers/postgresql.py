"""PostgreSQL over psycopg.

A statement that takes too long is left behind with its connection, and the server is asked to end
it: to wait until the server agrees would measure something else.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg.pq import TransactionStatus

from faultline.traffic.driver import Turn
from faultline.traffic.drivers.pool import Pool
from faultline.traffic.drivers.sql import Statement, Statements
from faultline.traffic.kinds import cause_kind, error_kind
from faultline.traffic.model import Load

_WORDS = {
    "Connection refused": "refused",
    "timeout": "timeout",
    "could not translate host name": "name not found",
    "failed to resolve host": "name not found",
    "Network is unreachable": "unreachable",
    "authentication failed": "login refused",
    "too many clients": "too many connections",
    "too many connections": "too many connections",
    "remaining connection slots": "too many connections",
    "starting up": "starting",
    "shutting down": "shutting down",
}

_TIDY = 5.0  # seconds for the rollback of a turn that failed, and for the end of a statement
_LEFT = 1.0  # the same, once all is over

Connection = psycopg.AsyncConnection[Any]


class _Session:
    """The connection of one turn, taken with the first statement so that waiting for it counts."""

    def __init__(self, pool: Pool[Connection], left: set[asyncio.Task[None]]) -> None:
        """`left`: where the ends of statements go that nobody waits for."""
        self._pool, self._left = pool, left
        self._connection: Connection | None = None

    async def _taken(self) -> Connection:
        if self._connection is None:
            self._connection = await self._pool.take()
        return self._connection

    async def execute(self, statement: Statement, params: dict[str, Any]) -> str:
        connection = await self._taken()
        await self._do(_execute(connection, statement.percent_style(), params))
        return ""

    async def commit(self) -> str:
        connection = await self._taken()
        await self._do(connection.commit())
        return ""

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; cancelled, it is left to its end, and the connection with it."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done() and self._connection:
                cut, self._connection = self._connection, None
                end = asyncio.create_task(_abandon(cut, task))
                self._left.add(end)
                end.add_done_callback(self._left.discard)
                self._pool.lose()
            raise

    async def end(self) -> None:
        """Give the connection back, out of any transaction."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        keep = not connection.closed
        try:
            if keep and connection.info.transaction_status != TransactionStatus.IDLE:
                async with asyncio.timeout(_TIDY):
                    await connection.rollback()
        except (psycopg.Error, TimeoutError):
            keep = False
        finally:
            self._pool.give(connection, keep=keep)


def _shut(connection: Connection) -> None:
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)


async def _abandon(connection: Connection, task: asyncio.Future[None]) -> None:
    """End a statement at the server too, if that answers; then close the connection."""
    try:
        with suppress(psycopg.Error, OSError):
            await connection.cancel_safe(timeout=_TIDY)
    finally:
        _shut(connection)
        with suppress(psycopg.Error, OSError, asyncio.CancelledError):
            await task
        connection.pgconn.finish()


async def _execute(connection: Connection, query: str, params: dict[str, Any]) -> None:
    cursor = await connection.execute(query.encode(), params or None)
    if cursor.description:
        await cursor.fetchall()
    await cursor.close()


class Driver:
    """A turn is all statements on one connection."""

    errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, load: Load) -> None:
        self._statements = Statements(load.options)
        self._given = _given(load.options)
        self._left: set[asyncio.Task[None]] = set()
        self._pool = Pool(self._open, _close, load.connections, lambda each: not each.closed)

    async def _open(self) -> Connection:
        return await psycopg.AsyncConnection.connect(
            **self._given, autocommit=not self._statements.transaction
        )

    async def open(self) -> None:
        return

    async def turn(self, turn: Turn) -> None:
        session = _Session(self._pool, self._left)
        try:
            await self._statements.run(turn, session)
        finally:
            await session.end()

    def kind(self, error: Exception) -> str:
        if not isinstance(error, psycopg.Error):
            return error_kind(error)
        words = str(error)
        found = next((kind for said, kind in _WORDS.items() if said in words), "")
        if found or error.sqlstate:
            return found or type(error).__name__
        return cause_kind(error, "disconnected")

    async def close(self) -> None:
        if self._left:
            await asyncio.wait(self._left, timeout=_LEFT)
        for end in self._left:
            end.cancel()
        self._pool.close()


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What psycopg is told, from an address as SQLAlchemy writes it."""
    parts = urlsplit(str(options["url"]))
    given: dict[str, Any] = dict(parse_qsl(parts.query))
    named = {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username) if parts.username else None,
        "dbname": unquote(parts.path[1:]) or None,
        "password": options["password"],
    }
    given |= {name: value for name, value in named.items() if value is not None}
    return {"application_name": "faultline", **given}


def _close(connection: Connection) -> None:
    connection.pgconn.finish()
