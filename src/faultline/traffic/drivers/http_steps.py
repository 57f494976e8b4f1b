"""A request of HTTP, what makes its answer good, and what is taken out of it for later ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from faultline.traffic.template import Template, Values, written

MOST_BODY = 16 << 20
"""Bytes of a body that are kept to be looked into."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, filled in."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    wanted: bool  # whether the body of the answer is looked into


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; the body is empty if nobody wanted it."""

    status: int
    headers: Mapping[str, str]  # case does not matter
    body: bytes


class Session(Protocol):
    """What one user sends with: its cookies, over connections that all users share."""

    async def exchange(self, request: Request) -> Answer: ...

    def close(self) -> None: ...


def codes(text: str) -> frozenset[int]:
    """`200-299,404` as a set."""
    ends = [part.partition("-")[::2] for part in text.split(",")]
    return frozenset(code for low, high in ends for code in range(int(low), int(high or low) + 1))


class Taken:
    """One value that is taken out of answers."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.name: str = options["name"]
        self._header: str = options["header"]
        self._default: str | None = options["default"]
        self._pattern = re.compile(options["pattern"]) if options["pattern"] else None
        self._path: Any = None
        if options["json_path"]:
            from jsonpath_ng.ext import parser

            self._path = parser.parse(options["json_path"])

    @property
    def wants_body(self) -> bool:
        return not self._header

    def find(self, answer: Answer, text: str) -> Any:
        """The value; None: the answer has none."""
        found: Any = None
        if self._header:
            found = answer.headers.get(self._header)
        elif self._pattern:
            match = self._pattern.search(text)
            found = match and match[1 if match.re.groups else 0]
        else:
            try:
                found = next((each.value for each in self._path.find(json.loads(text))), None)
            except json.JSONDecodeError:
                found = None
        return self._default if found is None else found


class Step:
    """One request as it stands in the document, taken apart once."""

    def __init__(self, options: Mapping[str, Any], base: str, headers: Mapping[str, str]) -> None:
        self.think: int = options.get("think", 0)
        self._method: str = options["method"]
        path, url = options.get("path", ""), options.get("url") or ""
        self._url = Template(url or _below(base, path))
        both = {**{name.lower(): (name, value) for name, value in headers.items()}}
        both |= {name.lower(): (name, value) for name, value in options["headers"].items()}
        self._headers = [(name, Template(value)) for name, value in both.values()]
        self._body = Template(options["body"])
        self._codes = codes(options["code"])
        self._pattern = re.compile(options["pattern"]) if options["pattern"] else None
        self._takes = [Taken(each) for each in options.get("extract", ())]
        named = options.get("name") or f"{self._method} {path or urlsplit(url).path or '/'}"
        self.label: str = named
        wanted = bool(self._pattern) or any(take.wants_body for take in self._takes)
        parts = [self._url, self._body, *(value for _, value in self._headers)]
        self._wanted = wanted
        self._constant = all(part.constant for part in parts)
        self._always = self._filled(Values({}, 0, 0)) if self._constant else None

    def request(self, values: Values) -> Request:
        return self._always or self._filled(values)

    def request_of(self, turn: Any) -> Request:
        """The same, without making values that nothing asks for."""
        return self._always or self._filled(turn.values)

    def _filled(self, values: Values) -> Request:
        headers = {name: value.fill(values) for name, value in self._headers}
        body = self._body.fill(values).encode()
        return Request(self._method, self._url.fill(values), headers, body, self._wanted)

    def judge(self, answer: Answer, values: Values | None) -> str:
        """'' or what is wrong with an answer; what is taken out of it goes into `values`."""
        if answer.status not in self._codes:
            return f"status {answer.status}"
        if not self._wanted and not self._takes:
            return ""
        text = answer.body.decode(errors="replace")
        if self._pattern and not self._pattern.search(text):
            return "pattern"
        for take in self._takes:
            found = take.find(answer, text)
            if found is None:
                return f"no {take.name}"
            if values is not None:
                values[take.name] = written(found)
        return ""


def _below(base: str, path: str) -> str:
    """A path below the base address, whatever of the two has the slash."""
    if path.startswith(("http://", "https://")):
        return path
    return f"{base.rstrip('/')}/{path.lstrip('/')}" if path else base
