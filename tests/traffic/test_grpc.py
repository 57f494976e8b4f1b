"""Calls of gRPC against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from tests.traffic.harness import turns, users
from tests.traffic.servers import free_port

from faultline.traffic.driver import CannotBegin

grpc = pytest.importorskip("grpc")
pytest.importorskip("grpc_reflection")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: E402
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection  # noqa: E402


def shop() -> descriptor_pb2.FileDescriptorProto:
    """A service as its .proto file would describe it."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop.v1", syntax="proto3")
    for name in ("Item", "Cart"):
        message = file.message_type.add(name=name)
        message.field.add(name="what", number=1, type=9, label=1)
        message.field.add(name="count", number=2, type=5, label=1)
    service = file.service.add(name="Shop")
    service.method.add(name="Add", input_type=".shop.v1.Item", output_type=".shop.v1.Cart")
    service.method.add(
        name="Watch", input_type=".shop.v1.Item", output_type=".shop.v1.Cart",
        server_streaming=True,
    )  # fmt: skip
    return file


class Shop(grpc.GenericRpcHandler):
    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self.item, self.cart = (
            message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.v1.{name}"))
            for name in ("Item", "Cart")
        )
        self.seen: list[tuple[str, int, str]] = []

    def service(self, details: Any) -> Any:
        if details.method != "/shop.v1.Shop/Add":
            return None
        return grpc.unary_unary_rpc_method_handler(
            self.add, self.item.FromString, self.cart.SerializeToString
        )

    def add(self, item: Any, context: Any) -> Any:
        told = dict(context.invocation_metadata())
        self.seen.append((item.what, item.count, told.get("who", "")))
        if item.what == "nothing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return self.cart(what=item.what.upper(), count=item.count + 1)


@pytest.fixture
def server() -> Iterator[tuple[int, Shop, Any]]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(shop())
    handler, told = Shop(pool), health.HealthServicer()
    made = grpc.server(futures.ThreadPoolExecutor(4))
    made.add_generic_rpc_handlers((handler,))
    health_pb2_grpc.add_HealthServicer_to_server(told, made)
    reflection.enable_server_reflection(["shop.v1.Shop"], made, pool)
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    yield port, handler, told
    made.stop(0).wait()


def call(port: int, **fields: Any) -> dict[str, Any]:
    return {"type": "grpc", "host": "127.0.0.1", "port": port, **fields}


def test_the_server_is_asked_for_the_form_of_a_message(
    server: tuple[int, Shop, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, handler, _ = server
    monkeypatch.setenv("WHO", "me")
    data = call(
        port, method="shop.v1.Shop/Add", body={"what": "tea {{number}}", "count": "{{n}}"},
        feed={"rows": [{"n": 1}, {"n": 2}]}, metadata={"who": {"env": "WHO"}},
        pattern='"what": "TEA \\d"', connections=2,
    )  # fmt: skip
    tick = turns(data, 4)
    assert (tick.sent, tick.ok, tick.errors) == (4, 4, {})
    assert sorted(handler.seen) == [(f"tea {n}", n % 2 + 1, "me") for n in range(4)]


def test_a_descriptor_set_or_bytes_do_without_asking(
    server: tuple[int, Shop, Any], tmp_path: Path
) -> None:
    port, handler, _ = server
    path = tmp_path / "shop.pb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[shop()]).SerializeToString())
    data = call(port, method="shop.v1.Shop/Add", body={"count": 3}, descriptors=str(path))
    assert turns(data, 1).ok == 1
    assert turns(call(port, method="/shop.v1.Shop/Add", raw="EAU="), 1).ok == 1
    assert [count for _, count, _ in handler.seen] == [3, 5]


def test_health_is_asked_for_without_a_method(server: tuple[int, Shop, Any]) -> None:
    port, _, told = server
    serving, not_serving = (
        health_pb2.HealthCheckResponse.ServingStatus.Value(n) for n in ("SERVING", "NOT_SERVING")
    )
    told.set("", serving)
    told.set("shop", not_serving)
    assert turns(call(port), 2).ok == 2
    assert turns(call(port, service="shop"), 2).errors == {"not serving": 2}
    assert turns(call(port, service="other"), 2).errors == {"not found": 2}


def test_how_grpc_fails_has_a_name(server: tuple[int, Shop, Any]) -> None:
    add = {"method": "shop.v1.Shop/Add"}
    cases = [
        (call(server[0], **add, body={"what": "nothing"}), "not found"),
        (call(server[0], **add, body={"what": "tea"}, pattern="coffee"), "pattern"),
        (call(server[0], **add, body={"count": "{{uuid}}"}), "bad request"),
        (call(server[0], method="shop.v1.Shop/Pay", raw=""), "unimplemented"),
        (call(free_port()), "unavailable"),
    ]
    for data, kind in cases:
        assert turns(data, 1).errors == {kind: 1}, data


def test_what_cannot_be_sent_at_all_is_said_at_once(
    server: tuple[int, Shop, Any], tmp_path: Path
) -> None:
    port = server[0]
    (tmp_path / "bad.pb").write_text(json.dumps({"not": "protobuf"}))
    cases = [
        (call(free_port(), method="shop.v1.Shop/Add", timeout="300ms"), "no gRPC server"),
        (call(port, method="shop.v1.Shop/None"), "no method None"),
        (call(port, method="other.Service/Get"), "does not say"),
        (call(port, method="shop.v1.Shop/Watch"), "streams"),
        (call(port, method="a.B/C", descriptors=str(tmp_path / "bad.pb")), "does not describe"),
    ]
    for data, said in cases:
        with pytest.raises(CannotBegin, match=said):
            turns(data, 1)


def test_users_call_one_after_the_other(server: tuple[int, Shop, Any]) -> None:
    tick = users({**call(server[0], method="shop.v1.Shop/Add"), "concurrency": 2}, 0.2)
    assert tick.ok == tick.sent >= 4
