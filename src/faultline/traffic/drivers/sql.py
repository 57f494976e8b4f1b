"""What the drivers of SQL databases have in common: the statements of a turn, one after the
other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from faultline.traffic.driver import Turn
from faultline.traffic.template import Data

_PARAMETER = re.compile(r"(?<![:\w\\]):([A-Za-z_]\w*)(?!:)")


class Statement:
    """One statement of a turn."""

    def __init__(self, options: Mapping[str, Any], number: int) -> None:
        self.sql: str = options["sql"]
        self._names = frozenset(options["params"])
        self._params = Data(options["params"])
        self.label: str = options["name"] or f"{self.sql.split()[0].upper()} {number}"

    def params(self, turn: Turn) -> dict[str, Any]:
        return self._params.fill(turn.values)

    def percent_style(self) -> str:
        """The statement as psycopg wants it: `%(name)s` for a parameter, `%%` for a percent sign.

        Only the names of its parameters are replaced: `::` casts and texts stay as they are.
        """
        if not self._names:
            return self.sql
        return _PARAMETER.sub(
            lambda match: f"%({match[1]})s" if match[1] in self._names else match[0],
            self.sql.replace("%", "%%"),
        )


class Session(Protocol):
    """One connection for one turn."""

    async def execute(self, statement: Statement, params: dict[str, Any]) -> str: ...

    async def commit(self) -> str: ...


class Statements:
    """The turn of a load."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        listed: list[Mapping[str, Any]] = options["statements"]
        self.all = [Statement(each, number) for number, each in enumerate(listed, 1)]
        self.transaction: bool = options["transaction"]
        self._parts = len(self.all) > 1 or self.transaction

    async def run(self, turn: Turn, session: Session) -> None:
        """One statement after the other; the rest is left out after one that failed."""
        for statement in self.all:
            params = statement.params(turn)
            part = statement.label if self._parts else ""
            if await turn.ask(part, lambda s=statement, p=params: session.execute(s, p)):
                break
        else:
            if self.transaction:
                await turn.ask("commit", session.commit)
