"""Every other database over SQLAlchemy, whose drivers wait: each connection has a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from faultline.traffic.driver import CannotBegin, Turn
from faultline.traffic.drivers.pool import Pool
from faultline.traffic.drivers.sql import Statement, Statements
from faultline.traffic.kinds import cause_kind, error_kind
from faultline.traffic.model import Load

T = TypeVar("T")


class _Wire:
    """A connection and its thread."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1)
        self._connection: sqlalchemy.Connection | None = None
        self.broken = False

    async def do(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        """Do it in the thread; cancelled, it goes on there, and the connection is not used again.

        There is no way to interrupt a driver that waits.
        """
        loop = asyncio.get_running_loop()
        task = loop.run_in_executor(self._thread, self._do, work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.broken = self.broken or not task.done()
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    def _do(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            return work(self._connection)
        except DBAPIError as error:
            self.broken = self.broken or error.connection_invalidated
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()

    def close(self) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)


class _Session:
    def __init__(self, pool: Pool[_Wire]) -> None:
        self._pool = pool
        self._wire: _Wire | None = None

    async def _taken(self) -> _Wire:
        if self._wire is None:
            self._wire = await self._pool.take()
        return self._wire

    async def execute(self, statement: Statement, params: dict[str, Any]) -> str:
        def work(connection: sqlalchemy.Connection) -> None:
            result = connection.execute(sqlalchemy.text(statement.sql), params)
            if result.returns_rows:
                result.fetchall()

        await (await self._taken()).do(work)
        return ""

    async def commit(self) -> str:
        await (await self._taken()).do(lambda connection: connection.commit())
        return ""

    async def end(self) -> None:
        """Give the connection back, out of any transaction."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        try:
            if not wire.broken:
                await wire.do(lambda connection: connection.rollback())
        except SQLAlchemyError:
            wire.broken = True
        finally:
            self._pool.give(wire, keep=not wire.broken)


class Driver:
    """A turn is all statements on one connection."""

    errors: tuple[type[Exception], ...] = (SQLAlchemyError,)

    def __init__(self, load: Load) -> None:
        self._statements = Statements(load.options)
        self._most = load.connections
        self._options = load.options
        self._engine: sqlalchemy.Engine | None = None
        self._pool: Pool[_Wire] | None = None

    async def open(self) -> None:
        try:
            url = sqlalchemy.make_url(self._options["url"])
            if self._options["password"] is not None:
                url = url.set(password=self._options["password"])
            level = None if self._statements.transaction else "AUTOCOMMIT"
            given: dict[str, Any] = {"isolation_level": level} if level else {}
            engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **given)
        except (SQLAlchemyError, ImportError) as error:
            raise CannotBegin(f"SQLAlchemy cannot speak to that database: {error}") from error
        self._engine = engine

        async def opens() -> _Wire:
            return _Wire(engine)

        self._pool = Pool(opens, _Wire.close, self._most, lambda wire: not wire.broken)

    async def turn(self, turn: Turn) -> None:
        assert self._pool
        session = _Session(self._pool)
        try:
            await self._statements.run(turn, session)
        finally:
            await session.end()

    def kind(self, error: Exception) -> str:
        if isinstance(error, DBAPIError) and error.orig is not None:
            return cause_kind(error.orig, type(error.orig).__name__)
        return error_kind(error)

    async def close(self) -> None:
        if self._pool:
            self._pool.close()
