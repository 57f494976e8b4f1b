"""Hold a port, so that the program that needs it cannot bind it.

A TCP port is listened on and connections are never accepted: clients connect and hear nothing until
the small backlog is full, then wait. A UDP port swallows what arrives.

Order (spec), beside `deadline` and `stats`: `port`; `transport`: "tcp" or "udp"; `families`: of 4
and 6 (default both where the host has IPv6); `address` to bind instead of all (one family then).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from faultline.errors import Conflict, InvalidParameter
from faultline.kernel import procnet
from faultline.workers.figures import Figures
from faultline.workers.lifetime import Lifetime

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def _bind(transport: str, family: int, address: str, port: int) -> socket.socket:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(_FAMILIES[family], kind)
    try:
        if family == 6:  # the IPv4 half is a socket of its own
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transport == "tcp":
            # Connections of the last owner in TIME_WAIT do not count; a listener still does.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the kernel's minimum
        made.bind((address, port))
        if transport == "tcp":
            made.listen(1)
    except OSError:
        made.close()
        raise
    return made


def _holders(port: int, transport: str) -> str:
    found = procnet.find_by_port(port, procnet.Transport(transport))
    return ", ".join(f"{each.name} (pid {each.pid})" for each in found) or "nobody that we can see"


def hold(spec: dict[str, Any]) -> list[socket.socket]:
    """Bind what the order says; Conflict when somebody has it, with nothing left bound."""
    port, transport = int(spec["port"]), str(spec["transport"])
    if not 1 <= port <= 65535:
        raise InvalidParameter("port", port, "1 to 65535")
    if transport not in ("tcp", "udp"):
        raise InvalidParameter("transport", transport, "tcp or udp")
    address = str(spec.get("address") or "")
    given = [int(family) for family in spec.get("families") or ()]
    families = given or ([6 if ":" in address else 4] if address else [4, 6])
    bound: list[socket.socket] = []
    try:
        for family in families:
            try:
                bound.append(_bind(transport, family, address, port))
            except OSError as error:
                absent = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                if absent and not given and not address and bound:
                    continue  # a host without IPv6
                if error.errno != errno.EADDRINUSE:
                    raise
                raise Conflict(
                    f"{transport} port {port} is held by {_holders(port, transport)}",
                    holder="",
                    hint="end that program first, for example with the fault process.kill",
                ) from error
    except (OSError, Conflict):
        for each in bound:
            each.close()
        raise
    return bound


def _hold_soon(spec: dict[str, Any]) -> list[socket.socket]:
    """The same, tried for `patience` seconds: the last holder may be on its way out."""
    until = time.monotonic() + float(spec.get("patience", 0.0))
    while True:
        try:
            return hold(spec)
        except Conflict:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Hold the port until the deadline or SIGTERM."""
    lifetime = Lifetime(spec["deadline"])
    figures = Figures(spec.get("stats", ""))
    bound = _hold_soon(spec)
    inodes = [os.fstat(each.fileno()).st_ino for each in bound]
    now = {"port": int(spec["port"]), "transport": spec["transport"], "sockets": inodes}
    figures.publish(now)
    ready(now)
    while not lifetime.wait(3600):
        continue
    for each in bound:
        each.close()
    return 0
