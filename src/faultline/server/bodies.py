"""From the body of a call to data, and from data to an answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

import yaml
from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from faultline.api import document
from faultline.api.model import Model
from faultline.errors import InvalidDocument
from faultline.server.problems import WrongMedia

DEEPEST = 100
"""Levels of a document."""
ALIASES = 100
"""References of a YAML document to parts of itself: each may stand for all of it."""
_M = TypeVar("_M", bound=BaseModel)
_JSON = ("application/json",)
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


@dataclass(frozen=True, slots=True)
class Body:
    """What a call sent, unread."""

    text: str
    media: str

    def data(self) -> dict[str, Any]:
        """The one document that it is; raises InvalidDocument, WrongMedia."""
        found = self.documents()
        if len(found) != 1:
            raise InvalidDocument(f"the body holds {len(found)} documents; expected one")
        return found[0]

    def documents(self) -> list[dict[str, Any]]:
        """The documents that it holds: one of JSON, or those of YAML that `---` separates."""
        if self.media in _YAML:
            _check_yaml(self.text)
            return document.parse_all(self.text, "the body")
        if self.media not in _JSON:
            raise WrongMedia(
                f"the body is {self.media or 'of no type'}; expected JSON or YAML",
                hint="send the header `content-type: application/json` or `application/yaml`",
            )
        try:
            data: object = json.loads(self.text)
            _check_depth(data)
        except (ValueError, RecursionError) as error:
            raise InvalidDocument(f"the body is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise InvalidDocument("the body is no object of JSON")
        return [cast("dict[str, Any]", data)]

    def read(self, model: type[_M]) -> _M:
        """What it says, checked; raises InvalidDocument that names every field that is wrong."""
        return document.read(model, self.data() if self.text.strip() else {}, "the body")


async def _taken(request: Request) -> Body:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        return Body((await request.body()).decode(), media)
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"the body is not UTF-8: {error.reason}") from error


Sent = Annotated[Body, Depends(_taken)]


def _check_yaml(text: str) -> None:
    """Refuse what would be deeper or larger than it looks, before it is built."""
    depth = aliases = 0
    try:
        for event in yaml.parse(text, yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.AliasEvent):
                aliases += 1
            if depth > DEEPEST or aliases > ALIASES:
                raise InvalidDocument(
                    f"the body has more than {DEEPEST} levels or {ALIASES} references to itself"
                )
    except yaml.YAMLError:
        return  # who reads it says where it is wrong


def _check_depth(data: object) -> None:
    level: list[object] = [data]
    for _ in range(DEEPEST):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                below += cast("dict[str, object]", each).values()
            elif isinstance(each, list):
                below += cast("list[object]", each)
        if not below:
            return
        level = below
    raise InvalidDocument(f"the body has more than {DEEPEST} levels")


# -------------------------------------------------------------------------------------- answers


class Json(JSONResponse):
    """JSON in which what is no number in JSON (infinity, a mean of nothing) is null."""

    def render(self, content: Any) -> bytes:
        data = content.to_json() if isinstance(content, Model) else content
        try:
            return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
        except ValueError:
            return json.dumps(_finite(data), allow_nan=False, separators=(",", ":")).encode()


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in cast("dict[str, Any]", data).items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in cast("list[Any]", data)]
    return data


def caller(request: Request) -> str:
    """Who calls, as the kernel says; empty where it does not (loopback)."""
    client = request.client
    return client.host if client is not None and client.port == 0 else ""


# -------------------------------------------------------------------------------------- OpenAPI

DOCUMENTED: dict[str, type[BaseModel]] = {}
"""The models of bodies: they are read from text here, so their schemas are added by hand."""


def takes(model: type[BaseModel], *, needed: bool = True) -> dict[str, Any]:
    """What the OpenAPI document says of a route whose body is such a model."""
    DOCUMENTED[model.__name__] = model
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {media: {"schema": schema} for media in (*_JSON, _YAML[0])}
    return {"requestBody": {"content": content, "required": needed}}
