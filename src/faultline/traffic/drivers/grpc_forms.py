"""The forms of a method's messages: from a descriptor set, or from the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from faultline.traffic.driver import CannotBegin


class Forms:
    """JSON to bytes and back, for one method."""

    def __init__(self, pool: descriptor_pool.DescriptorPool, method: MethodDescriptor) -> None:
        if method.client_streaming or method.server_streaming:
            raise CannotBegin(f"{method.full_name} streams; only one message each way can be sent")
        self._pool = pool
        self._request: Any = message_factory.GetMessageClass(method.input_type)
        self._answer: Any = message_factory.GetMessageClass(method.output_type)

    def encode(self, body: Any) -> bytes:
        """Raises ValueError if the message has no such form."""
        try:
            filled = json_format.ParseDict(body, self._request(), descriptor_pool=self._pool)
        except json_format.ParseError as error:
            raise ValueError(str(error)) from error
        return filled.SerializeToString()

    def decode(self, answer: bytes) -> str:
        try:
            message = self._answer.FromString(answer)
        except DecodeError:
            return ""
        return json_format.MessageToJson(message, indent=None, descriptor_pool=self._pool)


def _method(pool: descriptor_pool.DescriptorPool, name: str) -> MethodDescriptor:
    service, _, method = name.partition("/")
    found = pool.FindServiceByName(service).methods_by_name.get(method)
    if found is None:
        raise CannotBegin(f"the service {service} has no method {method}")
    return found


def described(path: Path, method: str) -> Forms:
    """By a descriptor set; raises CannotBegin."""
    try:
        files = FileDescriptorSet.FromString(path.read_bytes()).file
        pool = descriptor_pool.DescriptorPool()
        for file in files:
            pool.Add(file)  # pyright: ignore[reportDeprecated]
        return Forms(pool, _method(pool, method))
    except (OSError, DecodeError, TypeError, KeyError) as error:
        raise CannotBegin(f"{path} does not describe {method}: {error}") from error


async def reflected(target: Mapping[str, Any], method: str, within: float) -> Forms:
    """By asking the server (grpc.reflection.v1alpha); raises CannotBegin."""
    return await asyncio.to_thread(_reflected, target, method, within)


def _reflected(target: Mapping[str, Any], method: str, within: float) -> Forms:
    settings = [("grpc.ssl_target_name_override", target["name"])] if target["name"] else None
    channel = (
        grpc.secure_channel(target["where"], target["credentials"], options=settings)
        if target["credentials"]
        else grpc.insecure_channel(target["where"])
    )
    with channel:
        try:
            grpc.channel_ready_future(channel).result(within)
            pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            return Forms(pool, _method(pool, method))
        except grpc.FutureTimeoutError as error:
            raise CannotBegin(f"no gRPC server answers at {target['where']}") from error
        except (grpc.RpcError, KeyError) as error:
            raise CannotBegin(
                f"the server does not say what {method} looks like "
                f"(it needs reflection, or the traffic `descriptors`): {error}"
            ) from error
