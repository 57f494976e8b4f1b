"""A place by identity, not by name.

Inode numbers of namespaces are reused at once, so a network namespace is known by its cookie
(SO_NETNS_COOKIE) and a process by its pid together with its start time.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from faultline.kernel import userns
from faultline.kernel.clock import boot_id
from faultline.kernel.netlink import Netlink


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault acts. `kind` is 'host' today; its identity decides `target gone`."""

    kind: str
    boot_id: str
    netns_cookie: int
    user: int
    user_namespace: int = 0  # its number; 0 in records of a version that did not write it

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Place:
        return cls(**data)


def host() -> Place:
    """This host, in the network namespace of the caller."""
    with Netlink.open() as netlink:
        return Place("host", boot_id(), netlink.cookie(), os.geteuid(), userns.current())
