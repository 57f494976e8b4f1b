"""A run as spans of OpenTelemetry: the run, its phases or its nodes, and its faults.

The identifiers are made from the run's own, so sending a run twice gives the same spans twice and
not two traces. Times are those of the document.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from faultline import __version__
from faultline.api.run import FaultStatus, Run
from faultline.errors import ObserveFailed, Unsupported

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span, Tracer

_SCOPE = "faultline"
_PATH = "/v1/traces"
_EVENTS = 2000
_TIMEOUT = 10.0


def spans(run: Run) -> list[ReadableSpan]:
    """All spans of a run, the outer ones first; raises Unsupported without the packages."""
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError as error:
        raise _missing(error) from error
    kept = InMemorySpanExporter()
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource.create(_resource(run)),
        id_generator=_generator(run.metadata.uid or run.metadata.name),
        span_limits=SpanLimits(max_events=_EVENTS),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(SimpleSpanProcessor(kept))
    _run(provider.get_tracer(_SCOPE, __version__), run)
    found = list(kept.get_finished_spans())
    provider.shutdown()
    return sorted(found, key=lambda span: (span.start_time or 0, -(span.end_time or 0)))


def otlp_json(run: Run) -> str:
    """The same in the JSON form of OTLP (opentelemetry-proto, ExportTraceServiceRequest)."""
    try:
        from google.protobuf.json_format import MessageToJson
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    except ImportError as error:
        raise _missing(error) from error
    return MessageToJson(encode_spans(spans(run))) + "\n"


def send(run: Run, endpoint: str, headers: Mapping[str, str] | None = None) -> int:
    """Send them as OTLP over HTTP; how many there were. Raises ObserveFailed.

    An address without a path gets the usual one. Certificates, compression and further headers are
    taken from the usual variables (OTEL_EXPORTER_OTLP_...).
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError as error:
        raise _missing(error) from error
    parts = urlsplit(endpoint)
    if parts.path in ("", "/"):
        endpoint = f"{endpoint.rstrip('/')}{_PATH}"
    found = spans(run)
    exporter = OTLPSpanExporter(endpoint=endpoint, headers=dict(headers or {}), timeout=_TIMEOUT)
    said = _Said()
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http")
    logger.addHandler(said)
    before, logger.propagate = logger.propagate, False
    try:
        result = exporter.export(found)
    finally:
        logger.propagate = before
        logger.removeHandler(said)
        exporter.shutdown()
    if result is not SpanExportResult.SUCCESS:
        why = said.last or "the collector did not take them"
        raise ObserveFailed(f"the spans could not be sent to {endpoint}: {why}")
    return len(found)


def _missing(error: ImportError) -> Unsupported:
    return Unsupported(
        f"spans need {error.name}", hint="install it: pip install 'faultline[engine]'"
    )


class _Said(logging.Handler):
    """What the exporter says of its failure: it tells its log and nobody else."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _generator(seed: str) -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Generator(IdGenerator):
        """Numbers out of the run's own identity, in the order in which spans are made."""

        def __init__(self) -> None:
            self._made = 0

        def generate_span_id(self) -> int:
            self._made += 1
            return _number(f"{seed}/{self._made}", 8)

        def generate_trace_id(self) -> int:
            return _number(seed, 16)

    return Generator()


def _number(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big") or 1


# ---------------------------------------------------------------------- what is told


def _resource(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {
        "service.name": "faultline",
        "service.version": __version__,
        "faultline.experiment": run.spec.experiment,
        "faultline.run": run.metadata.name,
    }
    env = run.status.environment
    if env is not None:
        found |= {
            "host.name": env.hostname,
            "os.type": "linux",
            "os.version": env.kernel,
            "os.description": env.distribution,
        }
    return {key: value for key, value in found.items() if value}


def _ns(stamp: float) -> int:
    return round(stamp * 1e9)


def _run(tracer: Tracer, run: Run) -> None:
    from opentelemetry.trace import Status, StatusCode

    status = run.status
    if status.started is None:
        return
    stamps = [point.at for point in status.timeline]
    end = status.ended if status.ended is not None else max(stamps, default=status.started)
    attributes = {
        "faultline.verdict": str(status.verdict or "not finished"),
        "faultline.reason": status.reason,
        "faultline.title": run.spec.resolved.title,
        "faultline.aborted": status.aborted,
    }
    root = tracer.start_span(
        f"experiment {run.spec.experiment}",
        start_time=_ns(status.started),
        attributes=_known(attributes),
    )
    for point in status.timeline[:_EVENTS]:
        told = _known({"node": point.node, "text": point.text})
        root.add_event(point.event, told, timestamp=_ns(point.at))
    held = str(status.verdict) == "held"
    why = f"{status.verdict or 'not finished'}: {status.reason}"
    root.set_status(Status(StatusCode.OK) if held else Status(StatusCode.ERROR, why))
    _phases(tracer, root, run, end)
    owners = _nodes(tracer, root, run, end)
    for fault in status.faults:
        if fault.started is not None:
            _fault(tracer, owners.get(fault.node, root), fault, end)
    root.end(_ns(max(end, status.started)))


def _inside(parent: Span) -> Any:
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(parent)


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value not in (None, "")}


def _phases(tracer: Tracer, root: Span, run: Run, end: float) -> None:
    if run.status.nodes:
        return  # nodes say more
    for phase in run.status.phases:
        span = tracer.start_span(
            f"phase {phase.phase}", context=_inside(root), start_time=_ns(phase.started)
        )
        span.end(_ns(phase.ended if phase.ended is not None else end))


def _nodes(tracer: Tracer, root: Span, run: Run, end: float) -> dict[str, Span]:
    """A span for every node that began, inside of that which holds it; all of them ended."""
    from opentelemetry.trace import Status, StatusCode

    found: dict[str, Span] = {}
    for node in run.status.nodes:  # outer ones first
        if node.started is None:
            continue
        attributes = {
            "faultline.node.type": node.type,
            "faultline.node.outcome": node.outcome or "",
            "faultline.verdict": node.verdict or "",
            "faultline.reason": node.text,
        }
        span = tracer.start_span(
            f"{node.type} {node.name}",
            context=_inside(found.get(node.parent, root)),
            start_time=_ns(node.started),
            attributes=_known(attributes),
        )
        for number, attempt in enumerate(node.attempts, 1):
            told = _known({"attempt": number, "verdict": attempt.verdict, "text": attempt.text})
            span.add_event("attempt", told, timestamp=_ns(attempt.started))
        if node.outcome in ("failed", "aborted") or node.verdict not in (None, "held"):
            what = node.verdict or node.outcome
            span.set_status(Status(StatusCode.ERROR, f"{what}: {node.text}"))
        found[node.name] = span
    for node in reversed(run.status.nodes):
        if node.name in found:
            found[node.name].end(_ns(node.ended if node.ended is not None else end))
    return found


def _fault(tracer: Tracer, parent: Span, fault: FaultStatus, end: float) -> None:
    from opentelemetry.trace import Status, StatusCode

    reading = fault.reading or {}
    attributes: dict[str, Any] = {
        "faultline.fault": fault.fault,
        "faultline.fault.uid": fault.uid,
        "faultline.fault.effect": fault.effect or "unmeasured",
        "faultline.fault.end": fault.end or "",
        "faultline.fault.residue": fault.residue or None,
        **{f"faultline.fault.{key}": str(reading.get(key) or "") for key in ("asked", "measured")},
        **{f"faultline.param.{key}": _plain(value) for key, value in fault.params.items()},
    }
    started = fault.started or 0.0
    span = tracer.start_span(
        f"fault {fault.name}",
        context=_inside(parent),
        start_time=_ns(started),
        attributes=_known(attributes),
    )
    edges = (
        ("injected", fault.injected_at),
        ("effective", fault.effective_at),
        ("impact", fault.impact_at),
        ("recovery started", fault.recovery_started),
        ("recovered", fault.recovered_at),
    )
    for name, at in edges:
        if at is not None:
            span.add_event(name, timestamp=_ns(at))
    if fault.effect != "effective" or fault.error or fault.residue:
        why = fault.error or str(reading.get("reason") or "") or fault.effect or "unmeasured"
        span.set_status(Status(StatusCode.ERROR, why))
    span.end(_ns(fault.recovered_at if fault.recovered_at is not None else max(end, started)))


def _plain(value: Any) -> str | bool | int | float:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Sequence):
        return ", ".join(str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
