"""Command-line options made from a parameter model: nobody writes a flag by hand."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from faultline.api.quantities import Between, Flag, Quantity

if TYPE_CHECKING:
    from faultline.api.params import Params


class _Option(click.Option):
    """An option whose text is put together when it is read: most commands show no help."""

    def __init__(self, names: list[str], model: type[Params], **settings: Any) -> None:
        self._model = model
        super().__init__(names, **settings)

    def _read(self) -> str | None:
        return help_of(self._model.explained()[str(self.name)])

    def _keep(self, _text: str | None) -> None:
        """There is none of its own."""

    help = property(_read, _keep)  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]


def options_of(model: type[Params]) -> list[click.Option]:
    """One option per field, in the order of the model."""
    return [_option(model, name, field) for name, field in model.model_fields.items()]


def _option(model: type[Params], name: str, field: FieldInfo) -> click.Option:
    flag = next((m for m in field.metadata if isinstance(m, Flag)), Flag())
    long = f"--{name.replace('_', '-')}"
    names = [name, long, *(f"--{alias}" for alias in flag.aliases)]
    if flag.short:
        names.append(f"-{flag.short}")
    kind = _plain(field.annotation)
    if kind is bool:
        names[1] = f"{long}/--no-{name.replace('_', '-')}"
        return _Option(names, model, default=None)
    many = get_origin(kind) in (list, tuple, dict)
    return _Option(names, model, type=_click_type(kind), multiple=many, default=None)


def _plain(annotation: Any) -> Any:
    """The type without Annotated and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else str
    return annotation


def _click_type(kind: Any) -> click.ParamType[Any, Any]:
    if get_origin(kind) is Literal:
        return click.Choice([str(value) for value in get_args(kind)])
    if get_origin(kind) in (list, tuple):
        return _click_type(_plain(get_args(kind)[0]))
    return {int: click.INT, float: click.FLOAT}.get(kind, click.STRING)


def bounds(field: FieldInfo) -> str:
    """The bounds of a field in words; empty when its type says all."""
    for item in _metadata(field):
        if isinstance(item, Between):
            return f"{item.low} to {item.high}"
    return ""


def unit(field: FieldInfo) -> str:
    """What kind of value a field takes, in one word."""
    for item in _metadata(field):
        if isinstance(item, Quantity):
            return item.of.__name__.lower()
    kind = _plain(field.annotation)
    if get_origin(kind) is Literal:
        return " | ".join(str(v) for v in get_args(kind))
    if get_origin(kind) in (list, tuple):
        inner = _plain(get_args(kind)[0])
        return f"list of {_WORDS.get(inner, getattr(inner, '__name__', 'text'))}"
    return _WORDS.get(kind, getattr(kind, "__name__", "value"))


_WORDS = {str: "text", bool: "yes/no", int: "integer", float: "number"}


def _metadata(field: FieldInfo) -> list[Any]:
    found = list(field.metadata)
    for argument in get_args(field.annotation):
        if get_origin(argument) is Annotated:
            found += get_args(argument)[1:]
    return found


def flags(name: str, field: FieldInfo) -> str:
    """How a field is typed: '-l, --latency'."""
    flag = next((each for each in field.metadata if isinstance(each, Flag)), Flag())
    long = f"--{name.replace('_', '-')}"
    return f"-{flag.short}, {long}" if flag.short else long


def default_of(field: FieldInfo) -> str:
    """The default as a person writes it; empty where there is none or it says nothing."""
    if field.is_required() or field.default in (None, PydanticUndefined, ""):
        return ""
    if isinstance(field.default, bool):
        return "yes" if field.default else "no"
    return str(field.default)


def help_of(field: FieldInfo) -> str:
    """What a field of `explained()` means, its bounds and its default."""
    text = " ".join((field.description or "").split())
    extra = [bounds(field), "required" if field.is_required() else ""]
    if default_of(field):
        extra.append(f"default: {default_of(field)}")
    found = "; ".join(filter(None, extra))
    return f"{text}  [{found}]" if found else text


def given(values: dict[str, Any]) -> dict[str, Any]:
    """What was typed, as the model reads it: options that were not given are left out.

    A list that was given once stays text, which the model takes apart in its own way (a comma list,
    a command line); given several times it is a list.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == ():
            continue
        many = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
        found[name] = many[0] if len(many) == 1 else list(many)
    return found
