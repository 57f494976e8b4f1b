"""The halt of a cluster: while one exists, everything is undone and nothing begins."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from faultline.api.condition import Condition
from faultline.api.model import Model, Resource, StatusModel


class HaltSpec(Model):
    """Why everything stops."""

    reason: str = ""
    """Why; people who are refused are told."""
    by: str = ""
    """Who wanted it."""


class HaltStatus(StatusModel):
    """How far it has come."""

    since: float | None = None
    """When it was first seen, seconds since 1970."""
    undone: float | None = None
    """When nothing was left anywhere."""
    left: int = 0
    """How many faults are not undone yet."""
    conditions: list[Condition] = Field(default_factory=list[Condition])
    """`Complete`: nothing is left."""


class Halt(Resource):
    """Everything stops until it is deleted: `kubectl delete halt NAME` lifts it."""

    plural: ClassVar[str] = "halts"
    cluster_wide: ClassVar[bool] = True

    kind: Literal["Halt"] = "Halt"  # pyright: ignore[reportIncompatibleVariableOverride]
    spec: HaltSpec = Field(default_factory=HaltSpec)
    """Why."""
    status: HaltStatus = Field(default_factory=HaltStatus)
    """How far it has come."""
