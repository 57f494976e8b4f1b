"""The custom resources of the kinds, as CustomResourceDefinitions (apiextensions.k8s.io/v1)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from faultline.api.experiment import Experiment
from faultline.api.kinds import KINDS
from faultline.api.model import API_VERSION, Resource
from faultline.kube.structural import OPEN, structural

GROUP, VERSION = API_VERSION.split("/")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False  # only with -o wide

    def json(self) -> Document:
        made: Document = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return {**made, "priority": 1} if self.wide else made


@dataclass(frozen=True, slots=True)
class Shown:
    """How a kind shows itself: its short names and columns."""

    short: tuple[str, ...]
    columns: tuple[Column, ...]


AGE = Column("Age", ".metadata.creationTimestamp", "date")
SHOWN: dict[str, Shown] = {
    "Calendar": Shown(("fcal",), (AGE,)),
    "Experiment": Shown(
        ("fexp",),
        (
            Column("Title", ".spec.title"),
            Column("Hypothesis", ".spec.hypothesis.text", wide=True),
            AGE,
        ),
    ),
    "Fault": Shown(
        ("flt",),
        (
            Column("Fault", ".spec.fault"),
            Column("Targets", ".status.counts.targets", "integer"),
            Column("Effective", ".status.counts.effective", "integer"),
            Column("Phase", ".status.phase"),
            Column("End", ".status.end", wide=True),
            Column("Duration", ".spec.duration", wide=True),
            AGE,
        ),
    ),
    "Halt": Shown(
        ("fhalt",),
        (Column("Reason", ".spec.reason"), Column("Left", ".status.left", "integer"), AGE),
    ),
    "Host": Shown(
        ("fhost",),
        (
            Column("Agent", ".status.agent"),
            Column("Kernel", ".status.kernel"),
            Column("Halted", ".spec.halted", wide=True),
            AGE,
        ),
    ),
    "Probe": Shown(
        ("fprobe",),
        (
            Column("Type", ".spec.type"),
            Column("Value", ".status.value", "number"),
            Column("OK", ".status.ok", "boolean"),
            AGE,
        ),
    ),
    "Run": Shown(
        ("frun",),
        (
            Column("Experiment", ".spec.experiment"),
            Column("Phase", ".status.phase"),
            Column("Verdict", ".status.verdict"),
            Column("Reason", ".status.reason", wide=True),
            AGE,
        ),
    ),
    "Schedule": Shown(
        ("fsched",),
        (
            Column("Cron", ".spec.when.cron"),
            Column("Paused", ".spec.paused", "boolean"),
            AGE,
        ),
    ),
    "Traffic": Shown(("ftraffic",), (Column("Type", ".spec.type"), AGE)),
}
"""By kind: every kind has an entry, and every path is one of its model (both are tested)."""


def crd(kind: str) -> Document:
    """The definition of one kind."""
    model = KINDS[kind]
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": model.plural,
        "singular": kind.lower(),
        "shortNames": list(SHOWN[kind].short),
        "categories": ["faultline"],
    }
    version: Document = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema(model)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [column.json() for column in SHOWN[kind].columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{model.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "faultline"},
        },
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Cluster" if model.cluster_wide else "Namespaced",
            "versions": [version],
        },
    }


def crds() -> list[Document]:
    """The definitions of all kinds, by name."""
    return [crd(kind) for kind in sorted(KINDS)]


def schema(model: type[Resource]) -> Document:
    """What the API server checks; metadata is its own."""
    placeholders = model is Experiment  # its parameters stand anywhere in it
    written = structural(model.model_json_schema(by_alias=True), placeholders=placeholders)
    fields = written["properties"]
    made: Document = {
        "type": "object",
        "description": written.get("description", ""),
        "properties": {
            "apiVersion": {"type": "string", "enum": [API_VERSION]},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _told(fields["spec"]),
        },
        "required": ["spec"],
    }
    status = fields.get("status", {})
    if status.get("properties"):
        made["properties"]["status"] = _told(status)
    else:
        made["properties"]["status"] = {"type": "object", OPEN: True}
    return made


def _told(node: Any) -> Any:
    """Defaults as words: the server must not write them, since a field of one type of probe is an
    unknown field in another.
    """
    if isinstance(node, list):
        return [_told(each) for each in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    schema = cast(Document, node)
    made: Document = {}
    for key, value in schema.items():
        if key == "properties":
            made[key] = {name: _told(each) for name, each in value.items()}
        elif key != "default":
            made[key] = _told(value)
    default = schema.get("default")
    if default not in (None, "", [], {}):
        words = f"Default: {default if isinstance(default, str) else json.dumps(default)}."
        made["description"] = f"{schema.get('description', '')}\n{words}".strip()
    return made
