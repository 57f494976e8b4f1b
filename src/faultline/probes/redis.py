"""The redis probe: one command on a connection of its own.

The protocol (RESP 2) is read here and not by a client library: an answer of any length, from a
server that may be anything, has to fit into the memory and the time of one measurement.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import io
import math
import socket
from typing import Any, cast

from faultline.api.probe import Measurement, RedisProbe
from faultline.errors import ObserveFailed
from faultline.probes import prober, tls
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import LimitedReader, connect, reason

_LINE = 4096  # bytes of a line of the protocol
_LARGEST = 1 << 20  # bytes of an answer
_DEEPEST = 8  # lists in lists
_SHOWN = 1000  # elements that expressions see
_OF_THE_SERVER = (
    "LOADING", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "OOM", "MISCONF", "NOREPLICAS",
    "TRYAGAIN", "UNKILLABLE", "NOGOODSLAVE", "ERR max number of clients reached",
)  # fmt: skip


class _Refusal(Exception):
    """An error that the server answered."""


class Prober(prober.Prober[RedisProbe]):
    """Its value is the number that the command answers, else the length of the answer."""

    def look(self, limit: Limit) -> Measurement:
        wire = self._connect(limit)
        try:
            reply = self._ask(wire, limit)
        except TimeoutError as error:
            raise limit.late() from error
        except OSError as error:
            raise NoAnswer(reason(error)) from error
        finally:
            wire.close()
        if reply is None:
            return Measurement(ok=True, text="there is nothing", result={"reply": None})
        value, counted = _value(reply)
        shown = cast("list[Any]", reply)[:_SHOWN] if isinstance(reply, list) else reply
        said = f"{value:g} {counted}" if counted else self.quoted(f"{reply}")
        return Measurement(value=value, ok=True, text=said, result={"reply": shown})

    def _connect(self, limit: Limit) -> socket.socket:
        spec = self.spec
        if not spec.host.startswith("/"):
            wire = connect(spec.host, spec.port, limit)
        else:
            wire = socket.socket(socket.AF_UNIX)
            try:
                wire.settimeout(limit.left())
                wire.connect(spec.host)
            except OSError as error:
                wire.close()
                raise NoAnswer(f"{spec.host}: {reason(error)}") from error
        if not spec.tls:
            return wire
        password = self.secret(spec.key_password) if spec.key_password else ""
        trust = tls.trust(spec, password, spec.verify)
        return trust.encrypt(wire, trust.context(), spec.host, limit)

    def _ask(self, wire: socket.socket, limit: Limit) -> Any:
        """The answer to the command; what comes before it must not fail."""
        spec = self.spec
        asked: list[list[str | int | float]] = []
        if spec.password:
            name = [spec.user] if spec.user else []
            asked.append(["AUTH", *name, self.secret(spec.password)])
        if spec.db:
            asked.append(["SELECT", spec.db])
        asked.append(spec.command)
        incoming = _Reader(wire, limit)
        reply: Any = None
        for words in asked:
            wire.settimeout(limit.left())
            wire.sendall(_command(words))
            try:
                reply = incoming.reply()
            except _Refusal as error:
                text = self.redacted(str(error))
                if text.startswith(_OF_THE_SERVER):
                    raise NoAnswer(text) from error
                raise ObserveFailed(f"{words[0]}: {text}") from error
        return reply


def _command(words: list[str | int | float]) -> bytes:
    raw = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in raw)


class _Reader:
    """Reads answers from a connection that may send anything, for ever."""

    def __init__(self, wire: socket.socket, limit: Limit) -> None:
        self._incoming = io.BufferedReader(LimitedReader(wire, limit))
        self._room = _LARGEST

    def reply(self, depth: int = 0) -> Any:
        """One answer; raises _Refusal for an error, and NoAnswer for what is none."""
        line = self._incoming.readline(_LINE)
        if not line:
            raise NoAnswer("the connection was closed without an answer")
        kind, rest = line[:1], line[1:-2].decode(errors="replace")
        self._take(len(line))
        if line.endswith(b"\r\n") and kind == b"+":
            return rest
        if line.endswith(b"\r\n") and kind == b"-":
            raise _Refusal(rest)
        whole = rest.removeprefix("-").isdecimal() and len(rest) < 20
        if not line.endswith(b"\r\n") or kind not in (b":", b"$", b"*") or not whole:
            raise NoAnswer(
                f"not an answer of Redis: {prober.quoted(line.decode(errors='replace'))}"
            )
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        return self._text(number) if kind == b"$" else self._list(number, depth + 1)

    def _take(self, size: int) -> None:
        self._room -= size
        if self._room < 0:
            raise ObserveFailed(f"the answer has more than {_LARGEST} bytes")

    def _text(self, length: int) -> str:
        self._take(length)
        data = self._incoming.read(length + 2)
        if len(data) < length + 2:
            raise NoAnswer(f"the answer was cut off after {len(data)} bytes")
        return data[:-2].decode(errors="replace")

    def _list(self, length: int, depth: int) -> list[Any]:
        self._take(4 * length)  # the shortest element has as many bytes
        if depth > _DEEPEST:
            raise ObserveFailed(f"the answer has lists in lists, more than {_DEEPEST} deep")
        return [self.reply(depth) for _ in range(length)]


def _value(reply: Any) -> tuple[float, str]:
    """The number of an answer, and what it counts if it is a length."""
    if isinstance(reply, list):
        return float(len(cast("list[Any]", reply))), "elements"
    try:
        number = float(reply)
    except ValueError:
        return float(len(reply)), "characters"
    return (number, "") if math.isfinite(number) else (float(len(reply)), "characters")
