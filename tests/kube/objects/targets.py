"""One target of each kind that faults of objects take, as whoever owns it would have made it."""

from __future__ import annotations

import copy
from typing import Any

from tests.kube.objects import crds

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object, metadata

CONTAINERS = [{"name": "web", "image": "shop:1"}, {"name": "side", "image": "side:1"}]
TEMPLATE = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": CONTAINERS}}
SELECTOR = {"matchLabels": {"app": "shop"}}
HTTP = {"paths": [{"path": "/", "pathType": "Prefix", "backend": {
    "service": {"name": "shop", "port": {"number": 80}}}}]}  # fmt: skip

OTHER_TAINT = {"key": "other", "effect": "NoSchedule"}
MADE: dict[str, Object] = {
    "ConfigMap": {"apiVersion": "v1", "data": {"mode": "calm", "level": "3"}},
    "Secret": {"apiVersion": "v1", "data": {"mode": "Y2FsbQ=="}},
    "Service": {"apiVersion": "v1", "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}},
    "Pod": {
        "apiVersion": "v1",
        "spec": {
            "containers": CONTAINERS,
            "readinessGates": [{"conditionType": "shop/open"}],
            "automountServiceAccountToken": False,
        },
    },
    "Deployment": {
        "apiVersion": "apps/v1",
        "spec": {"replicas": 4, "selector": SELECTOR, "template": TEMPLATE},
    },
    "Ingress": {
        "apiVersion": "networking.k8s.io/v1",
        "spec": {
            "rules": [{"host": "a.example", "http": HTTP}, {"host": "b.example", "http": HTTP}]
        },
    },
    "HorizontalPodAutoscaler": {
        "apiVersion": "autoscaling/v1",
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "shop", "apiVersion": "apps/v1"},
            "minReplicas": 2,
            "maxReplicas": 9,
        },
    },
    "Lease": {
        "apiVersion": "coordination.k8s.io/v1",
        "spec": {
            "holderIdentity": "shop-1",
            "leaseDurationSeconds": 15,
            "leaseTransitions": 3,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    },
}
MADE["Endpoints"] = {
    "apiVersion": "v1",
    "subsets": [{"addresses": [{"ip": "10.0.0.7"}], "ports": [{"port": 80, "protocol": "TCP"}]}],
}
JOB = {"backoffLimit": 0, "parallelism": 2, "completions": 4, "template": {
    "spec": {"restartPolicy": "Never", "containers": CONTAINERS}}}  # fmt: skip
MADE |= {
    "Job": {"apiVersion": "batch/v1", "spec": JOB},
    "CronJob": {
        "apiVersion": "batch/v1",
        "spec": {"schedule": "5 4 * * *", "jobTemplate": {"spec": JOB}},
    },
    "PersistentVolumeClaim": {
        "apiVersion": "v1",
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "",
        },
    },
    "HTTPRoute": {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "spec": {
            "rules": [
                {"backendRefs": [{"name": "shop", "port": 80}, {"name": "next", "port": 80}]},
                {"backendRefs": [{"name": "next", "port": 80, "weight": 3}]},
            ]
        },
    },
}
STATUS: dict[str, Any] = {
    "Pod": {
        "conditions": [{"type": "shop/open", "status": "True"}, {"type": "Ready", "status": "True"}]
    }
}


def make(client: Client, kind: str, namespace: str) -> Object:
    """A target of this kind; for a Namespace or a Node one that nothing else uses."""
    crds.install(client, kind)
    if kind == "PersistentVolume":
        return volume(client, namespace)
    if kind in ("Namespace", "Node"):
        where = client.kind(kind)
        made = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": f"{namespace[:40]}-{kind.lower()}"},
        }
        if kind == "Node":
            taints = [{"key": "dedicated", "value": "x", "effect": "NoSchedule"}, OTHER_TAINT]
            made["spec"] = {"taints": taints}
        found = client.create(where, made)
        return {"apiVersion": "v1", "kind": kind, **found}
    body = copy.deepcopy(MADE[kind])
    body |= {"kind": kind, "metadata": {"name": "shop", "labels": {"app": "shop", "tier": "front"}}}
    if kind == "Service":
        body["metadata"]["finalizers"] = ["held.example/z"]
    group = str(body["apiVersion"]).rpartition("/")[0]
    where = client.kind(kind, group)
    body["apiVersion"] = where.version
    if kind == "PersistentVolumeClaim":
        body["spec"]["volumeName"] = f"{namespace[:40]}-volume"
    found = client.create(where, body, namespace)
    if kind == "PersistentVolumeClaim":
        volume(client, namespace, found)
    if kind in STATUS:
        found = client.replace(where, {**found, "status": STATUS[kind]}, "status")
    return found


def volume(client: Client, namespace: str, claim: Object | None = None) -> Object:
    """A volume that is kept when it is let go, with its claim if there is one."""
    spec: Object = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain" if claim else "Recycle",
        "hostPath": {"path": "/nowhere"},
    }
    if claim is not None:
        meta = metadata(claim)
        spec["claimRef"] = {
            "kind": "PersistentVolumeClaim", "name": meta["name"], "namespace": namespace,
            "uid": meta["uid"],
        }  # fmt: skip
    name = f"{namespace[:40]}-volume"
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    where = client.kind("PersistentVolume")
    return {**body, **client.create(where, {**body, "spec": spec})}


def essence(each: Object) -> Object:
    """An object without what every write changes."""
    found = copy.deepcopy(each)
    for name in ("resourceVersion", "managedFields", "generation"):
        metadata(found).pop(name, None)
    for name in ("annotations", "labels"):  # an empty map is none
        if not metadata(found).get(name):
            metadata(found).pop(name, None)
    if taints := (found.get("spec") or {}).get("taints"):  # a set
        found["spec"]["taints"] = sorted(taints, key=str)
    found.pop("status", None) if found.get("kind") != "Pod" else None
    return found
