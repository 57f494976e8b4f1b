"""From a document to what the generators are told: plain data, with secrets filled in."""

from __future__ import annotations

import base64
from importlib.util import find_spec
from typing import Any, cast

from faultline.api.model import Model
from faultline.api.secret import SecretRef
from faultline.api.traffic import (
    GrpcTraffic,
    HttpTraffic,
    OurTraffic,
    PacedTraffic,
    PluginTraffic,
    SqlTraffic,
)
from faultline.api.traffic_parts import BUILT_IN, FedTraffic, places
from faultline.errors import ApplyFailed, ObserveFailed, UnknownName, Unsupported
from faultline.traffic import feed
from faultline.traffic.driver import PLUGIN
from faultline.traffic.model import SECOND, Load

_LONGEST = 8 * 86400 * SECOND  # bounded even where neither document nor engine names a bound
_NEEDS = {
    "http": ("aiohttp", "experiments"),
    "redis": ("redis", "redis"),
    "postgresql": ("psycopg", "sql"),
    "sqlalchemy": ("sqlalchemy", "sql"),
    "grpc": ("grpc_reflection", "grpc"),
    "kafka": ("aiokafka", "kafka"),
}
_PACE = {*PacedTraffic.model_fields, "connections", "feed"}
"""Fields that are not the driver's business."""


def load_of(spec: OurTraffic, most: int = 0) -> Load:
    """What the generators are told; `most` bounds the sending in ns beside the document's bound.

    Raises Unsupported if a library is missing, ApplyFailed if a secret or a file cannot be read.
    """
    bounds = [int(spec.warmup) + int(spec.duration)] if spec.duration is not None else []
    driver = _driver(spec)
    _library(driver, spec)
    return Load(
        driver=driver,
        options=_options(spec),
        duration=min([*bounds, most or _LONGEST]),
        rate=spec.rate or 0.0,
        concurrency=spec.concurrency or 0,
        stages=tuple(
            (int(stage.duration), float((stage.rate if spec.rate else stage.concurrency) or 0))
            for stage in spec.stages
        ),
        think=int(spec.think),
        think_most=int(spec.think_most),
        timeout=int(spec.timeout),
        feed=_feed(spec),
        connections=0 if isinstance(spec, GrpcTraffic) else spec.connections or 0,
    )


def _driver(spec: OurTraffic) -> str:
    if isinstance(spec, SqlTraffic):
        dialect, _, driver = spec.url.partition(":")[0].partition("+")
        ours = dialect in ("postgresql", "postgres") and driver in ("", "psycopg")
        return "postgresql" if ours else "sqlalchemy"
    return f"{PLUGIN}{spec.plugin}" if isinstance(spec, PluginTraffic) else spec.type


def _library(driver: str, spec: OurTraffic) -> None:
    if isinstance(spec, PluginTraffic):
        from faultline.injection import extensions

        try:
            extensions.load("faultline.traffic", spec.plugin)
        except UnknownName as error:
            raise Unsupported(f"traffic {spec.name}: {error.message}", hint=error.hint) from error
    module, extra = _NEEDS.get(driver, ("", ""))
    if isinstance(spec, HttpTraffic) and spec.http2 and find_spec("h2") is None:
        module, extra = "h2", "http2"
    if module and find_spec(module) is None:
        raise Unsupported(
            f"traffic {spec.name}: {spec.type} needs the library {module}, which is not installed",
            hint=f"pip install 'faultline[{extra}]'",
        )


def _options(spec: OurTraffic) -> dict[str, Any]:
    fields = {*type(spec).model_fields} - _PACE
    try:
        found = {name: _plain(getattr(spec, name)) for name in sorted(fields)}
    except ObserveFailed as error:
        raise ApplyFailed(f"traffic {spec.name}: {error.message}") from error
    if isinstance(spec, GrpcTraffic):
        found["connections"] = spec.connections
    if isinstance(spec, HttpTraffic):
        found["headers"] |= _authorization(found)
    return found


def _authorization(options: dict[str, Any]) -> dict[str, str]:
    basic, bearer = options.pop("basic"), options.pop("bearer")
    if basic:
        both = f"{basic['user']}:{basic['password']}".encode()
        return {"Authorization": f"Basic {base64.b64encode(both).decode()}"}
    return {"Authorization": f"Bearer {bearer}"} if bearer else {}


def _plain(value: object) -> Any:
    """As JSON data, snake case, durations in nanoseconds, secrets read."""
    if isinstance(value, SecretRef):
        return value.resolve()
    if isinstance(value, Model):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {name: _plain(each) for name, each in entries.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in cast("list[Any]", value)]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _feed(spec: FedTraffic) -> dict[str, Any] | None:
    if spec.feed is None:
        return None
    if spec.feed.file:
        _check(spec, spec.feed.file)
    return _plain(spec.feed)


def _check(spec: FedTraffic, file: str) -> None:
    """Whether the file has a value for every name that is not known otherwise."""
    try:
        columns = feed.heading(file)
    except (OSError, ValueError) as error:
        raise ApplyFailed(
            f"traffic {spec.name}: the feed {file} cannot be read: {error}"
        ) from error
    wanted = places(*(text for _, text in spec.texts()))
    taken = set(BUILT_IN)
    if isinstance(spec, HttpTraffic):
        for scenario in spec.scenarios:
            for step in scenario.steps:
                wanted |= places(step.path, step.url, step.headers, step.body)
                taken |= {each.name for each in step.extract}
    if missing := sorted(wanted - taken - set(columns)):
        raise ApplyFailed(
            f"traffic {spec.name}: the feed {file} has no column {', '.join(missing)}",
            hint=f"it has {', '.join(columns)}",
        )
