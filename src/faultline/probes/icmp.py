"""The icmp probe: an echo request of our own making (RFC 792, RFC 4443).

A ping socket needs no privilege where `net.ipv4.ping_group_range` allows it (icmp(7)); else a raw
socket is used, which needs CAP_NET_RAW. The answer is known by 16 random bytes that it must repeat.
"""

from __future__ import annotations

import os
import socket
import struct
from time import monotonic

from faultline.api.probe import IcmpProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import reason, resolve

_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_UNREACHABLE = {socket.AF_INET: 3, socket.AF_INET6: 1}
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number


class Prober(prober.Prober[IcmpProbe]):
    """Its value is the time until the answer."""

    def look(self, limit: Limit) -> Measurement:
        family, address = resolve(self.spec.host, limit)[0]
        with _socket(family) as wire:
            seconds = _echo(wire, family, address, limit)
        return Measurement(
            value=seconds,
            ok=True,
            latency=seconds,
            text=f"answer from {address}",
            result={"address": address},
        )


def _socket(family: socket.AddressFamily) -> socket.socket:
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        pass  # not in ping_group_range: the raw socket needs a privilege instead
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol)
    except PermissionError as error:
        raise ObserveFailed(
            "no ICMP socket: neither net.ipv4.ping_group_range nor CAP_NET_RAW allows one",
            hint="sysctl net.ipv4.ping_group_range='0 2147483647'",
        ) from error


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _echo(wire: socket.socket, family: socket.AddressFamily, address: str, limit: Limit) -> float:
    token = os.urandom(16)
    identifier = int.from_bytes(token[:2], "big")
    bare = _HEADER.pack(_REQUEST[family], 0, 0, identifier, 1) + token
    # The kernel fills in the checksum of ICMPv6 and of ping sockets; doing it anyway is harmless.
    packet = _HEADER.pack(_REQUEST[family], 0, _checksum(bare), identifier, 1) + token
    begun = monotonic()
    try:
        wire.sendto(packet, (address, 0))
        while True:
            wire.settimeout(limit.left())
            data, _ = wire.recvfrom(2048)
            if _answers(wire, family, data, token):
                return monotonic() - begun
    except TimeoutError as error:
        raise limit.late(f"{address}: no answer") from error
    except OSError as error:
        raise NoAnswer(f"{address}: {reason(error)}") from error


def _answers(wire: socket.socket, family: socket.AddressFamily, data: bytes, token: bytes) -> bool:
    """Whether a packet is our answer; raises NoAnswer if it says that there will be none."""
    if wire.type == socket.SOCK_RAW and family == socket.AF_INET:
        data = data[(data[0] & 0x0F) * 4 :]  # a raw socket of IPv4 shows the IP header
    if len(data) < _HEADER.size or token not in data:
        # Errors quote only the first bytes of what they are about: the token may be missing.
        return False
    if data[0] == _UNREACHABLE[family]:
        raise NoAnswer(f"destination unreachable (code {data[1]})")
    return data[0] == _REPLY[family] and data[_HEADER.size :] == token
