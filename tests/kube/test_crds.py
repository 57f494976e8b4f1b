"""The definitions of the custom resources: what an API server takes, and what documents are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.api.kinds import KINDS
from faultline.cli.kube import kube
from faultline.errors import UnknownName
from faultline.kube.crds import SHOWN, crd, crds
from faultline.kube.structural import INT_OR_STRING, OPEN, structural

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "default", "discriminator",
             "title", "prefixItems", "patternProperties", "propertyNames", "examples"}  # fmt: skip
LARGEST = 700_000
"""Bytes of one definition; etcd takes 1.5 MiB, and `kubectl apply` keeps a second copy of it."""


@cache
def schema_of(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def schemas(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, with its path."""
    yield path, node
    for name, each in node.get("properties", {}).items():
        yield from schemas(each, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from schemas(node[key], f"{path}[]")


def accepts(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """What a server would say against a value: unknown fields, types, enumerations, bounds."""
    wrong: list[str] = []
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
             "number": (int, float)}  # fmt: skip
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        return [f"{path}: {value!r} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        wrong.append(f"{path}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        wrong.append(f"{path}: {value!r} does not match {schema['pattern']}")
    for bound, bad in (("minimum", lambda x, b: x < b), ("maximum", lambda x, b: x > b)):
        if bound in schema and bad(value, schema[bound]):
            wrong.append(f"{path}: {value!r} is beyond the {bound} {schema[bound]}")
    if isinstance(value, dict) and (schema.get("type") == "object" or "properties" in schema):
        wrong += [f"{path}.{n} is missing" for n in schema.get("required", ()) if n not in value]
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if inner:
                wrong += accepts(inner, each, f"{path}.{name}")
            elif not schema.get(OPEN) and "properties" in schema:
                wrong.append(f"{path}.{name} is unknown")
    if isinstance(value, list):
        for index, each in enumerate(value):
            wrong += accepts(schema.get("items", {}), each, f"{path}[{index}]")
    return wrong


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_schema_says_only_what_the_server_takes(kind: str) -> None:
    for path, schema in schemas(schema_of(kind)):
        assert not FORBIDDEN & schema.keys(), f"{kind}{path}: {FORBIDDEN & schema.keys()}"
        told = "type" in schema or schema.get(OPEN) or schema.get(INT_OR_STRING)
        assert told, f"{kind}{path} has no type"
        if schema.get("type") == "array":
            assert schema["items"], f"{kind}{path}: an array of nothing"
        if schema.get("type") == "object" and path != ".metadata":
            holds = {"properties", "additionalProperties", OPEN} & schema.keys()
            assert holds, f"{kind}{path}: the server would drop all that is in it"
        assert not {"properties", "additionalProperties"} <= schema.keys(), f"{kind}{path}: both"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_that_a_person_writes_is_explained(kind: str) -> None:
    spec = schema_of(kind)["properties"]["spec"]
    silent = [
        path
        for path, schema in schemas(spec)
        if path
        and not path.endswith(("[]", ".type"))
        and ".reused[]" not in path
        and not schema.get("description")
    ]
    assert not silent


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_definition_is_small_enough_for_its_server(kind: str) -> None:
    assert len(json.dumps(crd(kind))) < LARGEST


def test_names_are_unique_and_every_column_shows_a_field() -> None:
    assert SHOWN.keys() == KINDS.keys()
    short = [name for shown in SHOWN.values() for name in shown.short]
    assert len(short) == len(set(short))
    for kind, shown in SHOWN.items():
        for column in shown.columns:
            node = schema_of(kind)
            for name in column.path.strip(".").split("."):
                if node.get("type") == "object" and name == "creationTimestamp":
                    break
                assert name in node["properties"], f"{kind}: {column.path} shows nothing"
                node = node["properties"][name]


def test_every_example_is_a_custom_resource() -> None:
    tried = 0
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if not isinstance(document, dict) or document.get("kind") not in KINDS:
                continue
            tried += 1
            assert not accepts(schema_of(document["kind"]), document), path
    assert tried >= 5


def test_a_wrong_document_is_refused_by_the_schema_alone() -> None:
    document = yaml.safe_load((ROOT / "examples" / "slow-network.yaml").read_text())
    document["spec"]["faults"][0]["fault"] = "no dots"
    document["spec"]["hypotesis"] = {}
    found = accepts(schema_of("Experiment"), document)
    assert len(found) == 2, found


@settings(max_examples=50)
@given(st.sampled_from(["string", "integer", "number", "boolean"]), st.data())
def test_a_union_takes_what_each_of_its_parts_takes(first: str, data: st.DataObject) -> None:
    second = data.draw(st.sampled_from(["string", "integer", "number", "boolean"]))
    values = {"string": st.text(), "integer": st.integers(), "boolean": st.booleans(),
              "number": st.floats(allow_nan=False)}  # fmt: skip
    one = {"properties": {"kind": {"const": "a"}, "value": {"type": first}}, "type": "object"}
    two = {"properties": {"kind": {"const": "b"}, "value": {"type": second}}, "type": "object"}
    schema = structural({"anyOf": [one, two]})
    for kind, type_ in (("a", first), ("b", second)):
        assert not accepts(schema, {"kind": kind, "value": data.draw(values[type_])})
    assert accepts(schema, {"kind": "c"})


def test_definitions_come_in_a_fixed_order_and_are_always_the_same() -> None:
    made = crds()
    assert [each["spec"]["names"]["kind"] for each in made] == sorted(KINDS)
    assert made == crds()


def test_the_command_prints_what_kubectl_reads() -> None:
    typed = CliRunner().invoke(kube, ["crds", "Schedule", "Calendar"], standalone_mode=False)
    assert typed.exception is None
    assert list(yaml.safe_load_all(typed.output)) == [crd("Schedule"), crd("Calendar")]
    with pytest.raises(UnknownName, match="there is no kind 'Nothing'"):
        CliRunner().invoke(kube, ["crds", "Nothing"], standalone_mode=False, catch_exceptions=False)
