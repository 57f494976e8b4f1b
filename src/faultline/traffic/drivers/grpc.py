"""Calls of gRPC with one message each way, over grpcio."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from faultline.traffic.driver import CannotBegin, Turn
from faultline.traffic.drivers.grpc_forms import Forms, described, reflected
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import SECOND, Load
from faultline.traffic.template import Data, Template, Values

_HEALTH = "grpc.health.v1.Health/Check"
_NAMES = {grpc.StatusCode.DEADLINE_EXCEEDED: "timeout"}

Call = Callable[..., Any]


class Driver:
    """A turn is one call."""

    errors: tuple[type[Exception], ...] = (grpc.aio.AioRpcError, ValueError)

    def __init__(self, load: Load) -> None:
        self._load, self._options = load, load.options
        self._method: str = (self._options["method"] or _HEALTH).lstrip("/")
        self._health = not self._options["method"]
        self._metadata = [
            (name, Template(value)) for name, value in self._options["metadata"].items()
        ]
        pattern: str = self._options["pattern"]
        self._pattern = re.compile(pattern) if pattern else None
        self._timeout = load.timeout / SECOND
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[Call] = []
        self._next = 0
        self._forms: Forms | None = None
        self._fill: Callable[[Values], bytes] = lambda _: b""

    async def open(self) -> None:
        self._fill = await self._filler()
        where = f"{self._options['host']}:{self._options['port']}"
        credentials = self._credentials() if self._options["tls"] else None
        settings: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
        if self._options["server_name"]:
            settings.append(("grpc.ssl_target_name_override", self._options["server_name"]))
        for _ in range(self._options["connections"] or 1):
            channel = (
                grpc.aio.secure_channel(where, credentials, options=settings)
                if credentials
                else grpc.aio.insecure_channel(where, options=settings)
            )
            self._channels.append(channel)
            self._calls.append(cast("Call", cast("Any", channel).unary_unary("/" + self._method)))

    def _credentials(self) -> grpc.ChannelCredentials:
        def read(name: str) -> bytes | None:
            path = self._options[name]
            return Path(path).read_bytes() if path else None

        try:
            key = read("key") or read("certificate")
            return grpc.ssl_channel_credentials(read("ca"), key, read("certificate"))
        except OSError as error:
            raise CannotBegin(f"the certificates cannot be read: {error}") from error

    async def _filler(self) -> Callable[[Values], bytes]:
        """What makes the bytes of a message."""
        options = self._options
        if self._health:
            from grpc_health.v1.health_pb2 import HealthCheckRequest

            asked = HealthCheckRequest(service=options["service"]).SerializeToString()
            return lambda _: asked
        if options["raw"] is not None:
            message = base64.b64decode(options["raw"])
            return lambda _: message
        if options["descriptors"]:
            self._forms = described(Path(options["descriptors"]), self._method)
        else:
            self._forms = await reflected(self._target(), self._method, self._timeout)
        forms, body = self._forms, Data(options["body"])
        if body.constant:
            always = forms.encode(options["body"])
            return lambda _: always
        return lambda values: forms.encode(body.fill(values))

    def _target(self) -> Mapping[str, Any]:
        where = f"{self._options['host']}:{self._options['port']}"
        return {
            "where": where,
            "credentials": self._credentials() if self._options["tls"] else None,
            "name": self._options["server_name"],
        }

    async def turn(self, turn: Turn) -> None:
        await turn.ask("", lambda: self._exchange(turn))

    async def _exchange(self, turn: Turn) -> str:
        self._next = (self._next + 1) % len(self._calls)
        answer: bytes = await self._calls[self._next](
            self._fill(turn.values),
            timeout=self._timeout,
            metadata=[(name, value.fill(turn.values)) for name, value in self._metadata] or None,
        )
        if self._health:
            return self._serving(answer)
        if self._pattern and self._forms:
            return "" if self._pattern.search(self._forms.decode(answer)) else "pattern"
        return ""

    @staticmethod
    def _serving(answer: bytes) -> str:
        from grpc_health.v1.health_pb2 import HealthCheckResponse

        status: int = HealthCheckResponse.FromString(answer).status
        if status == HealthCheckResponse.SERVING:
            return ""
        return HealthCheckResponse.ServingStatus.Name(status).lower().replace("_", " ")

    def kind(self, error: Exception) -> str:
        if isinstance(error, grpc.aio.AioRpcError):
            code = error.code()
            return _NAMES.get(code, code.name.lower().replace("_", " "))
        return "bad request" if isinstance(error, ValueError) else error_kind(error)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
