"""Errors as problem documents (RFC 9457), with the codes of `faultline.errors`."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, ClassVar

from faultline.errors import FaultlineError, Refused, UsageError

MEDIA = "application/problem+json"


class NoToken(Refused):
    """The call has no token, or not the one of this engine."""

    code = "no-token"
    http_status = 401


class NotHere(Refused):
    """The call comes from a browser, or names another host than this one."""

    code = "not-from-here"
    http_status = 403


class TooLong(UsageError):
    """The body of the call is longer than the engine reads."""

    code = "too-long"
    http_status = 413


class TooSlow(UsageError):
    """The body of the call did not arrive in time."""

    code = "too-slow"
    http_status = 408


class WrongMedia(UsageError):
    """The body of the call is neither JSON nor YAML by its content type."""

    code = "wrong-media"
    http_status = 415


class TooMany(Refused):
    """As many as the engine serves follow its events already."""

    code = "too-many"
    retry = True
    http_status = 429


class NoRoute(UsageError):
    """There is nothing at this address, or not with this method."""

    code = "no-route"
    http_status = 404


HEADERS: dict[type[FaultlineError], dict[str, str]] = {NoToken: {"www-authenticate": "Bearer"}}


class Problem:
    """An error as status, headers and JSON."""

    media: ClassVar[str] = MEDIA

    def __init__(self, error: FaultlineError, status: int = 0, **more: Any) -> None:
        self.status = status or error.http_status
        self.headers = {"cache-control": "no-store", **HEADERS.get(type(error), {})}
        self.data: dict[str, Any] = {
            "type": f"urn:faultline:error:{error.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": error.message,
            **error.as_dict(),
            **more,
        }

    def body(self) -> bytes:
        return json.dumps(self.data, default=str).encode()
