"""Quantities as pydantic fields: text with a unit outside, integers inside, bounds with units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from faultline import units
from faultline.errors import InvalidParameter


@dataclass(frozen=True)
class Quantity:
    """Reads and writes one of `faultline.units` as a string in documents and JSON schemas."""

    of: type[units.Duration | units.Size | units.Rate | units.ByteRate | units.Percent]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def read(value: object) -> object:
            try:
                return self.of.parse(value)
            except InvalidParameter as error:
                raise PydanticCustomError(
                    "quantity", "expected {expected}", {"expected": error.expected}
                ) from error

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        example = "10%" if self.of is units.Percent else getattr(self.of, "example", "")
        return {"type": "string", "format": self.of.__name__.lower(), "examples": [example]}


@dataclass(frozen=True)
class Between:
    """Bounds of a field, both included, written as a person writes them."""

    low: str | int | float
    high: str | int | float

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: Any) -> Any:
            if value is None:  # an optional field that was not given
                return value
            kind: Any = value.__class__
            low, high = _bound(kind, self.low), _bound(kind, self.high)
            if not low <= value <= high:
                raise PydanticCustomError(
                    "between", "expected {low} to {high}", {"low": self.low, "high": self.high}
                )
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        out = handler(schema)
        if isinstance(self.low, str):
            return {**out, "x-between": [self.low, self.high]}
        return {**out, "minimum": self.low, "maximum": self.high}


@cache
def _bound(kind: Any, given: str | float) -> Any:
    return kind.parse(given) if isinstance(given, str) else given


@dataclass(frozen=True)
class Flag:
    """How a field is written on the command line: a short flag and other names for it."""

    short: str = ""
    aliases: tuple[str, ...] = ()


Duration = Annotated[units.Duration, Quantity(units.Duration)]
Size = Annotated[units.Size, Quantity(units.Size)]
Rate = Annotated[units.Rate, Quantity(units.Rate)]
ByteRate = Annotated[units.ByteRate, Quantity(units.ByteRate)]
Percent = Annotated[units.Percent, Quantity(units.Percent)]


def text(value: str) -> Any:
    """A default in the text form of documents; it is parsed like any other input."""
    return value
