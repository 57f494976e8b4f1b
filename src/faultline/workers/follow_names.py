"""Keeps a filter's addresses those that host names have now: maps are updated, never rules.

Looks names up in the namespaces that it was started in. While the look-up itself fails (a partition
may cut DNS too) the addresses stay as they were.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from faultline.kernel import classifier
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """spec: {device, ifindex, direction, step, names: {side: [...]}, fixed: {side: [...]},
    interval, mark}.
    """
    uid = spec["mark"].split(":")[1]
    ready({})
    with Netlink.open() as nl:
        while True:
            direction = Direction(spec["direction"])
            attached = classifier.find(nl, spec["ifindex"], direction, uid, str(spec["step"]))
            if attached is None:
                return 0  # the filter has gone, and we with it
            sides = {side: resolve(spec, side) for side in spec["names"]}
            known = {side: found for side, found in sides.items() if found is not None}
            classifier.follow(
                attached, sources=known.get("sources"), destinations=known.get("destinations")
            )
            time.sleep(spec["interval"])


def resolve(spec: dict[str, Any], side: str) -> tuple[str, ...] | None:
    """All addresses of one side, or None while a name cannot be looked up."""
    found = set(spec["fixed"][side])
    for name in spec["names"][side]:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except socket.gaierror:
            return None
        found |= {str(answer[4][0]).partition("%")[0] for answer in answers}
    return tuple(sorted(found))
