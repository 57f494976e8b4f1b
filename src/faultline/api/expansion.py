"""Writing out `foreach` and `repeat`: a pure function from the raw document to one without them.

It is done on the raw data, before the models read it, because the value of an iteration may stand
anywhere: as a duration, a number, a name. The nodes of iteration 2 get `.2` behind their names, and
so does every reference to them from within the iteration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

from faultline.api.document import Problem, invalid_document
from faultline.api.ranges import spread
from faultline.api.substitution import replaced, substitute
from faultline.errors import InvalidParameter

MOST = 5000
"""Nodes that a document may come to when it is written out."""

_BOUNDS = ("values", "range", "times", "atOnce", "pause")
_LISTS = ("nodes", "otherwise", "finally")
Data = dict[str, Any]


def written_out(spec: Data, parameters: Data) -> Data:
    """A spec without `foreach` and `repeat`; raises InvalidDocument that names the node.

    `parameters` are the values of the experiment's own: a loop's values may refer to them.
    """
    graph = {key: spec[key] for key in ("nodes", "finally") if isinstance(spec.get(key), list)}
    writer = _Writer(parameters)
    return {**spec, **{key: writer.nodes(nodes, f"spec.{key}") for key, nodes in graph.items()}}


class _Writer:
    """Writes a graph out, and counts what it comes to."""

    def __init__(self, parameters: Data) -> None:
        self.parameters = parameters
        self.counted = 0

    def nodes(self, nodes: list[Any], path: str) -> list[Any]:
        return [self.node(node, f"{path}.{index}") for index, node in enumerate(nodes)]

    def node(self, node: object, path: str) -> object:
        self.counted += 1
        if self.counted > MOST:
            raise invalid_document("experiment", [Problem(path, f"at most {MOST} nodes in all")])
        if not isinstance(node, dict):
            return node  # the models say what is wrong
        entries = cast(Data, node)
        loop = {"foreach": _foreach, "repeat": _repeat}.get(str(entries.get("type")))
        if loop is not None and isinstance(entries.get("nodes"), list):
            bounds = {key: value for key, value in entries.items() if key in _BOUNDS}
            known = cast(Data, substitute(bounds, self.parameters, path))
            return self.node(loop({**entries, **known}, path), path)
        changed: Data = {
            key: self.nodes(entries[key], f"{path}.{key}")
            for key in _LISTS
            if isinstance(entries.get(key), list)
        }
        if isinstance(entries.get("cases"), list):
            changed["cases"] = [
                self.node(case, f"{path}.cases.{index}")
                for index, case in enumerate(cast("list[Any]", entries["cases"]))
            ]
        return {**entries, **changed}


_FOREACH = ("each", "values", "range", "atOnce", "nodes", "type")
_REPEAT = ("times", "until", "pause", "nodes", "type")


def _foreach(node: Data, path: str) -> Data:
    values = _values(node, path)
    name = str(node.get("each", "item"))
    groups = [
        _iteration(node, index, _named(name, value)) for index, value in enumerate(values, start=1)
    ]
    kept = {key: value for key, value in node.items() if key not in _FOREACH}
    at_once = node.get("atOnce", 1)
    if at_once == 1:
        return {**kept, "type": "serial", "nodes": groups}
    return {**kept, "type": "parallel", "nodes": groups, "atOnce": at_once}


def _values(node: Data, path: str) -> list[Any]:
    values: object = node.get("values")
    limits: object = node.get("range")
    if (values is None) == (limits is None):
        problem = Problem(path, "expected exactly one of values and range")
        raise invalid_document("experiment", [problem])
    if isinstance(limits, dict):
        limits = cast(Data, limits)
        try:
            return list(spread(limits["start"], limits["stop"], limits["step"]))
        except InvalidParameter as error:
            problem = Problem(f"{path}.range", f"expected {error.expected}", error.given)
        except (KeyError, TypeError, ValueError):
            problem = Problem(f"{path}.range", "expected start, stop and step")
        raise invalid_document("experiment", [problem])
    if not isinstance(values, list) or not values:
        where = f"{path}.{'range' if values is None else 'values'}"
        problem = Problem(where, "expected a list of values, or start, stop and step")
        raise invalid_document("experiment", [problem])
    return cast("list[Any]", values)


def _named(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    entries = cast(Data, value)
    return {f"{name}.{key}": inner for key, inner in entries.items()}


def _repeat(node: Data, path: str) -> Data:
    times = node.get("times")
    if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= 1000:
        raise invalid_document(
            "experiment", [Problem(f"{path}.times", "expected 1 to 1000", times)]
        )
    groups = [_iteration(node, index, {"round": index}) for index in range(1, times + 1)]
    kept = {key: value for key, value in node.items() if key not in _REPEAT}
    loop = {"loop": node["until"]} if node.get("until") else {}
    pause = {"pause": node["pause"]} if "pause" in node else {}
    return {**kept, "type": "serial", "nodes": groups, **loop, **pause}


def _iteration(node: Data, index: int, values: dict[str, Any]) -> Data:
    """One iteration: a list of nodes as `serial` would carry them out."""
    inner = cast("list[Any]", node["nodes"])
    names = set(_names(inner))
    body = [replaced(_renamed(each, names, f".{index}"), values) for each in inner]
    return {"name": f"{node.get('name', '')}.{index}", "type": "serial", "nodes": body}


def _mappings(value: object) -> list[Data]:
    """The mappings of a list; what else is there the models complain of."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast(Data, each) for each in items if isinstance(each, dict)]


def _names(nodes: object) -> Iterable[str]:
    for entries in _mappings(nodes):
        if isinstance(entries.get("name"), str):
            yield entries["name"]
        for key in _LISTS:
            yield from _names(entries.get(key))
        for case in _mappings(entries.get("cases")):
            yield from _names(case.get("nodes"))


def _renamed(node: Any, names: set[str], suffix: str) -> Any:
    if not isinstance(node, dict):
        return node
    entries = dict(cast(Data, node))
    if isinstance(entries.get("name"), str):
        entries["name"] += suffix
    if isinstance(entries.get("needs"), list):
        needs = cast("list[object]", entries["needs"])
        entries["needs"] = [
            f"{each}{suffix}" if isinstance(each, str) and each in names else each for each in needs
        ]
    for key in _LISTS:
        if isinstance(entries.get(key), list):
            inner = cast("list[Any]", entries[key])
            entries[key] = [_renamed(each, names, suffix) for each in inner]
    if isinstance(entries.get("cases"), list):
        cases = cast("list[Any]", entries["cases"])
        entries["cases"] = [_renamed(each, names, suffix) for each in cases]
    return entries


def source_path(path: str, data: Data) -> str:
    """Where that stands in the document as it was written what has this path when written out."""
    parts, kept, here = path.split("."), list[str](), cast(Any, data)
    while parts:
        loop = isinstance(here, dict) and cast(Data, here).get("type") in ("foreach", "repeat")
        if loop and parts[0] == "nodes" and len(parts) > 2:
            parts = parts[2:]  # the iteration
        elif loop and parts[:1] == ["until"]:
            parts = ["until"]
        part = parts.pop(0)
        kept.append(part)
        if isinstance(here, list):
            items = cast("list[Any]", here)
            here = items[int(part)] if part.isdigit() and int(part) < len(items) else None
        else:
            here = cast(Data, here).get(part) if isinstance(here, dict) else None
    return ".".join(kept)


_SUFFIX = re.compile(r"(\.\d+)+$")


def lookup(name: str, suffix: str, known: Iterable[str]) -> str | None:
    """The node that `name` means when it is said inside of iterations `suffix` (`.2.1`): the
    innermost of that name; None if there is none.
    """
    names = set(known)
    while True:
        if name + suffix in names:
            return name + suffix
        if not suffix:
            return None
        suffix = suffix.rpartition(".")[0]


def suffix_of(name: str) -> str:
    """The iterations that a node is in: `.2.1` of `load.2.1`, nothing of `load`."""
    found = _SUFFIX.search(name)
    return found[0] if found else ""
