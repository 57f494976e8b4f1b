"""Documents from text to models: every complaint names the field by its path in the document."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from faultline.api import bounds
from faultline.api.secret import hide_passwords
from faultline.errors import InvalidDocument

_BLANK = re.compile(r"(\s|#.*)*")
_OTHERS = re.compile(r"^(Input|String|Value|List|Dictionary) should ")  # how pydantic begins

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a document."""

    path: str
    """Where, as `spec.probes.0.interval`."""
    expected: str
    """What is accepted there."""
    given: object = None

    def __str__(self) -> str:
        shown = (
            ""
            if self.given is None or isinstance(self.given, (dict, list))
            else hide_passwords(repr(self.given))
        )
        return f"{self.path}: {f'{shown} is not accepted; ' if shown else ''}{self.expected}"


class _Loader(yaml.CSafeLoader):
    """YAML as JSON data: no dates, no key twice, and 17:00 is no number to the base of 60."""


_TAG = "tag:yaml.org,2002:"
_OTHER_NUMBERS = {  # as in YAML 1.1, without what has a colon in it
    f"{_TAG}int": re.compile(r"[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    f"{_TAG}float": re.compile(
        r"([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _OTHER_NUMBERS.get(tag, pattern))
        for tag, pattern in pairs
        if tag != f"{_TAG}timestamp"
    ]
    for first, pairs in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    construct = cast(Any, loader).construct_object
    keys: list[Any] = [construct(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            line = node.start_mark.line + 1
            raise InvalidDocument(f"the key {key!r} is there twice in the mapping of line {line}")
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, name: str = "document") -> dict[str, Any]:
    """YAML or JSON text as data; raises InvalidDocument with the line."""
    bounds.check(text, name)
    try:
        data: object = yaml.load(text, _Loader)  # noqa: S506 (derived from the safe loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InvalidDocument(f"{name} is not YAML{where}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidDocument(f"{name} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise InvalidDocument(f"{name} is not a mapping with apiVersion, kind, metadata and spec")
    return cast(dict[str, Any], data)


def parse_all(text: str, name: str = "document") -> list[dict[str, Any]]:
    """The documents of a text, which `---` separates; raises InvalidDocument."""
    parts = re.split(r"^---[ \t]*(?:#.*)?$", text, flags=re.MULTILINE)
    found = [part for part in parts if not _BLANK.fullmatch(part)]
    if len(found) < 2:
        return [parse(text, name)]
    return [parse(part, f"{name}, document {number}") for number, part in enumerate(found, 1)]


def problems_of(error: ValidationError, data: object) -> list[Problem]:
    """What pydantic found, in the words and paths of the document."""
    found: list[Problem] = []
    for one in error.errors(include_url=False):
        path = _path(tuple(one["loc"]), data)
        message = _OTHERS.sub("must ", one["msg"].removeprefix("Value error, "))
        if one["type"] == "missing":
            found.append(Problem(path, "required, and not given"))
        elif one["type"] == "union_tag_not_found":
            found.append(Problem(f"{path}.type", "required, and not given"))
        elif one["type"] == "extra_forbidden":
            found.append(Problem(path, "no such field"))
        else:
            found.append(Problem(path, message, cast(object, one["input"])))
    return found


def read(model: type[M], data: object, name: str = "document") -> M:
    """Data as a model; raises InvalidDocument that lists every problem."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid_document(name, problems_of(error, data)) from error


def invalid_document(name: str, problems: list[Problem]) -> InvalidDocument:
    """All problems of a document as one error."""
    lines = "\n".join(f"  {problem}" for problem in problems)
    told = [(one.path, one.expected) for one in problems]
    return InvalidDocument(f"{name} is not valid:\n{lines}", problems=told)


def _path(loc: tuple[str | int, ...], data: object) -> str:
    """The path without the names that pydantic adds for the members of a union."""
    parts: list[str] = []
    here: Any = data
    tagged: Any = None  # the mapping whose tag was already skipped
    for index, part in enumerate(loc):
        if isinstance(here, dict) and cast(Any, here).get("type") == part and here is not tagged:
            tagged = cast(Any, here)
            continue
        inside = _child(here, part)
        if inside is None and index < len(loc) - 1:
            continue
        parts.append(str(part))
        here = inside
    return ".".join(parts) or "document"


def _child(here: Any, part: str | int) -> Any:
    if isinstance(here, dict):
        return cast(Any, here).get(part)
    if isinstance(here, list) and isinstance(part, int) and part < len(cast(list[Any], here)):
        return cast(Any, here)[part]
    return None
