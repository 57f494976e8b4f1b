"""Parameters of an experiment: `${name}` in its document becomes the value that was chosen.

A text that is nothing but `${name}` becomes the value with its type; inside longer text the value
is written out. `$${` stands for `${`. Nothing is evaluated, so a value cannot become part of a
document's structure.
"""

from __future__ import annotations

import re
from typing import Any, cast

from faultline import units
from faultline.api.experiment import Parameter
from faultline.errors import InvalidParameter, UnknownName

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")

_QUANTITIES = {
    "duration": units.Duration,
    "size": units.Size,
    "rate": units.Rate,
    "percent": units.Percent,
}


def values_for(parameters: dict[str, Parameter], given: dict[str, Any]) -> dict[str, Any]:
    """The value of every parameter; raises UnknownName or InvalidParameter."""
    for name in given:
        if name not in parameters:
            known = ", ".join(sorted(parameters)) or "none"
            raise UnknownName(f"the experiment has no parameter {name!r}", hint=f"it has: {known}")
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        value = given.get(name, parameter.default)
        if value is None:
            raise InvalidParameter(
                f"parameters.{name}", None, f"a {parameter.type}: it is required"
            )
        values[name] = read_value(parameter, value, f"parameters.{name}")
    return values


def read_value(parameter: Parameter, value: Any, path: str) -> str | int | float | bool:
    """One value, also from the text of a command line; raises InvalidParameter."""
    result = _typed(parameter.type, value, path)
    if parameter.choices and result not in parameter.choices:
        raise InvalidParameter(path, value, f"one of {', '.join(map(str, parameter.choices))}")
    return result


def _typed(kind: str, value: Any, path: str) -> str | int | float | bool:
    if kind in _QUANTITIES:
        return str(_QUANTITIES[kind].parse(value, path))
    if kind == "boolean":
        truth = {"true": True, "false": False}.get(str(value).lower())
        if truth is None:
            raise InvalidParameter(path, value, "true or false")
        return truth
    if kind == "string":
        if isinstance(value, (bool, int, float)):
            raise InvalidParameter(path, value, "text")
        return str(value)
    if isinstance(value, bool):
        raise InvalidParameter(path, value, f"a plain {kind}")
    try:
        return int(str(value)) if kind == "integer" else float(value)
    except ValueError as error:
        raise InvalidParameter(path, value, f"a plain {kind}") from error


def substitute(data: Any, values: dict[str, Any], path: str = "spec") -> Any:
    """A copy of `data` with every reference replaced; raises UnknownName with the path."""
    if isinstance(data, dict):
        entries = cast(dict[str, Any], data)
        return {key: substitute(value, values, f"{path}.{key}") for key, value in entries.items()}
    if isinstance(data, list):
        items = enumerate(cast(list[Any], data))
        return [substitute(value, values, f"{path}.{index}") for index, value in items]
    if not isinstance(data, str):
        return data
    whole = _REFERENCE.fullmatch(data)
    if whole and whole[1] is not None:
        return _value(whole[1], values, path)

    def replace(found: re.Match[str]) -> str:
        return "${" if found[1] is None else str(_value(found[1], values, path))

    return _REFERENCE.sub(replace, data)


def replaced(data: Any, values: dict[str, Any]) -> Any:
    """A copy of `data` with the references to these names replaced, and all others left as they
    are. What is put in is not looked at again.
    """
    if isinstance(data, dict):
        entries = cast(dict[str, Any], data)
        return {key: replaced(value, values) for key, value in entries.items()}
    if isinstance(data, list):
        return [replaced(value, values) for value in cast(list[Any], data)]
    if not isinstance(data, str):
        return data
    whole = _REFERENCE.fullmatch(data)
    if whole and whole[1] in values and not isinstance(values[whole[1]], str):
        return values[whole[1]]

    def put_in(found: re.Match[str]) -> str:
        known = found[1] in values
        return str(values[found[1]]).replace("${", "$${") if known else found[0]

    return _REFERENCE.sub(put_in, data)


def references(data: Any) -> set[str]:
    """The names of all parameters that `data` refers to."""
    if isinstance(data, dict):
        return set[str]().union(*map(references, cast(dict[str, Any], data).values()))
    if isinstance(data, list):
        return set[str]().union(*map(references, cast(list[Any], data)))
    if not isinstance(data, str):
        return set()
    return {found[1] for found in _REFERENCE.finditer(data) if found[1] is not None}


def _value(name: str, values: dict[str, Any], path: str) -> Any:
    if name not in values:
        known = ", ".join(sorted(values)) or "none"
        raise UnknownName(f"{path}: no parameter {name!r}", hint=f"declared are: {known}")
    return values[name]
