"""The sql probe: a query of any database that SQLAlchemy knows, one row of its answer.

It never writes: the transaction is read-only where the database has such, and is rolled back. The
database is told to give the query up at the limit, and the driver is not trusted to keep to it: it
runs apart, and its connection is cut when it is too late.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from contextlib import closing, suppress
from datetime import date
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

from faultline.api.probe import Measurement, SqlProbe
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.apart import Apart
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Figures

_LEFT_BEHIND = 8  # drivers that may wait for a server that is silent
_LONGEST = 16384  # characters of a text of the row
_COLUMNS = 200
# Unknown columns, rights that are missing, a write in a transaction that may not.
_SQLITE = ("SQLITE_ERROR", "SQLITE_READONLY")
_MYSQL = (1044, 1054, 1142, 1143, 1290, 1792)
_STREAMED = ("select", "with", "values", "table")
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class _Wire:
    """The connection of a driver, to be cut from outside."""

    def __init__(self) -> None:
        self._same: socket.socket | None = None

    def hold(self, connection: Any) -> None:
        """Take a second handle; a driver that has no descriptor of its own cannot be cut."""
        if hasattr(connection, "fileno"):
            self._same = socket.socket(fileno=os.dup(connection.fileno()))

    def cut(self) -> None:
        """Let the driver find its connection closed."""
        if self._same is not None:
            with suppress(OSError):  # the driver was quicker
                self._same.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._same is not None:
            self._same.close()


class Prober(prober.Prober[SqlProbe]):
    """Its value is the number in the first row."""

    def __init__(self, spec: SqlProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._apart = Apart(f"query {spec.name}", _LEFT_BEHIND)
        try:
            from sqlalchemy.exc import SQLAlchemyError
        except ModuleNotFoundError as error:
            raise prober.not_installed("SQLAlchemy", "sql") from error
        # Loading the driver takes longer than many a limit; what is wrong with it is said later.
        with suppress(SQLAlchemyError, ImportError):
            _address(spec.url).get_dialect().import_dbapi()

    def look(self, limit: Limit) -> Measurement:
        from sqlalchemy import exc

        wire = _Wire()
        try:
            row = self._apart.run(limit, lambda: self._read(wire, limit), wire.cut)
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            ours = _is_ours(getattr(error, "orig", None))
            raise (ObserveFailed if ours else NoAnswer)(self._said(error)) from error
        except exc.SQLAlchemyError as error:  # the query is wrong, or may not be asked
            raise ObserveFailed(self._said(error)) from error
        except ImportError as error:
            raise ObserveFailed(f"the driver of this database is missing: {error}") from error
        except OSError as error:
            raise NoAnswer(error.strerror or str(error)) from error
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            # Drivers of others, and servers that are not what they seem to be.
            raise ObserveFailed(f"the driver failed: {type(error).__name__}: {error}") from error
        return self._judge(row)

    def _said(self, error: Exception) -> str:
        """What the database said: SQLAlchemy adds the statement and where to read of it."""
        text = str(getattr(error, "orig", None) or error)
        return self.redacted(text).strip().partition("\n(Background")[0] or type(error).__name__

    def _read(self, wire: _Wire, limit: Limit) -> dict[str, Any]:
        from sqlalchemy import create_engine, event
        from sqlalchemy.pool import NullPool

        address = self._address()
        engine: Any = create_engine(
            address,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args=_settings(address.get_backend_name(), address.get_driver_name(), limit),
        )

        def connected(connection: Any, _: Any) -> None:
            wire.hold(connection)

        event.listen(engine, "connect", connected, insert=True)
        name, query = engine.dialect.name, self.spec.query
        first = query.split(None, 1)[0].lower() if query.strip() else ""
        # Without parameters a % is a %; of an answer that is streamed the rest is not read.
        options = {"no_parameters": True, "stream_results": first in _STREAMED}
        try:
            with engine.connect() as connection:
                for statement in _first(name, limit):
                    connection.exec_driver_sql(statement)
                if name == "sqlite":
                    _stop_in_time(connection.connection.driver_connection, limit)
                with closing(
                    connection.exec_driver_sql(query, execution_options=options)
                ) as answer:
                    return self._row(answer)
        finally:
            engine.dispose()
            wire.close()

    def _address(self) -> Any:
        address = _address(self.spec.url)
        if self.spec.password:
            address = address.set(password=self.secret(self.spec.password))
        if address.get_backend_name() == "sqlite" and address.database:
            path = Path(address.database)
            if not path.exists() and not address.database.startswith("file:"):
                raise NoAnswer(f"{path} does not exist")  # SQLite would make it
        return address

    def _row(self, answer: Any) -> dict[str, Any]:
        if not answer.returns_rows:
            raise ObserveFailed("the query gives no row; one is expected")
        rows: list[Any] = answer.mappings().fetchmany(2)
        if len(rows) != 1:
            found = "no row" if not rows else "more than one row"
            raise ObserveFailed(f"the query gave {found}, one is expected")
        return {str(name): value for name, value in list(rows[0].items())[:_COLUMNS]}

    def _judge(self, row: dict[str, Any]) -> Measurement:
        if self.spec.column and self.spec.column not in row:
            raise ObserveFailed(f"the row has no column {self.spec.column!r}: {', '.join(row)}")
        looked = [self.spec.column] if self.spec.column else list(row)
        numbers = [(name, _number(row[name])) for name in looked]
        name, value = next((one for one in numbers if one[1] is not None), ("", None))
        shown = {key: _plain(each) for key, each in row.items()}
        said = (
            f"{name} is {shown[name]}" if value is not None else f"no number in {', '.join(looked)}"
        )
        return Measurement(value=value, ok=True, text=said, result={"row": shown})


def _address(url: str) -> Any:
    from sqlalchemy.engine import make_url

    address: Any = make_url(url)
    driver = _DRIVERS.get(address.drivername)
    return address.set(drivername=driver) if driver else address


def _is_ours(error: Any) -> bool:
    """Whether the query is to blame: some databases have one class of errors for a query that is
    wrong or may not be asked, and for a server that is broken, locked or not there.
    """
    first = error.args[0] if getattr(error, "args", ()) else None
    return getattr(error, "sqlite_errorname", "") in _SQLITE or (
        isinstance(first, int) and first in _MYSQL
    )


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, int, float, Decimal)):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def _plain(value: Any) -> Any:
    """A value of a row as JSON."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, (date, time_of_day)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value[:_LONGEST].hex()
    if isinstance(value, (dict, list)):  # a column of JSON
        return json.loads(json.dumps(value, default=str))
    return str(value)[:_LONGEST]


def _settings(backend: str, driver: str, limit: Limit) -> dict[str, Any]:
    """What the driver is told before it connects."""
    if backend == "postgresql" and driver.startswith("psycopg"):
        return {
            "connect_timeout": max(2, math.ceil(limit.left())),  # libpq knows no less than 2
            "application_name": "faultline",
            "client_encoding": "utf8",  # else texts of a database without an encoding are bytes
            # A thread that was left behind at a dead server ends soon after.
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": max(1000, int(limit.left() * 2000)),
        }
    if driver in ("pymysql", "mysqldb"):
        whole = math.ceil(limit.left())
        return {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}
    if backend == "sqlite":
        return {"timeout": limit.left()}  # for a lock of somebody else
    return {}


def _first(dialect: str, limit: Limit) -> list[str]:
    """What is said before the query: that nothing will be written, and how long it may take.

    It holds for the transaction and not for the session, which a pooler in between may give to
    somebody else.
    """
    milliseconds = max(1, int(limit.left() * 1000))
    match dialect:
        case "postgresql":
            return [
                "SET TRANSACTION READ ONLY",
                f"SET LOCAL statement_timeout = {milliseconds}",
            ]
        case "mysql" | "mariadb":
            return ["START TRANSACTION READ ONLY"]
        case "sqlite":
            return ["PRAGMA query_only = ON"]
        case _:
            return []


def _stop_in_time(connection: Any, limit: Limit) -> None:
    """SQLite runs in this process: it asks us every thousand steps whether to go on."""
    end = time.monotonic() + limit.left()
    connection.set_progress_handler(lambda: time.monotonic() > end, 1000)
