"""The regression experiment of a search: the same experiment with the fault at a value that is
known to be borne, ready to be run again and again.
"""

from __future__ import annotations

from typing import Any, cast

from faultline.api.search import SearchSpec, SearchState
from faultline.engine.search.trials import result

_LISTS = ("nodes", "finally", "otherwise")
_KEPT = ("name", "needs", "when", "timeout", "continueOnFailure")


def regression(document: dict[str, Any], node: str, state: SearchState) -> dict[str, Any] | None:
    """The experiment's document with its search node as one fault at the pinned value.

    None where no value is known to be borne, or the document has no such node.
    """
    spec, found = state.spec, result(state)
    if spec is None or found.pinned is None:
        return None
    replaced: list[str] = []

    def walk(data: Any) -> Any:
        if isinstance(data, list):
            return [walk(each) for each in cast("list[Any]", data)]
        if not isinstance(data, dict):
            return data
        entries = cast("dict[str, Any]", data)
        if entries.get("type") == "search" and entries.get("name") == node:
            replaced.append(node)
            return _pinned(entries, spec, found.pinned)
        inner = (*_LISTS, "cases")
        return {key: walk(value) if key in inner else value for key, value in entries.items()}

    body = cast("dict[str, Any]", walk(document.get("spec", {})))
    if not replaced:
        return None
    name, said = spec.parameter_name, f"{spec.parameter_name} of {found.pinned} is borne"
    probes = list(spec.probes)
    metadata = dict(cast("dict[str, Any]", document.get("metadata", {})))
    for kept_by_store in ("uid", "resourceVersion", "generation", "creationTimestamp"):
        metadata.pop(kept_by_store, None)
    metadata["name"] = f"{metadata.get('name', 'search')[:230]}-bears-{name.replace('_', '-')}"
    return {
        "apiVersion": document["apiVersion"],
        "kind": "Experiment",
        "metadata": {**metadata, "name": metadata["name"].lower()},
        "spec": {
            **body,
            "title": f"{body.get('title', '')}: {said}".lstrip(": "),
            "description": f"Made from a search: {found.text}.",
            "hypothesis": {"text": said, "probes": probes},
        },
    }


def _pinned(node: dict[str, Any], spec: SearchSpec, value: Any) -> dict[str, Any]:
    fault = cast("dict[str, Any]", node["fault"])
    return {
        **{key: node[key] for key in _KEPT if key in node},
        "type": "fault",
        **fault,
        "params": spec.params_with(fault.get("params", {}), value),
        "duration": str(type(spec.hold)(int(spec.hold) + int(spec.warmup))),
    }
