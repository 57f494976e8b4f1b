"""A driver tried in this process: so many turns at once, and what they came to."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import TypeAdapter

from faultline.api.traffic import TrafficSpec
from faultline.kernel.clock import now
from faultline.traffic.driver import driver_of
from faultline.traffic.load import load_of
from faultline.traffic.model import Tick
from faultline.traffic.schedule import Curve
from faultline.traffic.sending import Sender

READ: TypeAdapter[Any] = TypeAdapter(TrafficSpec)


def spec(data: dict[str, Any]) -> Any:
    return READ.validate_python({"name": "load", "warmup": "0s", "timeout": "5s", **data})


async def _turns(data: dict[str, Any], count: int, *, apart: bool) -> Tick:
    load = load_of(spec({"rate": 1.0, **data}))
    async with Sender(load, driver_of(load)) as sender:
        for number in range(count):
            sender.fire(number, now())
            if apart:
                await sender.finish()
        await sender.finish()
        if sender.broken.done():
            sender.broken.result()
        return sender.tally.cut(0, 0, ())


def turns(data: dict[str, Any], count: int = 5, *, apart: bool = False) -> Tick:
    """So many turns of the open model; `apart`: each when the one before has ended."""
    return asyncio.run(_turns(data, count, apart=apart))


async def _users(data: dict[str, Any], seconds: float) -> Tick:
    load = load_of(spec(data))
    async with Sender(load, driver_of(load)) as sender:
        start = now()
        curve = Curve(load.concurrency, load.stages)
        await sender.crowd(curve, start, start + round(seconds * 1e9))
        await sender.finish()
        if sender.broken.done():
            sender.broken.result()
        return sender.tally.cut(0, 0, ())


def users(data: dict[str, Any], seconds: float) -> Tick:
    """The closed model for so long."""
    return asyncio.run(_users(data, seconds))
