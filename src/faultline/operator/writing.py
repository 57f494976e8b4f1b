"""What the operator writes. Every write names the version that it was decided from."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from faultline.api.halt import HaltStatus
from faultline.api.host import HostSpec, HostStatus
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.operator.conditions import stamp
from faultline.operator.hosts import HostObject
from faultline.operator.model import Decision, FaultView, Notice
from faultline.operator.views import FINALIZER, FaultObject, HaltObject

VERSION = "faultline.dev/v1alpha1"
FAULTS = Kind("Fault", "faults", VERSION)
HOSTS = Kind("Host", "hosts", VERSION, namespaced=False)
HALTS = Kind("Halt", "halts", VERSION, namespaced=False)
EVENTS = Kind("Event", "events", "v1")


def finalizer(client: Client, fault: FaultObject, *, there: bool) -> Object:
    """Put it on, or take it away; raises ApiError."""
    kept = [each for each in fault.finalizers if each != FINALIZER]
    change = {
        "metadata": {
            "resourceVersion": fault.version,
            "finalizers": [*kept, FINALIZER] if there else kept,
        }
    }
    return client.patch(FAULTS, fault.view.name, change, namespace=fault.view.namespace)


def status(client: Client, fault: FaultObject, decision: Decision) -> Object:
    """The whole status; raises ApiError."""
    view = fault.view
    made: Object = {
        "apiVersion": VERSION,
        "kind": "Fault",
        "metadata": {
            "name": view.name, "namespace": view.namespace, "uid": view.uid,
            "resourceVersion": fault.version,
        },
        "spec": fault.spec,
        "status": _short(decision.status),
    }  # fmt: skip
    return client.replace(FAULTS, made, "status")


def host(client: Client, found: HostObject, spec: HostSpec) -> Object:
    """What a host is asked for; raises ApiError. One without a version is made."""
    if not found.version:
        made: Object = {
            "apiVersion": VERSION, "kind": "Host", "metadata": {"name": found.name},
            "spec": {"desired": [_short(each) for each in spec.desired]},
        }  # fmt: skip
        return client.create(HOSTS, made)
    change = {
        "metadata": {"resourceVersion": found.version},
        # Some servers take an empty text for none at all (kubernetes 1.20 built with a newer Go).
        "spec": {"desired": [_short(each) for each in spec.desired], "halted": spec.halted or None},
    }
    return client.patch(HOSTS, found.name, change)


def host_status(client: Client, found: HostObject, told: HostStatus) -> Object:
    """What became of what a host is asked for; raises ApiError."""
    change: Object = {
        "metadata": {"resourceVersion": found.version},
        "status": {"actual": [], "conditions": [], **_short(told)},
    }
    return client.patch(HOSTS, found.name, change, part="status")


def halt(client: Client, found: HaltObject, told: HaltStatus) -> Object:
    """How far a halt has come; raises ApiError."""
    change = {"metadata": {"resourceVersion": found.version}, "status": told.to_json()}
    return client.patch(HALTS, found.name, change, part="status")


def event(client: Client, about: FaultView, told: Notice, reporter: str) -> None:
    """A Kubernetes Event. Its name follows from what it says, so that it is there once."""
    words = f"{about.uid}\0{told.reason}\0{told.message}"
    name = f"{about.name[:60]}.{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    now = stamp(time.time())
    made: Object = {
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": about.namespace},
        "involvedObject": {
            "apiVersion": VERSION, "kind": "Fault", "name": about.name,
            "namespace": about.namespace, "uid": about.uid,
        },
        "type": "Warning" if told.warning else "Normal",
        "reason": told.reason, "message": told.message[:1000],
        "source": {"component": "faultline-operator"}, "reportingInstance": reporter,
        "reportingComponent": "faultline.dev/operator",
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    }  # fmt: skip
    try:
        client.create(EVENTS, made, about.namespace)
    except ApiError as error:
        # Told before; or the namespace is going, where nothing can be told any more.
        if error.reason not in ("AlreadyExists", "Forbidden", "NotFound"):
            raise


def _short(model: Any) -> Object:
    """Without what is as it is anyway: shares of a thousand hosts, targets of a host."""
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
