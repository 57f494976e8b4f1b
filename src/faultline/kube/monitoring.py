"""What Prometheus and Grafana need to know of us, as plain objects.

The kinds of `monitoring.coreos.com` are those of the Prometheus operator; the rules are also those
of a Prometheus without it (`rules`). Tests ask a real Prometheus for every name used here.

https://prometheus-operator.dev/docs/api-reference/api/
"""

from __future__ import annotations

import json
from typing import Any, Final

Object = dict[str, Any]

PORT: Final = 9095
NAME: Final = "faultline-operator"
LABELS: Final = {"app.kubernetes.io/name": "faultline", "app.kubernetes.io/component": "operator"}
PART_OF: Final = {"app.kubernetes.io/part-of": "faultline"}
FAULT: Final = "{{ $labels.namespace }}/{{ $labels.name }} ({{ $labels.fault }})"
DOCS: Final = "docs/monitoring-kubernetes.md"


def objects(namespace: str = "faultline") -> list[Object]:
    """All of it, for one namespace."""
    return [
        service(namespace), service_monitor(namespace), prometheus_rule(namespace),
        dashboard_config_map(namespace),
    ]  # fmt: skip


def service(namespace: str) -> Object:
    """Leads to `/metrics` of every operator, of the one that leads and of those that wait."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(f"{NAME}-metrics", namespace),
        "spec": {
            "clusterIP": "None",
            "selector": dict(LABELS),
            "ports": [
                {"name": "metrics", "port": PORT, "targetPort": PORT, "protocol": "TCP"},
            ],
        },
    }


def service_monitor(namespace: str, interval: str = "30s") -> Object:
    """Has Prometheus ask it. The labels of the operator win over what Prometheus would call so:
    `namespace` is that of the Fault.
    """
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _metadata(NAME, namespace),
        "spec": {
            "selector": {"matchLabels": {**LABELS, **PART_OF}},
            "namespaceSelector": {"matchNames": [namespace]},
            "endpoints": [{"port": "metrics", "interval": interval, "honorLabels": True}],
        },
    }


def prometheus_rule(namespace: str) -> Object:
    """The alerts."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _metadata(NAME, namespace),
        "spec": rules(),
    }


def dashboard_config_map(namespace: str) -> Object:
    """The dashboard where the sidecar of Grafana's chart looks for it."""
    meta = _metadata("faultline-dashboard", namespace)
    meta["labels"] = {**meta["labels"], "grafana_dashboard": "1"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta,
        "data": {"faultline.json": json.dumps(dashboard(), indent=1)},
    }


def _metadata(name: str, namespace: str) -> Object:
    return {"name": name, "namespace": namespace, "labels": {**LABELS, **PART_OF}}


# ---------------------------------------------------------------------- alerts


def rules() -> Object:
    """The file of rules as Prometheus reads it."""
    return {"groups": [{"name": "faultline", "rules": [*_faults(), *_cluster()]}]}


def _faults() -> list[Object]:
    return [
        _alert(
            "FaultlineFaultBeyondDeadline",
            "time() - faultline_fault_deadline_timestamp_seconds > 120",
            "1m", "critical", f"{FAULT} is still there",
            "Its deadline was over {{ $value | humanizeDuration }} ago. What its Hosts say: "
            "kubectl get hosts -o yaml. By hand, on the node: faultline recover --all",
        ),
        _alert(
            "FaultlineUndoFailed",
            'faultline_fault_targets{state="needs_person"} > 0',
            "0s", "critical", f"{FAULT} could not be undone at {{{{ $value }}}} targets",
            "The status of the Fault names the hosts and the command to run there.",
        ),
        _alert(
            "FaultlineUndoFailures",
            "increase(faultline_undo_failures_total[15m]) > 0",
            "0s", "critical", "faults could not be undone",
            "Also where the Fault itself is deleted: kubectl get hosts -o yaml names the targets, "
            "and the commands.",
        ),
        _alert(
            "FaultlineFaultWithoutEffect",
            'faultline_fault_targets{state="ineffective"} > 0 '
            'and on (namespace, name) faultline_fault_phase{phase="active"} == 1',
            "1m", "info", f"{FAULT} has no effect at {{{{ $value }}}} targets",
            "What it shows of the system proves nothing.",
        ),
    ]  # fmt: skip


def _cluster() -> list[Object]:
    return [
        _alert(
            "FaultlineAgentLostWithFaults",
            "faultline_hosts_lost_with_faults > 0",
            "30s", "critical", "{{ $value }} hosts with faults do not answer",
            "They undo everything by themselves when the lease of their agent is over, but what "
            "survives that, which ends by its deadline; nobody can see it until they answer.",
        ),
        _alert(
            "FaultlineOperatorWithoutLeader",
            "(max(faultline_leader) or vector(0)) < 1",
            "2m", "critical", "no operator leads",
            "Nothing is begun, and nothing that is deleted is seen to be gone; what is there ends "
            "at its deadline.",
        ),
        _alert(
            "FaultlineAgentsNotReady",
            'faultline_agents{state="lost"} > 0',
            "10m", "warning", "{{ $value }} agents do not answer",
            "Nothing can be injected there.",
        ),
        _alert(
            "FaultlineUnknownMarks",
            "faultline_unknown_marks > 0",
            "10m", "warning", "{{ $value }} marks of ours that no journal knows",
            "On the node: faultline recover --scan",
        ),
        _alert(
            "FaultlineHalted",
            "faultline_halts > 0",
            "1h", "info", "everything is halted",
            "kubectl get halts says why; nothing is injected as long as one exists.",
        ),
        _alert(
            "FaultlineCannotWrite",
            "rate(faultline_reconcile_failures_total[5m]) > 0.1",
            "5m", "warning", "the API server refuses what the operator writes",
            "Its log says what; docs/kubernetes.md has the rights that it needs.",
        ),
    ]  # fmt: skip


def _alert(name: str, query: str, after: str, severity: str, summary: str, text: str) -> Object:
    return {
        "alert": name,
        "expr": query,
        "for": after,
        "labels": {"severity": severity},
        "annotations": {
            "summary": summary,
            "description": text,
            "runbook": f"{DOCS}#{name.lower()}",
        },
    }


# ---------------------------------------------------------------------- the dashboard

_ONE: Final = '{namespace=~"$namespace", name=~"$name"}'
_OF: Final = "{{namespace}}/{{name}}"
_UNITS: Final = {
    "seconds": ("Latency", "s"), "ratio": ("Loss, load and other shares", "percentunit"),
    "bytes": ("Memory and disk", "bytes"), "bytes_per_second": ("Bandwidth", "Bps"),
    "cores": ("Processors", "none"), "number": ("Everything that is counted", "none"),
}  # fmt: skip


def dashboard() -> Object:
    """A dashboard of Grafana (schema of 9 and newer), to be imported as it is."""
    panels = [*_overview(), *_values(), *_times(), *_operator()]
    for number, each in enumerate(panels, 1):
        each["id"] = number
    variable = {
        "type": "query", "datasource": _SOURCE, "multi": True, "includeAll": True,
        "allValue": ".*", "refresh": 2, "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
    space = {**variable, "name": "namespace", "label": "namespace",
             "query": "label_values(faultline_fault_phase, namespace)"}  # fmt: skip
    of = 'label_values(faultline_fault_phase{namespace=~"$namespace"}, name)'
    name = {**variable, "name": "name", "label": "Fault", "query": of}
    source = {"type": "datasource", "query": "prometheus", "name": "source", "label": "Prometheus"}
    return {
        "uid": "faultline", "title": "Faultline", "tags": ["faultline"], "timezone": "browser",
        "schemaVersion": 38, "version": 1, "refresh": "10s", "editable": True,
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source, space, name]},
        "panels": panels,
    }  # fmt: skip


_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}


def _panel(kind: str, title: str, place: tuple[int, int, int, int], queries: dict[str, str],
           unit: str = "none") -> Object:  # fmt: skip
    x, y, wide, high = place
    return {
        "type": kind, "title": title, "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": wide, "h": high},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + n), "datasource": _SOURCE, "expr": query, "legendFormat": legend,
             "instant": kind in ("stat", "table"), "range": kind not in ("stat", "table")}
            for n, (legend, query) in enumerate(queries.items())
        ],
    }  # fmt: skip


def _overview() -> list[Object]:
    stats = {
        "Active faults": 'sum(faultline_faults{phase=~"injecting|active|recovering"})',
        "Targets that suffer": "sum(faultline_open_targets)",
        "Agents ready": 'sum(faultline_agents{state="ready"})',
        "Agents lost": 'sum(faultline_agents{state="lost"})',
        "Failed undos": "sum(faultline_undo_failures_total)",
        "Halts": "sum(faultline_halts)",
        "Leaders": "sum(faultline_leader)",
        "Beyond the deadline":
            "count(time() - faultline_fault_deadline_timestamp_seconds > 0) or vector(0)",
    }  # fmt: skip
    made = [
        _panel("stat", title, (3 * n, 0, 3, 4), {"": query})
        for n, (title, query) in enumerate(stats.items())
    ]
    phases = _panel("timeseries", "Phase of each Fault", (0, 4, 12, 8),
                    {f"{_OF} {{{{phase}}}}": f"faultline_fault_phase{_ONE}"})  # fmt: skip
    targets = _panel("timeseries", "Targets by what is known of them", (12, 4, 12, 8),
                     {"{{state}}": f"sum by (state) (faultline_fault_targets{_ONE})"})  # fmt: skip
    return [*made, phases, targets]


def _values() -> list[Object]:
    made: list[Object] = []
    for n, (unit, (title, shown)) in enumerate(_UNITS.items()):
        place = (12 * (n % 2), 12 + 8 * (n // 2), 12, 8)
        queries = {
            f"{_OF} asked": f"faultline_fault_asked_{unit}{_ONE}",
            f"{_OF} measured {{{{stat}}}}": f"faultline_fault_measured_{unit}{_ONE}",
        }
        made.append(_panel("timeseries", f"{title}: asked and measured", place, queries, shown))
    return made


def _times() -> list[Object]:
    made: list[Object] = []
    for n, (what, title) in enumerate(
        (
            ("effect", "From asking to measured effect"),
            ("absence", "From the end to proven absence"),
        )
    ):
        name = f"faultline_target_time_to_{what}_seconds"
        queries = {
            f"{{{{fault}}}} p{round(100 * share)}":
                f"histogram_quantile({share}, sum by (fault, le) (rate({name}_bucket[5m])))"
            for share in (0.5, 0.95)
        }  # fmt: skip
        queries[f"{_OF}, the last target"] = f"faultline_fault_time_to_{what}_seconds{_ONE}"
        made.append(_panel("timeseries", title, (12 * n, 36, 12, 8), queries, "s"))
    return made


def _operator() -> list[Object]:
    quantile = "histogram_quantile(0.95, sum by ({by}le) (rate({name}_bucket[5m])))"
    return [
        _panel("timeseries", "Requests to the API server", (0, 44, 8, 8), {
            "{{verb}} {{code}}": "sum by (verb, code) (rate(faultline_api_requests_total[5m]))",
            "waiting for a turn": "sum(rate(faultline_api_wait_seconds_total[5m]))",
        }, "reqps"),
        _panel("timeseries", "How long they take (p95)", (8, 44, 8, 8), {
            "{{verb}}": quantile.format(by="verb, ", name="faultline_api_request_duration_seconds"),
            "a look": quantile.format(by="", name="faultline_reconcile_duration_seconds"),
        }, "s"),
        _panel("timeseries", "What waits", (16, 44, 8, 8), {
            "{{queue}}": "sum by (queue) (faultline_queue_depth)",
            "could not be written": "sum(rate(faultline_reconcile_failures_total[5m]))",
        }),
        _panel("timeseries", "Ends of targets", (0, 52, 12, 8), {
            "{{end}}": "sum by (end) (increase(faultline_targets_ended_total[5m]))",
            "refused": "sum(increase(faultline_targets_refused_total[5m]))",
        }),
        _panel("timeseries", "Hosts", (12, 52, 12, 8), {
            "agents {{state}}": "sum by (state) (faultline_agents)",
            "lost with faults": "sum(faultline_hosts_lost_with_faults)",
            "unknown marks": "sum(faultline_unknown_marks)",
            "left of a halt": "sum(faultline_halt_targets_left)",
        }),
    ]  # fmt: skip
