"""Messages of Kafka over aiokafka, until the brokers have them or until they have come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from faultline.traffic.driver import CannotBegin, Turn
from faultline.traffic.drivers import tls
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import SECOND, Load
from faultline.traffic.template import Template

_HEADER = "faultline"
_OPEN = 20.0  # seconds
_ACKS: dict[str, int | str] = {"all": "all", "leader": 1, "none": 0}


class Driver:
    """A turn is one message, told apart by a header of its own."""

    errors: tuple[type[Exception], ...] = (KafkaError,)

    def __init__(self, load: Load) -> None:
        self._options = options = load.options
        self._topic: str = options["topic"]
        self._key = Template(options["message_key"])
        self._value = Template(options["message"])
        self._timeout = load.timeout / SECOND
        self._mark = os.urandom(8)
        self._sent = 0
        self._back: dict[bytes, asyncio.Future[None]] = {}
        self._producer: Any = None  # the library is not typed all through
        self._consumer: Any = None
        self._reader: asyncio.Task[None] | None = None

    def _common(self) -> dict[str, Any]:
        options = self._options
        given: dict[str, Any] = {
            "bootstrap_servers": options["servers"],
            "client_id": "faultline",
            "request_timeout_ms": max(1, round(self._timeout * 1000)),
        }
        if options["tls"]:
            given["ssl_context"] = tls.context(options)
        if options["user"]:
            given |= {
                "sasl_mechanism": options["mechanism"],
                "sasl_plain_username": options["user"],
                "sasl_plain_password": options["password"],
            }
        words = ("SASL_" if options["user"] else "") + ("SSL" if options["tls"] else "PLAINTEXT")
        return {**given, "security_protocol": words}

    async def open(self) -> None:
        try:
            async with asyncio.timeout(_OPEN):
                await self._open()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            servers = ", ".join(self._options["servers"])
            raise CannotBegin(f"no use of topic {self._topic} at {servers}: {error!r}") from error

    async def _open(self) -> None:
        acks: Any = _ACKS[self._options["acks"]]
        self._producer = AIOKafkaProducer(**self._common(), acks=acks, linger_ms=0)
        await self._producer.start()
        partitions = await self._producer.partitions_for(self._topic)
        if self._options["mode"] == "produce":
            return
        self._consumer = AIOKafkaConsumer(
            **self._common(), auto_offset_reset="latest", enable_auto_commit=False,
            fetch_max_wait_ms=100,
        )  # fmt: skip
        await self._consumer.start()
        own = [TopicPartition(self._topic, number) for number in partitions]
        self._consumer.assign(own)
        await self._consumer.seek_to_end(*own)
        for each in own:
            await self._consumer.position(each)  # what comes from now on is read
        self._reader = asyncio.create_task(self._read(self._consumer))

    async def _read(self, consumer: Any) -> None:
        while True:
            try:
                batches = await consumer.getmany(timeout_ms=1000)
            except KafkaError:
                await asyncio.sleep(0.1)
                continue
            for messages in batches.values():
                for message in messages:
                    for name, mark in message.headers:
                        waiting = self._back.get(mark) if name == _HEADER else None
                        if waiting and not waiting.done():
                            waiting.set_result(None)

    async def turn(self, turn: Turn) -> None:
        key = self._key.fill(turn.values).encode() or None
        value = self._value.fill(turn.values).encode()
        await turn.ask("", lambda: self._exchange(key, value))

    async def _exchange(self, key: bytes | None, value: bytes) -> str:
        assert self._producer
        self._sent += 1
        mark = self._mark + self._sent.to_bytes(8, "big")
        back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._back[mark] = back
        try:
            await self._producer.send_and_wait(
                self._topic, value, key=key, headers=[(_HEADER, mark)]
            )
            if self._consumer:
                await back
        finally:
            del self._back[mark]
        return ""

    def kind(self, error: Exception) -> str:
        if isinstance(error, KafkaError):
            name = type(error).__name__
            return "timeout" if "Timeout" in name else name.removesuffix("Error") or name
        return error_kind(error)

    async def close(self) -> None:
        if self._reader:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        for client in (self._consumer, self._producer):
            if client:
                with contextlib.suppress(KafkaError, TimeoutError):
                    async with asyncio.timeout(2):
                        await client.stop()
