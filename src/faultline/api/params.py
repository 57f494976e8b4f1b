"""The base of every parameter model, and the one place where bad input becomes a clear error."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ConfigDict, ValidationError

from faultline.api.explaining import Explained, described
from faultline.errors import InvalidParameter


class Params(Explained):
    """Parameters of a fault: frozen, strict, unknown fields refused, the docstring under a field is
    its help.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        json_schema_extra=described,
    )

    @classmethod
    def read(cls, data: dict[str, Any], where: str = "") -> Self:
        """Parse at the edge; raises InvalidParameter with the field's path, what was given and the
        bounds.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise invalid(error, where) from error

    @classmethod
    def read_text(cls, data: dict[str, str]) -> Self:
        """The same from text alone, as an example or a command line has it."""
        try:
            return cls.model_validate_strings(data)
        except ValidationError as error:
            raise invalid(error) from error


def invalid(error: ValidationError, where: str = "") -> InvalidParameter:
    """The first complaint of pydantic as our own error, naming the field and what it accepts."""
    first = error.errors(include_url=False)[0]
    path = (
        ".".join(str(part) for part in (*([where] if where else []), *first["loc"])) or "document"
    )
    given: object = first["input"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return InvalidParameter(path, None, "a value: it is required")
    if first["type"] == "extra_forbidden":
        return InvalidParameter(path, given, "no such field; see `faultline explain`")
    return InvalidParameter(path, given, message.removeprefix("expected "))
