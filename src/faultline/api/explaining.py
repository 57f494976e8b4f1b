"""The docstrings under the fields of models, which are their help everywhere.

Pydantic itself can read them, at once for every model of a module; that takes a third of the time
in which a command starts, for help that it does not show. Here they are read when somebody asks.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Explained(BaseModel):
    """A model whose fields are described by the docstrings under them."""

    @classmethod
    def explained(cls) -> dict[str, FieldInfo]:
        """Its fields, each with its type and its description."""
        cls.model_rebuild()  # where a type is named that comes later in its module
        for name, text in _docstrings(cls).items():
            field = cls.model_fields.get(name)
            if field is not None and field.description is None:
                field.description = text
        return cls.model_fields


def described(schema: dict[str, Any], model: type[Explained]) -> None:
    """Put the descriptions into the JSON schema of a model: what its configuration names as
    `json_schema_extra`.
    """
    properties = schema.get("properties", {})
    for name, field in model.explained().items():
        for key in (name, field.alias, field.validation_alias, field.serialization_alias):
            if field.description and isinstance(key, str) and key in properties:
                properties[key].setdefault("description", field.description)


@cache
def _docstrings(model: type[Explained]) -> dict[str, str]:
    """The texts under the fields of a model and of those that it is derived from."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each is not Explained and issubclass(each, Explained):
            found |= _own(each)
    return found


@cache
def _own(model: type[Explained]) -> dict[str, str]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # it was made from data
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
