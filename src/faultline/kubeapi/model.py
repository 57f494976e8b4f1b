"""What the API server answers, and how it is asked: the part that needs no connection.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from faultline.errors import FaultlineError, Happened

Object = dict[str, Any]


class ApiError(FaultlineError):
    """The API server refused, or answered nothing that can be used."""

    code = "kubernetes-api"
    http_status = 502

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        hint: str = "",
        causes: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status  # of HTTP; 0 if there was no answer
        self.reason = reason  # one word of the server: NotFound, Conflict, Expired, Forbidden
        self.causes = causes  # the path of a field that it does not take, and what it says of it

    @property
    def refused(self) -> bool:
        """Whether the server has said no: then nothing has happened."""
        return 400 <= self.status < 500

    def as_dict(self) -> dict[str, object]:
        happened = Happened.NOTHING if self.refused else self.happened
        return {**super().as_dict(), "happened": str(happened), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the server."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Object:
        """The object; raises ApiError if it is a refusal, or no object."""
        found: Any = json_of(self.body) if self.body else {}
        if self.status >= 400:
            raise refusal(self.status, found)
        if not isinstance(found, dict):
            raise ApiError(self.status, "", f"the API server answered {self.status}, no object")
        return cast(Object, found)

    @property
    def wait(self) -> float:
        """Seconds after which the server wants to be asked again; 0 if it does not say."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdigit() else 0.0


def json_of(data: bytes) -> object:
    """What an answer says; None if that is no JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def said(error: BaseException) -> str:
    """An error in words, whatever it is."""
    return f"{error}" or type(error).__name__


def silent(server: str, error: BaseException) -> ApiError:
    """The error of a request that nobody answered."""
    return ApiError(0, "NoAnswer", f"the API server at {server}: {said(error)}")


def refusal(status: int, body: Any) -> ApiError:
    """The error of a Status object of the server."""
    told = cast(Object, body) if isinstance(body, dict) else {}
    reason = str(told.get("reason") or "")
    message = str(told.get("message") or f"the API server answered {status}")
    hints = {
        "Forbidden": "the account needs that right: docs/kubernetes.md and docs/stores.md",
        "Unauthorized": "the credentials are not accepted: log in again",
    }
    details = cast(Object, told.get("details") or {})
    causes = [
        (str(each.get("field") or ""), str(each.get("message") or ""))
        for each in cast("list[Object]", details.get("causes") or [])
    ]
    return ApiError(status, reason, message, hint=hints.get(reason, ""), causes=causes)


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str] | None = None
    body: object = None
    content: str = "application/json"
    timeout: float = 30.0

    @property
    def data(self) -> bytes | None:
        """What is sent; None for nothing."""
        return None if self.body is None else json.dumps(self.body).encode()


class Rest(Protocol):
    """A connection to one API server. Safe in threads."""

    @property
    def server(self) -> str:
        """Its address, for people."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace that is meant where none is named."""
        ...

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: str = "application/json",
        timeout: float = 30.0,
    ) -> Answer:
        """One request; raises ApiError with status 0 if no answer came in time."""
        ...

    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The lines of a long answer, as they come, with at most `timeout` seconds between two;
        raises ApiError.
        """
        ...

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        ...


class Asking:
    """A connection that is made by saying how one request is sent."""

    def send(self, asked: Request) -> Answer:
        """Send it; raises ApiError with status 0 if no answer came in time."""
        raise NotImplementedError

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: str = "application/json",
        timeout: float = 30.0,
    ) -> Answer:
        return self.send(Request(method, path, query, body, content, timeout))


class Wrapped(Asking):
    """A connection around another one: each request passes it."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    @property
    def server(self) -> str:
        return self._rest.server

    @property
    def namespace(self) -> str:
        return self._rest.namespace

    def send(self, asked: Request) -> Answer:
        more = (asked.query, asked.body, asked.content, asked.timeout)
        return self._rest.request(asked.method, asked.path, *more)

    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[Iterator[bytes]]:
        return self._rest.lines(path, query, timeout)

    def close(self) -> None:
        self._rest.close()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and where the server has it."""

    kind: str
    plural: str
    version: str  # `v1`, `apps/v1`
    namespaced: bool = True
    verbs: tuple[str, ...] = field(default=(), compare=False)
    names: tuple[str, ...] = field(default=(), compare=False)  # all that it is called, lower case

    @property
    def group(self) -> str:
        """Its group; empty for the core."""
        return self.version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "", part: str = "") -> str:
        """The address of one object, of a part of it (`status`, `scale`), or of all in a namespace
        (empty: of all namespaces).
        """
        root = f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = (f"/{name}" if name else "") + (f"/{part}" if part else "")
        return f"{root}{within}/{self.plural}{tail}"


def metadata(each: Object) -> Object:
    """The metadata of an object."""
    return cast(Object, each.get("metadata") or {})


def part(each: Object, name: str) -> Object:
    """What an object has under a name; empty if it has nothing there."""
    return cast(Object, each.get(name) or {})


def parts(each: Object, name: str) -> list[Object]:
    """The list that an object has under a name."""
    return cast("list[Object]", each.get(name) or [])


def version_of(each: Object) -> str:
    """Its resource version: to be given back, never to be understood."""
    return str(metadata(each).get("resourceVersion") or "")


def items(each: Object) -> list[Object]:
    """The objects of a list."""
    return cast("list[Object]", each.get("items") or [])
