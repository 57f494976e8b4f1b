"""Structural schemas: what a CustomResourceDefinition can say, made from what a model says.

JSON Schema as pydantic writes it has references, unions, constants and recursion, none of which the
API server takes (Kubernetes documentation, "Specifying a structural schema"). References are
written out, unions of objects become one object with the fields of all, and what cannot be said is
left open: the models themselves check it again, at admission and before anything acts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

Schema = dict[str, Any]

OPEN = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
_KEPT = ("description", "default", "pattern", "format", "enum", "minimum", "maximum", "minLength",
         "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")  # fmt: skip
_BOUNDS = {"minimum": min, "maximum": max, "minLength": min, "maxLength": max, "minItems": min,
           "maxItems": max}  # fmt: skip


def structural(schema: Schema, levels: int = 1, *, placeholders: bool = False) -> Schema:
    """A schema without references, unions and recursion. What holds itself (nodes of a graph) is
    written out `levels` times, and open below that. With `placeholders` a text with `${` may stand
    wherever a single value does.
    """
    return _Writer(schema.get("$defs", {}), levels, placeholders).write(schema, ())


class _Writer:
    def __init__(self, definitions: dict[str, Schema], levels: int, placeholders: bool) -> None:
        self.definitions = definitions
        self.levels = levels
        self.placeholders = placeholders

    def write(self, schema: Schema, inside: tuple[str, ...]) -> Schema:
        """One schema; `inside` are the definitions that hold it."""
        if "$ref" in schema:
            return self._reference(schema, inside)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return _described(self._union(schema[union], inside), schema)
        if "allOf" in schema:
            raise ValueError(f"a schema with allOf is not expected: {schema}")
        if "const" in schema:
            return _described(
                {"type": _type_of(schema["const"]), "enum": [schema["const"]]}, schema
            )
        made = self._plain(schema, inside)
        return _loosened(made) if self.placeholders else made

    def _reference(self, schema: Schema, inside: tuple[str, ...]) -> Schema:
        name = schema["$ref"].rpartition("/")[2]
        found = self.definitions[name]
        if inside.count(name) >= self.levels and "properties" in found:
            return _described({"type": "object", OPEN: True}, {**found, **schema})
        return _described(self.write(found, (*inside, name)), schema)

    def _plain(self, schema: Schema, inside: tuple[str, ...]) -> Schema:
        made: Schema = {key: schema[key] for key in _KEPT if key in schema}
        if made.get("default", ...) is None:
            del made["default"]
        if "type" not in schema:
            return {
                **made,
                **({"type": _type_of(made["enum"][0])} if "enum" in made else {OPEN: True}),
            }
        made["type"] = schema["type"]
        for bound, of in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if bound in schema:  # a number there, a mark here (OpenAPI 3.0)
                made |= {of: schema[bound], bound: True}
        if made["type"] == "array":
            items: Any = schema.get("items")
            if items is None and "prefixItems" in schema:
                items = {"anyOf": schema["prefixItems"]}
            made["items"] = self.write(items, inside) if items else {OPEN: True}
        if made["type"] == "object":
            made |= self._object(schema, inside)
        return made

    def _object(self, schema: Schema, inside: tuple[str, ...]) -> Schema:
        if "properties" in schema:
            made: Schema = {"properties": {
                name: self.write(each, inside) for name, each in schema["properties"].items()
            }}  # fmt: skip
            needed = [name for name in schema.get("required", ()) if name in made["properties"]]
            return {**made, "required": needed} if needed else made
        values = schema.get("additionalProperties", True)
        if isinstance(values, dict):
            return {"additionalProperties": self.write(cast(Schema, values), inside)}
        if patterns := list(schema.get("patternProperties", {}).values()):
            return {"additionalProperties": self.write(patterns[0], inside)}
        return {OPEN: True}

    def _union(self, of: Iterable[Schema], inside: tuple[str, ...]) -> Schema:
        """One schema for all: what does not fit one of them is found by the model."""
        parts = [self.write(each, inside) for each in of if each.get("type") != "null"]
        merged = parts[0]
        for part in parts[1:]:
            merged = merge(merged, part)
        return merged


def _loosened(made: Schema) -> Schema:
    """The same for a value, or for a text in which a parameter stands."""
    told = {key: made[key] for key in ("description", "default") if key in made}
    match made.get("type"):
        case "integer":
            return {INT_OR_STRING: True, **told}
        case "number" | "boolean":
            return {OPEN: True, **told}
        case "string":
            told["type"] = "string"
            exact = "|".join(f"^{re.escape(each)}$" for each in made.get("enum", ()))
            pattern = made.get("pattern") or exact
            return {**told, "pattern": rf"(?:{pattern})|\$\{{"} if pattern else told
        case _:
            return made


def merge(one: Schema, other: Schema) -> Schema:
    """A schema that takes whatever one of the two takes."""
    if one == other:
        return one
    if _bare(one) == _bare(other):
        return _described(_bare(one), {"description": _both(one, other)})
    types = {one.get("type"), other.get("type")}
    if types == {"object"}:
        return _merged_objects(one, other)
    if types == {"array"}:
        made = {k: v for k, v in one.items() if k in ("type", "description")}
        return {**made, "items": merge(one["items"], other["items"])}
    if types == {"integer", "number"} or (len(types) == 1 and None not in types):
        return _merged_scalars(one, other)
    if types <= {"integer", "string", None} and _whole_or_text(one) and _whole_or_text(other):
        return _described({INT_OR_STRING: True}, {"description": _both(one, other)})
    fields = next((each["properties"] for each in (one, other) if "properties" in each), None)
    made = {OPEN: True, "properties": fields} if fields else {OPEN: True}
    return _described(made, {"description": _both(one, other)})


def _whole_or_text(schema: Schema) -> bool:
    return schema.get("type") in ("integer", "string") or INT_OR_STRING in schema


def _merged_scalars(one: Schema, other: Schema) -> Schema:
    made: Schema = {"type": "number" if one["type"] != other["type"] else one["type"]}
    if "enum" in one and "enum" in other:
        made["enum"] = [*one["enum"], *(v for v in other["enum"] if v not in one["enum"])]
    for bound, wider in _BOUNDS.items():
        if bound in one and bound in other:
            made[bound] = wider(one[bound], other[bound])
    for same in ("pattern", "format"):
        if same in one and one[same] == other.get(same):
            made[same] = one[same]
    return _described(made, {"description": _both(one, other)})


def _merged_objects(one: Schema, other: Schema) -> Schema:
    made: Schema = {"type": "object"}
    if OPEN in one or OPEN in other or ("properties" in one) != ("properties" in other):
        made[OPEN] = True
    elif "properties" not in one:
        made["additionalProperties"] = merge(
            one["additionalProperties"], other["additionalProperties"]
        )
    if "properties" in one and "properties" in other:
        fields = {**one["properties"]}
        for name, each in other["properties"].items():
            fields[name] = merge(fields[name], each) if name in fields else each
        made["properties"] = fields
        needed = [n for n in one.get("required", ()) if n in other.get("required", ())]
        if needed:
            made["required"] = needed
    return _described(made, {"description": _both(one, other)})


def _bare(schema: Schema) -> Schema:
    return {k: v for k, v in schema.items() if k not in ("description", "default")}


def _both(one: Schema, other: Schema) -> str:
    """What both say, each once."""
    said: list[str] = []
    for each in (one.get("description", ""), other.get("description", "")):
        said += [part for part in each.split("\nOr: ") if part and part not in said]
    return "\nOr: ".join(said)


def _described(made: Schema, source: Schema) -> Schema:
    """With the description and the default of who refers to it, which know more."""
    found = {
        key: source[key] for key in ("description", "default") if source.get(key) not in (None, "")
    }
    made = {**made, **found}
    if not made.get("description"):
        made.pop("description", None)
    return made


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "integer"
