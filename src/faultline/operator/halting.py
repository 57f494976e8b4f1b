"""How far a halt has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from faultline.api.halt import HaltStatus
from faultline.operator import conditions
from faultline.operator.tally import HostView
from faultline.operator.views import HaltObject


def status(halt: HaltObject, hosts: Iterable[HostView], now: float) -> HaltStatus:
    """Its status, from what hosts say. A host that does not answer undoes everything by itself; it
    is counted as long as it has not said so.
    """
    told = halt.status.model_copy(deep=True)
    told.since = told.since or now
    listed = [*hosts]
    told.left = sum(host.open for host in listed)
    unheard = sum(not host.halted or not host.heard for host in listed if host.open)
    if told.left or unheard:
        text = f"{told.left} faults are not undone yet"
        conditions.put(told.conditions, "Complete", "False", "Undoing", text, now)
    else:
        told.undone = told.undone or now
        text = "nothing is left anywhere"
        conditions.put(told.conditions, "Complete", "True", "Undone", text, now)
    return told
