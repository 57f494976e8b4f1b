"""Marks of faults in the cluster that no Host knows of: whatever lost its record, it is undone."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from faultline.api.host import HostSpec, HostStatus
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.kubefaults import change as changing
from faultline.kubefaults import registry, scan
from faultline.kubefaults.change import Outcome
from faultline.operator.hosts import OBJECTS
from faultline.operator.writing import HOSTS

PODS = Kind("Pod", "pods", "v1")
_MADE = ("ConfigMap", "NetworkPolicy", "ResourceQuota", "LimitRange", "Secret", "Job")
_log = logging.getLogger(__name__)


def sweep(client: Client, pods: Iterable[tuple[str, str]] = ()) -> int:
    """Undo what carries a mark and is wanted nowhere; how many marks that were. Raises ApiError.

    `pods` are those that may have one, by namespace and name: of all there may be very many.
    """
    kinds = scan.listed(client, _kinds())
    found = list(scan.scan(client, kinds, _unread))
    for space, name in pods:
        found += scan.one(client, PODS, space, name)
    if not found:
        return 0
    # Read behind the marks: what is wanted stood there before any of them was made.
    wanted = _wanted(client)
    count = 0
    for trace in found:
        if trace.fault in wanted or trace.change is None:
            continue
        count += 1
        done = changing.undo(client, trace.change, trace.fault)
        level = logging.WARNING if done.outcome is Outcome.PERSON else logging.INFO
        words = (trace.words, trace.fault, done.outcome, done.detail)
        _log.log(level, "%s has a mark of %s that nobody knows: %s %s", *words)
    return count


def _kinds() -> list[str]:
    """What faults change and make."""
    named = {kind for fault in registry.faults().values() for kind in fault.kinds}
    return sorted((named | {*_MADE, "Service"}) - {"Pod"})


def _wanted(client: Client) -> set[str]:
    try:
        host: Object = client.get(HOSTS, OBJECTS)
    except ApiError as error:
        if error.reason == "NotFound":
            return set()
        raise
    spec = HostSpec.model_validate(host.get("spec") or {})
    status = HostStatus.model_validate(host.get("status") or {})
    return {each.uid for each in (*spec.desired, *status.actual)}


def _unread(kind: Kind, error: ApiError) -> None:
    _log.debug("%s cannot be listed: %s", kind.plural, error.message)
