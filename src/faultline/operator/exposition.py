"""`/metrics`: what the operator knows, for Prometheus.

Made when it is asked for, from the copies that the operator has anyway. What there is of one Fault
is some twenty series, whether it has one target or ten thousand; of Faults that are over only the
latest are shown. What is known of Faults and Hosts is told by the leader alone, so that sums over
all operators are right.

https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from faultline import __version__
from faultline.errors import Unsupported, UsageError
from faultline.operator.hosts import OBJECTS
from faultline.operator.measures import values
from faultline.operator.model import FaultView
from faultline.operator.reconcile import OVER
from faultline.operator.tally import HostView

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import GaugeMetricFamily

    from faultline.operator.app import Operator
    from faultline.operator.meters import Spread

SHOWN: Final = 200
"""Faults of which there are series of their own: those that are not over, then the latest."""
KEPT: Final = 3600.0
"""Seconds for which a Fault that is over is shown; one that needs a person as long as it exists."""
PHASES: Final = ("pending", "injecting", "active", "recovering", "ended", "refused")
STATES: Final = {
    "targets": "chosen", "injected": "injected", "effective": "effective",
    "ineffective": "ineffective", "unmeasured": "unmeasured", "refused": "refused",
    "recovered": "recovered", "gone": "gone", "person": "needs_person",
}  # fmt: skip
OF_FAULT: Final = ("namespace", "name", "fault")


def serve(operator: Operator, address: str) -> Callable[[], None]:
    """Answer at HOST:PORT in a thread of its own; what ends that is returned. Raises UsageError
    where nobody can listen there, Unsupported where the library is missing.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise Unsupported(
            "prometheus-client is not installed", hint="pip install 'faultline[kubernetes]'"
        ) from error
    host, port = _address(address)
    registry = CollectorRegistry()
    registry.register(Exposition(operator))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"nobody can listen at {address}: {error.strerror or error}") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return end


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"expected HOST:PORT, not {text!r}", hint="--metrics 127.0.0.1:9095")
    return host.strip("[]"), int(port)


class Exposition:
    """Everything as metrics (a collector of prometheus-client)."""

    def __init__(self, operator: Operator, clock: Callable[[], float] = time.time) -> None:
        self._operator, self._clock = operator, clock

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import InfoMetricFamily

        yield InfoMetricFamily("faultline_build", "The version that runs.",
                               value={"version": __version__})  # fmt: skip
        yield from self._own()
        yield from self._counted()
        if self._operator.leader.leads and self._operator.caches.synced:
            views = self._operator.caches.views()
            faults = [each.view for each in self._operator.caches.faults.all().values()]
            yield from self._hosts(views)
            yield from self._faults(faults, views)

    # ------------------------------------------------------------------ of the operator itself

    def _own(self) -> Iterator[Metric]:
        here, meters = self._operator, self._operator.meters
        yield gauge("faultline_leader", "1 where this operator acts, 0 where it waits.",
                    float(here.leader.leads))  # fmt: skip
        yield gauge("faultline_synced", "1 when everything has been listed once.",
                    float(here.caches.synced))  # fmt: skip
        depth = gauges("faultline_queue_depth", "What waits to be looked at or written.", "queue")
        for name, size in here.waiting().items():
            depth.add_metric([name], size)
        yield depth
        with meters.lock:
            spreads = [
                spread("faultline_reconcile_duration_seconds",
                       "How long one look at one Fault takes.", (), {(): meters.reconciles}),
                spread("faultline_api_request_duration_seconds",
                       "How long the API server takes to answer; watches are not in it.",
                       ("verb",), {(verb,): each for verb, each in meters.answers.items()}),
            ]  # fmt: skip
        yield from spreads

    def _counted(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        meters = self._operator.meters
        requests = CounterMetricFamily(
            "faultline_api_requests", "Requests to the API server that were answered or given up.",
            labels=("verb", "code"),
        )  # fmt: skip
        ends = CounterMetricFamily(
            "faultline_targets_ended", "Targets of which their Host told how it ended.",
            labels=("end",),
        )  # fmt: skip
        with meters.lock:
            for (verb, code), count in meters.requests.items():
                requests.add_metric([verb, code], count)
            for end, count in meters.ends.items():
                ends.add_metric([end], count)
            single = (
                ("faultline_api_wait_seconds", "Time spent waiting for a turn to ask.",
                 meters.waited),
                ("faultline_reconcile_failures", "Faults that could not be written.",
                 float(meters.failures)),
                ("faultline_undo_failures", "Targets that need a person.",
                 float(meters.ends["needs a person"])),
                ("faultline_targets_refused", "Targets in which a fault was never injected.",
                 float(meters.refused)),
            )  # fmt: skip
            spreads = [
                spread("faultline_target_time_to_effect_seconds",
                       "From the moment a target was asked for to its first measured effect.",
                       ("fault",), {(name,): each for name, each in meters.effects.items()}),
                spread("faultline_target_time_to_absence_seconds",
                       "From the deadline, or the order to undo it, until nothing was found.",
                       ("fault",), {(name,): each for name, each in meters.absences.items()}),
            ]  # fmt: skip
        yield from (requests, ends, *spreads)
        for name, text, value in single:
            yield CounterMetricFamily(name, text, value=value)

    # ------------------------------------------------------------------ of hosts

    def _hosts(self, views: Mapping[str, HostView]) -> Iterator[Metric]:
        states = Counter({"ready": 0, "lost": 0, "gone": 0})
        for view in (each for name, each in views.items() if name != OBJECTS):
            states["gone" if view.gone else "ready" if view.alive else "lost"] += 1
        agents = gauges("faultline_agents", "Hosts by what is heard of their agents.", "state")
        for name, count in states.items():
            agents.add_metric([name], count)
        yield agents
        lost = sum(not v.alive and any(not p.closed for p in v.parts.values())
                   for v in views.values())  # fmt: skip
        yield gauge("faultline_hosts_lost_with_faults",
                    "Hosts with faults of which nothing is heard.", lost)  # fmt: skip
        yield gauge("faultline_open_targets", "Targets that suffer something now, as Hosts say.",
                    sum(view.open for view in views.values()))  # fmt: skip
        yield gauge("faultline_unknown_marks",
                    "Marks of ours on machines whose journals know nothing of them.",
                    sum(view.marks for view in views.values()))  # fmt: skip
        halts = self._operator.caches.halts.all().values()
        yield gauge(
            "faultline_halts", "Halts: while there is one, nothing is injected.", len(halts)
        )
        yield gauge("faultline_halt_targets_left", "What a halt has not seen undone yet.",
                    max((each.status.left or 0 for each in halts), default=0))  # fmt: skip

    # ------------------------------------------------------------------ of faults

    def _faults(self, faults: list[FaultView], views: Mapping[str, HostView]) -> Iterator[Metric]:
        phases = gauges("faultline_faults", "How many Faults are in which phase.", "phase")
        there = Counter(each.status.phase for each in faults)
        for name in PHASES:
            phases.add_metric([name], there[name])
        yield phases
        shown = self._shown(faults)
        yield gauge("faultline_faults_not_shown", "Faults without series of their own.",
                    len(faults) - len(shown))  # fmt: skip
        yield from _of_each(shown)
        yield from _measured(shown, views)

    def _shown(self, faults: list[FaultView]) -> list[FaultView]:
        now = self._clock()
        recent = [
            each
            for each in faults
            if each.status.phase not in OVER
            or each.status.counts.person
            or now - (each.status.ended or 0.0) < KEPT
        ]

        def order(each: FaultView) -> tuple[bool, float, str]:
            over = each.status.phase in OVER and not each.status.counts.person
            return over, -(each.status.ended or each.status.started or now), each.uid

        return sorted(recent, key=order)[:SHOWN]


def _labels(view: FaultView) -> list[str]:
    fault = view.spec.fault if view.spec is not None else ""
    return [view.namespace, view.name, fault]


def _of_each(shown: list[FaultView]) -> Iterator[Metric]:
    phase = gauges("faultline_fault_phase", "1 for the phase that a Fault is in.",
                   *OF_FAULT, "phase")  # fmt: skip
    targets = gauges("faultline_fault_targets", "Targets of a Fault by what is known of them.",
                     *OF_FAULT, "state")  # fmt: skip
    hosts = gauges("faultline_fault_hosts", "Hosts of a Fault: all, and those not heard of.",
                   *OF_FAULT, "state")  # fmt: skip
    started = gauges("faultline_fault_started_timestamp_seconds",
                     "When the first Host was asked.", *OF_FAULT)  # fmt: skip
    deadline = gauges("faultline_fault_deadline_timestamp_seconds",
                      "When it is to end; there as long as it is not over.", *OF_FAULT)  # fmt: skip
    effect = gauges("faultline_fault_time_to_effect_seconds",
                    "From its start to its effect at the last target.", *OF_FAULT)  # fmt: skip
    absence = gauges("faultline_fault_time_to_absence_seconds",
                     "From its deadline, or the order, to proven absence.", *OF_FAULT)  # fmt: skip
    for view in shown:
        status, labels = view.status, _labels(view)
        phase.add_metric([*labels, status.phase], 1)
        for name, state in STATES.items():
            targets.add_metric([*labels, state], getattr(status.counts, name))
        hosts.add_metric([*labels, "asked"], status.counts.hosts)
        hosts.add_metric([*labels, "lost"], status.counts.lost)
        if status.started is not None:
            started.add_metric(labels, status.started)
            if status.effective_at is not None:
                effect.add_metric(labels, max(0.0, status.effective_at - status.started))
        if status.until is not None and status.phase not in OVER:
            deadline.add_metric(labels, status.until)
        ends = [each for each in (status.recovery_started, status.until) if each is not None]
        if ends and status.ended is not None:
            absence.add_metric(labels, max(0.0, status.ended - min(ends)))
    yield from (phase, targets, hosts, started, deadline, effect, absence)


def _measured(shown: list[FaultView], views: Mapping[str, HostView]) -> Iterator[Metric]:
    """The values, one metric for each unit, so that no sum mixes seconds with bytes."""
    made: dict[str, Metric] = {}
    for view in shown:
        if view.spec is None:
            continue
        parts = [host.parts[view.uid] for host in views.values() if view.uid in host.parts]
        found = values(view.spec.fault, view.spec.params, parts)
        unit, labels = found.unit.name, _labels(view)
        if found.asked is not None:
            one = made.setdefault(f"asked_{unit}", gauges(
                f"faultline_fault_asked_{unit}", f"What was asked for, in {unit}.", *OF_FAULT
            ))  # fmt: skip
            one.add_sample(one.name, dict(zip(OF_FAULT, labels, strict=True)), found.asked)
        if found.measured is not None:
            one = made.setdefault(f"measured_{unit}", gauges(
                f"faultline_fault_measured_{unit}",
                f"What was measured at the targets, in {unit}: the least, the median, the most.",
                *OF_FAULT, "stat",
            ))  # fmt: skip
            for stat, value in zip(("min", "median", "max"), found.measured, strict=True):
                told: dict[str, str] = dict(zip((*OF_FAULT, "stat"), (*labels, stat), strict=True))
                one.add_sample(one.name, told, value)
    yield from made.values()


# ---------------------------------------------------------------------- families


def gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, text, labels=labels)


def spread(
    name: str, text: str, labels: tuple[str, ...], found: Mapping[tuple[str, ...], Spread]
) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    made = HistogramMetricFamily(name, text, labels=labels)
    for values_, each in found.items():
        made.add_metric(list(values_), each.buckets(), each.sum)
    return made
