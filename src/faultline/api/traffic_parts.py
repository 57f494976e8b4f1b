"""What several kinds of traffic have in common: values that change from turn to turn, addresses
without secrets, connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.api.secret import SecretRef
from faultline.api.traffic_base import PacedTraffic

PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
"""`{{name}}` in a text: the value of that name in this turn."""

BUILT_IN = ("uuid", "number", "user", "now", "random")
"""Names that every turn has a value for."""

Texts = dict[str, str | SecretRef]
Value = str | int | float

_SECRET_KEYS = {"password", "passwd", "pwd", "sslpassword", "sasl_password"}


def places(*texts: object) -> set[str]:
    """The names that texts refer to, also those inside lists and mappings."""
    found: set[str] = set()
    for text in texts:
        if isinstance(text, str):
            found.update(PLACE.findall(text))
        elif isinstance(text, dict):
            entries = cast("dict[Any, Any]", text)
            found |= places(*entries.keys(), *entries.values())
        elif isinstance(text, (list, tuple)):
            found |= places(*cast("list[Any]", text))
    return found


def no_password(url: str, instead: str = "password") -> None:
    """Raises ValueError for an address with a password in it; the address is not repeated."""
    parts = urlsplit(url)
    named = {key.lower() for key, _ in parse_qsl(parts.query)}
    if parts.password is not None or named & _SECRET_KEYS:
        raise ValueError(f"expected an address without a password; see `{instead}`")


class Feed(Model):
    """Rows of values; each turn takes one, and `{{column}}` stands for its value."""

    file: str = ""
    """A CSV file (RFC 4180) whose first line names the columns."""
    rows: list[dict[str, Value]] = Field(default_factory=list[dict[str, Value]])
    """The rows themselves."""
    order: Literal["sequential", "random", "unique"] = "sequential"
    """`sequential`: one after the other, and again from the first; `random`: any of them; `unique`:
    each once, and the load ends after the last. Over several workers it is the same order."""

    @model_validator(mode="after")
    def _one(self) -> Feed:
        if bool(self.file) == bool(self.rows):
            raise ValueError("expected exactly one of file and rows")
        columns = set(self.rows[0]) if self.rows else set[str]()
        for number, row in enumerate(self.rows):
            if set(row) != columns:
                raise ValueError(f"expected the same columns in every row; rows.{number} differs")
        return self

    def columns(self) -> set[str] | None:
        """The names of the columns; None as long as only the file knows them."""
        return set(self.rows[0]) if self.rows else None


class FedTraffic(PacedTraffic):
    """Traffic whose texts may hold values that change from turn to turn."""

    feed: Feed | None = None
    """Rows of values for `{{column}}`. Without it there are `{{uuid}}`, `{{number}}` (of the turn),
    `{{user}}`, `{{now}}` (milliseconds since 1970) and `{{random}}` (below 2^31)."""
    connections: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many connections at most, over all workers; who finds none free waits, and the wait
    counts. Without it, as many as there are requests at once."""

    def texts(self) -> Iterable[tuple[str, object]]:
        """The fields that may hold `{{name}}`, each with its path."""
        return ()

    @model_validator(mode="after")
    def _names_are_known(self) -> FedTraffic:
        known = self.known()
        if known is None:
            return self
        for path, text in self.texts():
            if unknown := sorted(places(text) - known):
                listed = ", ".join(sorted(known))
                raise ValueError(f"expected in {path} only {listed}; not {', '.join(unknown)}")
        return self

    def known(self) -> set[str] | None:
        """The names that every turn has a value for; None if only a file knows them."""
        columns = self.feed.columns() if self.feed else set[str]()
        return None if columns is None else {*BUILT_IN, *columns}
