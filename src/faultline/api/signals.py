"""What people and on-call tools report to a run: that they noticed, that they know why, that it is
mended.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from faultline.api.model import Model, NodeName

MOST = 1000
"""Signals that one run keeps."""


class Signal(Model):
    """One report. It counts from `at`; a probe of type webhook holds from then on."""

    name: NodeName
    """What is reported: `found`, `located`, `fixed`, or any other name that a probe waits for."""
    at: float
    """When it was so, seconds since 1970."""
    who: Annotated[str, Field(max_length=200)] = ""
    """Who reports it."""
    text: Annotated[str, Field(max_length=2000)] = ""
    """What they say."""
    id: Annotated[str, Field(max_length=200)] = ""
    """The number that the sender gave it: a second one with it is the same, delivered twice."""
