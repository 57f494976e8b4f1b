"""The grpc probe: what a server says of its health (grpc.health.v1).

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

from faultline.api.probe import GrpcProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Figures

_LARGEST = 65536  # bytes of an answer
_OURS = ("UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT")


class Prober(prober.Prober[GrpcProbe]):
    """Its value is the time from before the connection to the answer."""

    def __init__(self, spec: GrpcProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        try:  # here, since it takes longer than many a limit
            import grpc
            from grpc_health.v1 import health_pb2, health_pb2_grpc
        except ModuleNotFoundError as error:
            raise prober.not_installed("gRPC", "grpc") from error
        # The library and its generated modules have no types.
        self._api: Any = grpc
        self._messages: Any = health_pb2
        self._services: Any = health_pb2_grpc

    def look(self, limit: Limit) -> Measurement:
        spec, api = self.spec, self._api
        messages, services = self._messages, self._services
        sent = [(name, self.secret(value)) for name, value in spec.metadata.items()]
        channel = self._channel(api)
        begun = monotonic()
        try:
            answer = services.HealthStub(channel).Check(
                messages.HealthCheckRequest(service=spec.service),
                timeout=limit.left(),
                metadata=sent,
            )
        except api.RpcError as error:
            raise self._failure(error, limit) from error
        except ValueError as error:  # its text may repeat what was to be sent
            raise ObserveFailed("the metadata cannot be sent") from error
        finally:
            channel.close()
        seconds = monotonic() - begun
        status = messages.HealthCheckResponse.ServingStatus.Name(answer.status)
        return Measurement(
            value=seconds,
            ok=status == "SERVING",
            latency=seconds,
            text=f"{spec.service or 'the server'}: {status}",
            result={"status": status, "service": spec.service},
        )

    def _channel(self, api: Any) -> Any:
        spec = self.spec
        host = f"[{spec.host}]" if ":" in spec.host else spec.host
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", _LARGEST),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, as a new client has
        ]
        if not spec.tls:
            return api.insecure_channel(f"{host}:{spec.port}", options=options)
        if spec.server_name:
            options.append(("grpc.ssl_target_name_override", spec.server_name))
        if spec.key_password:
            raise ObserveFailed("gRPC takes no key with a password")
        try:
            authorities = Path(spec.ca).read_bytes() if spec.ca else None
            chain = Path(spec.certificate).read_bytes() if spec.certificate else None
            key = Path(spec.key or spec.certificate).read_bytes() if chain else None
        except OSError as error:
            raise ObserveFailed(f"{error.filename}: {error.strerror}") from error
        credentials = api.ssl_channel_credentials(authorities, key, chain)
        return api.secure_channel(f"{host}:{spec.port}", credentials, options=options)

    def _failure(self, error: Any, limit: Limit) -> NoAnswer | ObserveFailed:
        """What a status other than OK says: of the server, or of our question."""
        code, details = error.code().name, self.quoted(str(error.details() or ""))
        if code == "DEADLINE_EXCEEDED":
            return limit.late()
        if code == "NOT_FOUND":
            return NoAnswer(f"the server knows no service {self.spec.service!r}")
        if code == "UNIMPLEMENTED":
            return ObserveFailed("the server does not tell of its health (no grpc.health.v1)")
        return (
            ObserveFailed(f"{code}: {details}") if code in _OURS else NoAnswer(f"{code}: {details}")
        )
