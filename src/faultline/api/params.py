"""The base of every parameter model, and the one place where bad input becomes a clear error."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from faultline.errors import InvalidParameter

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.fields import FieldInfo
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


class Params(BaseModel):
    """Parameters of a fault: frozen, strict, unknown fields refused, the docstring under a field is
    its help.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
    )

    @classmethod
    def explained(cls) -> dict[str, FieldInfo]:
        """Its fields, each described by the docstring under it.

        Pydantic itself can read those, at once for every model of a module; that takes a fifth of
        the time in which a command starts, for help that it does not show.
        """
        for name, text in docstrings(cls).items():
            field = cls.model_fields.get(name)
            if field is not None and field.description is None:
                field.description = text
        return cls.model_fields

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        found = handler(schema)
        properties = handler.resolve_ref_schema(found).get("properties", {})
        for name, field in cls.explained().items():
            if field.description and name in properties:
                properties[name].setdefault("description", field.description)
        return found

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


@cache
def docstrings(model: type[Params]) -> dict[str, str]:
    """The texts under the fields of a model and of those that it is derived from."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each is not Params and issubclass(each, Params):
            found |= _own_docstrings(each)
    return found


def _own_docstrings(model: type[Params]) -> dict[str, str]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # it was made from data, which describes its fields itself
        return {}
    (made,) = ast.parse(textwrap.dedent(source)).body
    body = made.body if isinstance(made, ast.ClassDef) else []
    found: dict[str, str] = {}
    for field, text in itertools.pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found


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
