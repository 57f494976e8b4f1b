"""Pressure stall information: how long tasks have waited for a resource (accounting/psi)."""

from __future__ import annotations


def stalled(text: str) -> int:
    """Nanoseconds in which some task waited, since boot or since the group was made.

    `text` is /proc/pressure/RESOURCE or RESOURCE.pressure of a control group; -1 if it tells
    nothing.
    """
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "some":
            _, found, total = rest.partition("total=")
            return int(total) * 1000 if found else -1
    return -1
