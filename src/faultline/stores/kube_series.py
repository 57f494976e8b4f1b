"""Series of a status in Kubernetes: beside the object, as a log in ConfigMaps.

An object may have 1.5 MiB at most, and each write of etcd keeps the whole of it for minutes. So a
series is no part of its object: what is new of all series of a run is one record, under a number
that grows. Records go into a small ConfigMap, `RUN-series`, and from there, when that is full, into
large ones beside it, `RUN-series-N`, which are hardly ever written. A record that is in both counts
once, so a writer may die between the two.

They belong to the run (owner reference), and Kubernetes removes them with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubeapi.model import version_of as text_version
from faultline.stores.kube_documents import OURS, name_of, notes_of

if TYPE_CHECKING:
    from faultline.stores.series import Series

TAIL = 32_000
"""Bytes of the small ConfigMap: with a large one of PART this writes the least."""
PART = 500_000
RECORD = 100_000  # bytes of one record; more is written as several
CONFIGMAPS = Kind("ConfigMap", "configmaps", "v1")
OF = f"{OURS}series-of"
_PARTS = f"{OURS}parts"

Rows = list[tuple[str, str]]
"""The path of a series and its entries as a JSON array."""


@dataclass(slots=True)
class Log:
    """What lies in the ConfigMaps of one run."""

    version: str = ""  # of the small one; empty if there is none
    tail: dict[str, str] = field(default_factory=dict[str, str])
    parts: int = 0
    last_part: int = 0  # bytes in the latest large one
    records: dict[str, str] = field(default_factory=dict[str, str])  # all, when it was read

    def rows(self) -> Rows:
        """The series that the records come to, in the order of paths."""
        found: dict[str, list[tuple[int, str]]] = {}
        lengths: dict[str, int] = {}
        for number in sorted(self.records):
            head, *arrays = self.records[number].split("\n")
            for (path, start, count), text in zip(json.loads(head), arrays, strict=True):
                if start != lengths.get(path, 0):
                    found[path] = _cut(found.get(path, []), start)
                if count:
                    found.setdefault(path, []).append((count, text))
                lengths[path] = start + count
        return [(path, text) for path in sorted(found) for _, text in found[path]]


def _cut(arrays: list[tuple[int, str]], length: int) -> list[tuple[int, str]]:
    """The first entries of a series."""
    kept: list[tuple[int, str]] = []
    for count, text in arrays:
        if count > length:
            some = json.loads(text)[:length]
            return [*kept, (length, json.dumps(some))] if length > 0 else kept
        kept.append((count, text))
        length -= count
    return kept


def records(series: Series, stored: Series) -> Iterator[str]:
    """The records that lead from the one to the other; entries are compared, not read."""
    parts: list[tuple[str, int, list[Any]]] = [
        (path, 0, []) for path in stored.keys() - series.keys()
    ]
    for path, entries in series.items():
        had = stored.get(path, [])
        same = len(entries) >= len(had) and entries[: len(had)] == had
        begin = len(had) if same else common(entries, had)
        if not same or len(entries) > begin:
            parts.append((path, begin, entries[begin:]))
    heads: list[tuple[str, int, int]] = []
    arrays: list[str] = []
    size = 0
    for path, begin, entries in parts:
        for start, count, text in _arrays(begin, entries):
            if size + len(text) > RECORD and heads:
                yield _record(heads, arrays)
                heads, arrays, size = [], [], 0
            heads.append((path, start, count))
            arrays.append(text)
            size += len(text)
    if heads:
        yield _record(heads, arrays)


def common(entries: list[Any], had: list[Any]) -> int:
    return next(
        (index for index, (a, b) in enumerate(zip(entries, had, strict=False)) if a != b),
        min(len(entries), len(had)),
    )


def _arrays(begin: int, entries: list[Any]) -> Iterator[tuple[int, int, str]]:
    if not entries:
        yield begin, 0, "[]"
    step = 500
    for first in range(0, len(entries), step):
        some = entries[first : first + step]
        data = [each.to_json() for each in some]
        yield begin + first, len(some), json.dumps(data, separators=(",", ":"))


def _record(heads: list[tuple[str, int, int]], arrays: list[str]) -> str:
    return "\n".join([json.dumps(heads), *arrays])


class Owner:
    """The run that a log belongs to, as the server knows it."""

    def __init__(self, kind: Kind, raw: Object) -> None:
        meta = metadata(raw)
        self.name, self.uid = name_of(raw), str(meta.get("uid"))
        self.namespace = str(meta.get("namespace") or "")
        self.reference = {
            "apiVersion": kind.version, "kind": kind.kind, "name": self.name, "uid": self.uid,
        }  # fmt: skip

    def configmap(self, part: int | None = None) -> str:
        """The name of one; another run of this name later has others."""
        number = "" if part is None else f"-{part}"
        return f"{self.name[:220].rstrip('.-')}-{self.uid[:8]}-series{number}"


class Logs:
    """Reads and writes logs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self, owner: Owner) -> Log:
        """All of it; raises ApiError. The small one first: what leaves it meanwhile is in both."""
        tail = self._get(owner, None)
        if tail is None:
            return Log()
        made = Log(text_version(tail), _data(tail), _parts(tail))
        made.records = dict(made.tail)
        for part in range(made.parts):
            data = _data(self._get(owner, part) or {})
            made.records.update(data)
            made.last_part = _size(data)
        return made

    def _get(self, owner: Owner, part: int | None) -> Object | None:
        try:
            return self._client.get(CONFIGMAPS, owner.configmap(part), owner.namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def append(self, owner: Owner, log: Log, record: str) -> None:
        """Write one record; raises ApiError, Conflict if somebody else has written since."""
        last = max(log.tail, default="")
        number = f"{int(last) + 1 if last else 0:08d}"
        if not log.version:
            made = self._create(owner, None, {number: record}, {_PARTS: "0"})
            log.version, log.tail = text_version(made), {number: record}
            return
        change: Object = {"metadata": {"resourceVersion": log.version}, "data": {number: record}}
        moved = _size(log.tail) + len(record) > TAIL
        if moved:
            self._move(owner, log)
            change["metadata"]["annotations"] = {_PARTS: str(log.parts)}
            change["data"] |= dict.fromkeys(log.tail)
        name = owner.configmap()
        made = self._client.patch(CONFIGMAPS, name, change, namespace=owner.namespace)
        log.version = text_version(made)
        log.tail = {number: record} if moved else {**log.tail, number: record}

    def _move(self, owner: Owner, log: Log) -> None:
        """Put what is in the small one into a large one too."""
        size = _size(log.tail)
        if not log.parts or log.last_part + size > PART:
            try:
                self._create(owner, log.parts, log.tail, {})
                log.parts, log.last_part = log.parts + 1, size
                return
            except ApiError as error:
                if error.reason != "AlreadyExists":  # by a writer that died then
                    raise
            log.parts, log.last_part = log.parts + 1, 0
        name, change = owner.configmap(log.parts - 1), {"data": log.tail}
        self._client.patch(CONFIGMAPS, name, change, namespace=owner.namespace)
        log.last_part += size

    def _create(
        self, owner: Owner, part: int | None, data: dict[str, str], notes: dict[str, str]
    ) -> Object:
        made = {
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {
                "name": owner.configmap(part), "labels": {OF: owner.uid}, "annotations": notes,
                "ownerReferences": [owner.reference],
            },
        }  # fmt: skip
        return self._client.create(CONFIGMAPS, made, owner.namespace)


def _data(raw: Object) -> dict[str, str]:
    return cast("dict[str, str]", raw.get("data") or {})


def _parts(raw: Object) -> int:
    text = notes_of(raw).get(_PARTS, "0")
    return int(text) if text.isdigit() else 0


def _size(data: dict[str, str]) -> int:
    return sum(map(len, data.values()))
