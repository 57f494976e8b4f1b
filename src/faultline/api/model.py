"""The base of every document model, and the envelope that all resources share.

Documents are written in camel case, as in Kubernetes; in Python the same fields are in snake case.
Unknown fields are refused, types are strict, and the docstring under a field is its help
everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from faultline.api.explaining import Explained, described

API_VERSION = "faultline.dev/v1alpha1"

_NAME = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"

Name = Annotated[str, Field(pattern=_NAME, min_length=1, max_length=63)]
"""A name in a document: lower-case letters, digits and hyphens (a DNS label, RFC 1123)."""

NodeName = Annotated[str, Field(pattern=_NAME[:-1] + r"(\.[0-9]+)*$", min_length=1, max_length=40)]
"""A name within one experiment; short, because the uid of a fault is derived from it. Iterations of
a loop have their number behind a dot."""


class Model(Explained):
    """Part of a document that a person writes: strict, frozen, unknown fields refused."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        json_schema_extra=described,
        defer_build=True,  # there are hundreds of them, and no command needs more than a few
        validate_default=True,
        ser_json_inf_nan="constants",
    )

    def to_json(self) -> dict[str, Any]:
        """The document as JSON data, camel case; reading it back gives an equal object."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Shorthand(Model):
    """A mapping instead of which its most important field may stand alone."""

    shorthand: ClassVar[str]
    """That field; its value is written as a text."""
    plain: ClassVar[tuple[str, ...]] = ("string",)
    """What may stand alone, as types of JSON Schema."""

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {cls.shorthand: data}
        if "number" in cls.plain and isinstance(data, (int, float)) and not isinstance(data, bool):
            return {cls.shorthand: repr(data)}
        return data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The mapping, or what may stand alone."""
        made = handler.resolve_ref_schema(handler(core_schema))
        mapping = dict(made)
        made.clear()
        made["anyOf"] = [mapping, *({"type": each} for each in cls.plain)]
        for key in ("title", "description"):
            if key in mapping:
                made[key] = mapping.pop(key)
        return made


class StatusModel(Model):
    """Part of a document that the engine writes; changed in place on a copy of its own."""

    model_config = ConfigDict(frozen=False)

    entry: ClassVar[bool] = False
    """Whether lists of this class are series: they only grow, and what is in one is never changed.
    A store keeps them beside the rest of the status and writes what is new alone."""


class Metadata(Model):
    """What identifies a resource, and what its store keeps about it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
    """Unique among the resources of its kind."""
    namespace: Annotated[
        str, Field(pattern=_NAME[:-1].replace("^", "^(") + ")?$", max_length=63)
    ] = ""
    """In a Kubernetes cluster: where it is. Elsewhere it says nothing."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Short texts to select by."""
    annotations: dict[str, str] = Field(default_factory=dict[str, str])
    """Notes of any length."""
    uid: str = ""
    """Unique for ever; set by the store."""
    resource_version: int = 0
    """Grows with every write of the store; a write with an old one is refused."""
    generation: int = 0
    """Grows with every write of the spec; set by the store."""
    creation_timestamp: float = 0.0
    """Seconds since 1970; set by the store."""


class Resource(Model):
    """A document: what it is, who it is, what is wanted (`spec`) and what is (`status`)."""

    plural: ClassVar[str]
    cluster_wide: ClassVar[bool] = False
    """Whether, in Kubernetes, it is in no namespace."""

    api_version: Literal["faultline.dev/v1alpha1"] = API_VERSION
    """The version of the format; only `faultline.dev/v1alpha1` exists."""
    kind: str
    """The kind of resource."""
    metadata: Metadata
    """Its identity."""
