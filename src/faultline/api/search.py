"""Searching the largest value of a fault's parameter that is still borne."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from faultline.api.model import Model, NodeName, StatusModel


class SearchSpec(Model):
    """Where and how to search."""

    parameter: str
    """The parameter of the fault."""
    low: str | int | float
    """The smallest value."""
    high: str | int | float
    """The largest value."""
    probes: Annotated[list[NodeName], Field(min_length=1)]
    """Names of the probes that must hold."""

    def params_with(self, params: dict[str, Any], value: str | float) -> dict[str, Any]:
        """The parameters of the fault with this value of the one that is searched."""
        return {**params, self.parameter.removeprefix("params."): value}


class SearchState(StatusModel):
    """What has been tried and found."""
