"""Conditions: what is true of a resource, and since when, as Kubernetes has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from faultline.api.model import StatusModel


class Condition(StatusModel):
    """One observation about a resource.

    https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties
    """

    type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=60)]
    """What is observed, in one word: `Effective`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=60)]
    """Why, in one word for programs."""
    message: str = ""
    """Why, in one sentence for people."""
    last_transition_time: str = ""
    """Since when, RFC 3339 in UTC."""
    observed_generation: int = 0
    """The generation of the spec that was looked at."""
