"""Answers of an API server, made here: errors, and single objects out of lists. Pure."""

from __future__ import annotations

import json
from typing import Any, Final, cast

REASONS: Final = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict",
    410: "Expired", 422: "Invalid", 429: "TooManyRequests", 500: "InternalError",
    502: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip
JSON: Final = "application/json"


def status(code: int, message: str = "", reason: str = "", retry_after: int = 0) -> bytes:
    """An error as the server writes it (metav1.Status)."""
    made: dict[str, Any] = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message or f"a fault of Faultline ({code})",
        "reason": reason or REASONS.get(code, ""), "code": code,
    }  # fmt: skip
    if retry_after:
        made["details"] = {"retryAfterSeconds": retry_after}
    return json.dumps(made).encode() + b"\n"


def alone(body: bytes) -> bytes | None:
    """The only object of a list; None if there is none."""
    told = cast("dict[str, Any]", json.loads(body))
    items = cast("list[dict[str, Any]]", told.get("items") or [])
    if not items:
        return None
    kind = str(told.get("kind") or "").removesuffix("List")
    return json.dumps({"kind": kind, "apiVersion": told.get("apiVersion"), **items[0]}).encode()


def version_of(body: bytes) -> str:
    """The version of a list."""
    try:
        told = cast("dict[str, Any]", json.loads(body))
        return str(told["metadata"]["resourceVersion"])
    except (ValueError, KeyError, TypeError):
        return ""


def readable(accepted: str) -> str:
    """What a client takes, without what cannot be read here (protobuf, CBOR)."""
    kept = [
        each
        for each in accepted.split(",")
        if "protobuf" not in each and "cbor" not in each and each.strip()
    ]
    return ",".join(kept) or JSON
