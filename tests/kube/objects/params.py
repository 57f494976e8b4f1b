"""With which parameters, and on which kinds, each fault of objects is tried."""

from __future__ import annotations

from typing import Any

PATCH = {"data": {"mode": "wild", "level": None}, "metadata": {"annotations": {"note": "x"}}}
PARAMS: dict[str, list[dict[str, Any]]] = {
    "config.value": [{"key": "mode", "value": "w"}, {"key": "mode"}, {"key": "new", "value": "x"}],
    "hpa.bounds": [{"high": 3}, {"low": 5, "high": 5}],
    "ingress.backend": [{}, {"host": "a.example", "service": "other"}],
    "ingress.limit": [
        {"requests": 1, "connections": 2, "controller": "nginx"},
        {"requests": 1, "controller": "haproxytech"},
        {"requests": 5, "controller": "traefik"},
    ],
    "ingress.rule": [
        {"host": "a.example", "drop": True},
        {"to_path": "/x", "to_host": "c.example"},
    ],
    "job.deadline": [{"seconds": 5}],
    "job.schedule": [{}],
    "lease.steal": [{"seconds": 20}],
    "namespace.deny": [
        {"direction": "in"},
        {"policy": "cilium", "labels": {"app": "shop"}},
        {"policy": "calico", "direction": "out"},
        {"networks": ["10.0.0.0/8", "fd00::/8"]},
    ],
    "namespace.limit": [{"memory": "64Mi", "cpu": "100m"}],
    "namespace.quota": [{"resource": "configmaps", "most": "0"}],
    "node.condition": [{}, {"status": "Unknown"}],
    "node.taint": [{"effect": "NoSchedule", "value": "x"}],
    "node.untaint": [{"key": "dedicated"}],
    "object.annotation": [{"add": {"a/b": "c", "note": "x"}}],
    "object.apply": [{"object": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}}}],
    "object.finalizer": [{"add": ["a.example/x", "b.example/y"]}, {"remove": ["held.example/z"]}],
    "object.label": [
        {"add": {"app": "w", "new": "y"}, "remove": ["tier", "none"]},
        {"key": "app", "value": "w"},
        {"key": "tier"},
        {"key": "new", "value": "x"},
    ],
    "object.patch": [{"patch": PATCH}],
    "route.timeout": [{"timeout": "10ms"}],
    "route.weights": [{"weights": {"shop": 0}}, {"weights": {"next": 7}, "rule": 1}],
    "service.endpoints": [{}, {"addresses": ["192.0.2.1", "192.0.2.2"]}],
    "service.port": [{}, {"port": 80, "target": 9}],
    "service.selector": [{"labels": {"app": "other", "tier": "x"}}],
    "workload.image": [{}, {"container": "web", "image": "shop:2"}],
    "workload.random": [{"low": 1, "high": 9}],
    "workload.scale": [{"replicas": 1}, {"by": 2}, {"percent": "50%"}],
}
TARGETS = {
    "job.suspend": ("CronJob",),  # of a Job from 1.21 on
    "object.annotation": ("Deployment",),
    "object.finalizer": ("Service",),
    "object.label": ("Deployment",),
    "object.hold": ("Service",),
    "object.patch": ("ConfigMap",),
    "object.delete": ("ConfigMap",),
}
