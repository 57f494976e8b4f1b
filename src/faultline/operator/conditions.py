"""Conditions of a status: what is true, and since when."""

from __future__ import annotations

import time
from typing import Literal, cast

from faultline.api.condition import Condition
from faultline.api.fault import FaultResourceStatus


def put(found: list[Condition], name: str, state: str, reason: str, text: str, now: float) -> None:
    """Say that it is so; the time changes with the state alone."""
    status = cast('Literal["True", "False", "Unknown"]', state)
    for each in found:
        if each.type == name:
            if each.status != status:
                each.last_transition_time = stamp(now)
            each.status, each.reason, each.message = status, reason, text
            return
    found.append(
        Condition(type=name, status=status, reason=reason, message=text,
                  last_transition_time=stamp(now))
    )  # fmt: skip


def copied(status: FaultResourceStatus) -> FaultResourceStatus:
    """A status to be changed: what is replaced as a whole is not copied."""
    return status.model_copy(update={"conditions": [c.model_copy() for c in status.conditions]})


def holds(found: list[Condition], name: str) -> bool:
    """Whether it is true."""
    return any(each.type == name and each.status == "True" for each in found)


def stamp(at: float) -> str:
    """RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
