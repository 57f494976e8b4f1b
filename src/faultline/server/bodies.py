"""From the body of a call to data, and from data to an answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from faultline.api import document
from faultline.api.bounds import DEEPEST
from faultline.api.model import Model
from faultline.errors import InvalidDocument
from faultline.server.problems import WrongMedia

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
            found = document.parse_all(self.text, "the body")
            for each in found:
                _check_values(each)
            return found
        if self.media not in _JSON:
            raise WrongMedia(
                f"the body is {self.media or 'of no type'}; expected JSON or YAML",
                hint="send the header `content-type: application/json` or `application/yaml`",
            )
        try:
            data: object = json.loads(self.text)
            _check_values(data)
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


def _check_values(data: object) -> None:
    """Refuse what no document has and what not everything can write: too many levels, half
    characters, numbers that are none or that no machine has.
    """
    level: list[object] = [data]
    for _ in range(DEEPEST):
        below: list[object] = []
        for each in level:
            if isinstance(each, dict):
                entries = cast("dict[object, object]", each)
                below += [*entries, *entries.values()]
            elif isinstance(each, list):
                below += cast("list[object]", each)
            elif (isinstance(each, int) and not -(2**63) <= each < 2**63) or (
                isinstance(each, float) and not math.isfinite(each)
            ):
                raise InvalidDocument("the body has a number that is infinite, or too large")
            elif isinstance(each, str):
                _check_text(each)
        if not below:
            return
        level = below
    raise InvalidDocument(f"the body has more than {DEEPEST} levels")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidDocument(f"the body has half a character: {error.reason}") from error


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
