"""A file of another tool as a document of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from faultline.api.document import parse, read
from faultline.api.traffic import Traffic
from faultline.errors import Bug, InvalidDocument
from faultline.traffic.importing import har, jmeter, openapi, postman
from faultline.traffic.importing.document import Writer, write
from faultline.traffic.importing.jsontree import Entries, entries
from faultline.traffic.importing.plan import Plan, hide_secrets

Source = Literal["jmeter", "har", "postman", "openapi"]
SOURCES: tuple[str, ...] = get_args(Source)
LARGEST = 64 << 20
"""Bytes of a file that is read."""

_READERS = {"har": har.read, "postman": postman.read, "openapi": openapi.read}


def imported(path: Path, source: str = "") -> tuple[dict[str, Any], Plan]:
    """The document made from a file, and what it was made from; without `source` its kind is seen
    from what it holds. Raises InvalidDocument.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InvalidDocument(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise InvalidDocument(f"{path} is larger than {LARGEST >> 20} MiB")
    plan = plan_of(content, path, source)
    hide_secrets(plan)
    document = Writer(plan).document()
    try:
        read(Traffic, document, str(path))
    except InvalidDocument as error:
        raise Bug(f"an import made a document that is not valid: {error.message}") from error
    return document, plan


def plan_of(content: bytes, path: Path, source: str = "") -> Plan:
    """What is in the content of a file; raises InvalidDocument."""
    if source == "jmeter" or (not source and content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"):
        return jmeter.read(content, path)
    data = _data(content, path)
    source = source or _seen(data)
    if not source:
        raise InvalidDocument(
            f"{path} is neither a plan of JMeter, a HAR, a collection of Postman nor OpenAPI",
            hint="if it is one of them, say so: --format",
        )
    if source == "postman":
        data = entries(data, "collection") or data  # as its API gives it
    return _READERS[source](data, path)


def _data(content: bytes, path: Path) -> Entries:
    text = content.decode("utf-8-sig", errors="replace")
    if text.lstrip().startswith("{"):
        try:
            found: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidDocument(f"{path} is not JSON: {error}") from error
        return entries(found)
    try:
        return parse(text, str(path))
    except RecursionError as error:
        raise InvalidDocument(f"{path} is nested too deeply") from error


def _seen(data: Entries) -> str:
    """Which kind of file this is; '' if none that is known."""
    if "entries" in entries(data, "log"):
        return "har"
    if "openapi" in data or "swagger" in data:
        return "openapi"
    if "item" in data or "item" in entries(data, "collection"):
        return "postman"
    return ""


__all__ = ["LARGEST", "SOURCES", "imported", "plan_of", "write"]
