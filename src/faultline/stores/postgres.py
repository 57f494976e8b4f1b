"""A database on a PostgreSQL server, for several engines on several hosts.

SQLAlchemy keeps the connections and Alembic the schema. Whoever commits holds the row of the
counter until the commit is done, so versions appear in their order and a watcher misses none; a
sequence would not do, since its numbers are drawn before the commit and can appear out of order.
So the commits of all engines come one after the other, and what the threads of one engine write at
the same time goes into one. It has the counter from its beginning: whoever holds rows waits for
nobody.
Source: https://www.postgresql.org/docs/15/sql-notify.html, explicit-locking.html,
runtime-config-client.html (idle_in_transaction_session_timeout).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from faultline.errors import InvalidDocument, Unsupported, UsageError
from faultline.stores import schema
from faultline.stores.database import COUNTED, Row, Wait
from faultline.stores.grouping import Groups
from faultline.stores.model import StoreFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

CHANNEL = "faultline"
FROZEN = 5.0  # seconds after which the server ends the transaction of an engine that stands still
_MOST = 32  # writes that go to disk together; a server keeps so many savepoints at hand (64)
_LOOK = 1.0  # seconds between looks of a watcher that is told; one that cannot be looks more often
_LOOK_UNTOLD = 0.1
_MIGRATING = 0x6661756C74  # the advisory lock of whoever changes the schema
_VERSION = "SELECT version_num FROM alembic_version"
_BUMP = (
    "WITH next AS (UPDATE counter SET version = version + 1 RETURNING version)"
    " SELECT version, pg_notify(?, '') FROM next"
)
_KNOWN = "SELECT to_regclass('alembic_version') IS NOT NULL"


class _Shared:
    """The transaction that the threads of this process write in."""

    def __init__(self, of: PostgresDatabase) -> None:
        self._of = of
        self.connection: Connection | None = None

    def begin(self) -> None:
        with self._of.telling():
            connection = self._of.engine.connect()
            try:
                self._open(connection)
            except BaseException:
                connection.close()
                raise
        self.connection = connection

    def _open(self, connection: Connection) -> None:
        connection.begin()
        connection.exec_driver_sql(f"{COUNTED} FOR UPDATE")

    def save(self, first: bool) -> None:
        if not first:  # one of the same name hides those before it
            with self._of.telling():
                self._connected.exec_driver_sql("SAVEPOINT one")

    def keep(self) -> None:
        """It is kept until the next savepoint."""

    def undo(self, first: bool) -> bool:
        try:
            with self._of.telling():
                if not first:
                    self._connected.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
                else:
                    self._connected.rollback()
                    self._open(self._connected)
        except StoreFailed:
            return False
        return True

    def commit(self) -> None:
        with self._of.telling():
            self._connected.commit()
            self._left()

    def rollback(self) -> None:
        with suppress(StoreFailed):
            self._left()

    def _left(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with self._of.telling():
                connection.close()  # which rolls back what was not committed

    @property
    def _connected(self) -> Connection:
        if self.connection is None:
            raise StoreFailed(f"the connection to {self._of.words} was lost")
        return self.connection

    def failed(self, error: BaseException) -> StoreFailed:
        return self._of.failed(error)


class PostgresDatabase:
    """A pool of connections. One writes for all threads, which take turns; a transaction that reads
    has one for itself.
    """

    shared = True
    row_lock = " FOR UPDATE"
    skip_locked = " FOR UPDATE OF l SKIP LOCKED"

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.words = self.engine.url.render_as_string(hide_password=True)
        self._of_thread = threading.local()
        self._shared = _Shared(self)
        self._groups = Groups(self._shared, _MOST)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with self._groups.turn:
            self.engine.dispose()

    # ------------------------------------------------------------------ schema

    def _migrate(self) -> None:
        with self._connected() as connection, connection.begin():
            if self._current(connection) == schema.HEAD:
                return
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            # It may take longer than a transaction that stands still may.
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            if self._current(connection) < schema.HEAD:  # nobody else was first
                upgrade(connection)

    def _current(self, connection: Connection) -> int:
        if not connection.exec_driver_sql(_KNOWN).scalar():
            return 0
        found = int(connection.exec_driver_sql(_VERSION).scalar() or 0)
        if found > schema.HEAD:
            raise InvalidDocument(
                f"{self.words} has schema {found}; this version reads up to {schema.HEAD}",
                hint="use the version that wrote it, or upgrade",
            )
        return found

    # ------------------------------------------------------------------ statements

    def rows(self, query: str, *values: Any) -> list[Row]:
        from faultline.stores.statements import execute

        with self._current_or_new() as connection:
            return execute(connection, query, values)

    def run(self, statement: str, *values: Any) -> int:
        from faultline.stores.statements import perform

        with self._current_or_new() as connection:
            return perform(connection, statement, values).rowcount

    def many(self, statement: str, values: Iterable[Row]) -> None:
        from faultline.stores.statements import perform

        if rows := list(values):
            with self._current_or_new() as connection:
                perform(connection, statement, rows)

    def writing(self) -> AbstractContextManager[None]:
        if getattr(self._of_thread, "connection", None) is not None:
            raise RuntimeError("a transaction of this thread is under way")
        return self._groups.writing()

    @contextmanager
    def reading(self) -> Generator[None]:
        if self._groups.mine or getattr(self._of_thread, "connection", None) is not None:
            raise RuntimeError("a transaction of this thread is under way")
        with self._connected() as connection, connection.begin():
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._of_thread.connection = connection
            try:
                yield
            finally:
                self._of_thread.connection = None

    @contextmanager
    def _current_or_new(self) -> Generator[Connection]:
        connection: Connection | None = getattr(self._of_thread, "connection", None)
        if self._groups.mine:
            connection = self._shared.connection
        if connection is None:
            with self._connected() as connection, connection.begin():
                yield connection
            return
        with self.telling():
            yield connection

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        with self.telling(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def telling(self) -> Generator[None]:
        """What the database or the way to it says against it is StoreFailed."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except DBAPIError as error:
            raise self.failed(error.orig) from error.orig
        except SQLAlchemyError as error:
            raise self.failed(error) from error

    def failed(self, error: BaseException | None) -> StoreFailed:
        """That it did not do what was asked."""
        why = " ".join(str(error).split()) or type(error).__name__
        return StoreFailed(
            f"the store {self.words} did not do it: {why}",
            hint="does the server run, and may this user connect and write there?",
        )

    # ------------------------------------------------------------------ what differs

    def bump(self) -> int:
        return int(self.rows(_BUMP, CHANNEL)[0][0])

    def clock(self) -> tuple[str, float]:
        """That of the server, which is the same for all engines."""
        ((now,),) = self.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
        return "server", float(now)

    @contextmanager
    def waiting(self) -> Generator[Wait]:
        ear = _Ear(self.engine)
        try:
            yield ear.wait
        finally:
            ear.close()


class _Ear:
    """A connection of its own that is told of changes. It is only told sooner: whoever waits looks
    again after a while in any case, so a connection that was lost costs time and no change.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Any = None
        self._listen()

    def _listen(self) -> None:
        import psycopg

        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        with suppress(psycopg.Error):
            self._connection = psycopg.connect(*arguments, autocommit=True, **options)
            self._connection.execute(f"LISTEN {CHANNEL}")

    def wait(self, seconds: float) -> None:
        """Until something changed, or for so many seconds, or until it is time to look again."""
        import psycopg

        if self._connection is None or self._connection.closed:
            time.sleep(min(seconds, _LOOK_UNTOLD))
            self._listen()
            return
        try:
            for _ in self._connection.notifies(timeout=min(seconds, _LOOK), stop_after=1):
                return
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _engine(url: str) -> Engine:
    try:
        import psycopg  # noqa: F401  # pyright: ignore[reportUnusedImport]
        from sqlalchemy import create_engine
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError as error:
        raise Unsupported(
            f"a store on PostgreSQL needs {error.name}", hint="pip install 'faultline[sql]'"
        ) from error
    try:
        named = make_url(url).set(drivername="postgresql+psycopg")
        options = named.query.get("options", "")
        return create_engine(
            named,
            pool_size=4,
            max_overflow=12,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "connect_timeout": 10,
                "application_name": "faultline",
                "options": f"{options} -c idle_in_transaction_session_timeout="
                f"{int(FROZEN * 1000)} -c lock_timeout=30000".strip(),
            },
        )
    except (ArgumentError, ValueError):
        # Without the error's own words, which may repeat the URL with its password.
        raise UsageError(
            "the store's URL is not understood", hint="postgresql://USER@HOST:PORT/DATABASE"
        ) from None


def upgrade(connection: Connection, target: str = "head") -> None:
    """Bring the schema to a revision with Alembic, within the transaction of the connection."""
    from alembic import command

    command.upgrade(_configuration(connection), target)


def downgrade(connection: Connection, target: str) -> None:
    """Bring it back to an older revision, or to `base`, which is nothing."""
    from alembic import command

    command.downgrade(_configuration(connection), target)


def _configuration(connection: Connection) -> Any:
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", "faultline.stores:migrations")
    made.attributes["connection"] = connection
    return made
