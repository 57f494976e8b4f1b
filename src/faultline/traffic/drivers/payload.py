"""The bytes of a request, the same each time or filled in for each turn."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from faultline.traffic.driver import Turn
from faultline.traffic.template import Template


class Payload:
    """Text with places, or bytes that were written as hexadecimal digits or base64."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        text, encoding = options["payload"], options["encoding"]
        self._text: Template | None = None
        self._data = b""
        if encoding == "hex":
            self._data = bytes.fromhex(text)
        elif encoding == "base64":
            self._data = base64.b64decode(text)
        elif (template := Template(text)).constant:
            self._data = text.encode()
        else:
            self._text = template

    def __bool__(self) -> bool:
        return bool(self._data or self._text)

    def fill(self, turn: Turn) -> bytes:
        return self._text.fill(turn.values).encode() if self._text else self._data
