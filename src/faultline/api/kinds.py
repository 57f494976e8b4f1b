"""Every kind of resource by its name."""

from __future__ import annotations

from typing import Any

from faultline.api.calendar import Calendar
from faultline.api.document import read
from faultline.api.experiment import Experiment
from faultline.api.fault import Fault
from faultline.api.halt import Halt
from faultline.api.host import Host
from faultline.api.model import API_VERSION, Resource
from faultline.api.probe import Probe
from faultline.api.run import Run
from faultline.api.schedule import Schedule
from faultline.api.traffic import Traffic
from faultline.errors import InvalidDocument

KINDS: dict[str, type[Resource]] = {
    "Calendar": Calendar,
    "Experiment": Experiment,
    "Fault": Fault,
    "Halt": Halt,
    "Host": Host,
    "Probe": Probe,
    "Run": Run,
    "Schedule": Schedule,
    "Traffic": Traffic,
}


def kind_of(data: dict[str, Any], name: str = "document") -> str:
    """The kind of a raw document; raises InvalidDocument."""
    version, kind = data.get("apiVersion"), data.get("kind")
    if version != API_VERSION:
        raise InvalidDocument(
            f"{name} has apiVersion {version!r}; this version reads {API_VERSION!r}",
            hint=f"begin the document with `apiVersion: {API_VERSION}`",
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidDocument(f"{name} has kind {kind!r}; known are {', '.join(KINDS)}")
    return kind


def read_resource(data: dict[str, Any], name: str = "document") -> Resource:
    """A raw document as its model; raises InvalidDocument with every problem."""
    return read(KINDS[kind_of(data, name)], data, name)
