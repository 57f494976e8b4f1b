"""TAP devices: packets of the kernel in the hands of a process of ours, and back.

A filter redirects packets to the device and a worker reads them; what the worker writes arrives as
if it had been received on the device, where another filter sends it on. The device lives exactly as
long as the descriptor. Every packet carries the virtio header of its offloads, so that one 64 KiB
packet stays one packet and checksums that the kernel has not filled in stay unfilled.

Sources: Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h and virtio_net.h,
netdevice(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from enum import IntFlag
from types import TracebackType
from typing import Final, NamedTuple, Self

from faultline.errors import Unsupported
from faultline.kernel import link, netlink
from faultline.kernel.netlink import Netlink

DEVICE: Final = "/dev/net/tun"
MAX_MTU: Final = 65521  # ETH_MAX_MTU (65535) less the ethernet header
QUEUE: Final = 4096  # packets that wait in the kernel while the reader is busy
_READ: Final = 10 + 14 + 65536 + 64  # the largest packet of the loopback device, and room

# ioctl(2) requests of if_tun.h
_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETSNDBUF: Final = 0x400454D4
_TUNSETVNETHDRSZ: Final = 0x400454D8
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
# constants of rtnetlink(7)
_RTM_NEWLINK: Final = 16
_IFLA_MTU: Final = 4
_IFLA_TXQLEN: Final = 13
_IFLA_AF_SPEC: Final = 26
_ADDR_GEN_MODE: Final = 8
_ADDR_GEN_NONE: Final = 1
_IFF_NOARP: Final = 0x80


class Offload(IntFlag):
    """What the reader takes undone (TUNSETOFFLOAD): checksums, and packets larger than the MTU."""

    NONE = 0
    CHECKSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    TSO_ECN = 0x08
    USO4 = 0x20
    USO6 = 0x40
    TCP = CHECKSUM | TSO4 | TSO6 | TSO_ECN
    ALL = TCP | USO4 | USO6


class VnetFlag(IntFlag):
    """Flags of the virtio header."""

    NONE = 0
    NEEDS_CHECKSUM = (
        1  # the field holds the pseudo header's sum alone; somebody has yet to finish it
    )
    DATA_VALID = 2  # the checksum has been verified; nobody needs to look


class VnetHeader(NamedTuple):
    """The ten bytes before every packet (struct virtio_net_hdr); offsets are into the frame."""

    flags: int
    gso_type: int  # 0: an ordinary packet; 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 with ECN
    header_length: int  # a hint only: the length of the linear part
    segment_size: int  # payload bytes of each packet that this one stands for
    checksum_start: int
    checksum_offset: int

    @classmethod
    def parse(cls, packet: bytes) -> Self:
        """Read the header; struct.error when the packet is shorter than ten bytes."""
        return cls(*_VNET.unpack_from(packet))

    def pack(self) -> bytes:
        return _VNET.pack(*self)


_VNET: Final = struct.Struct("=BBHHHH")
VNET_SIZE: Final = _VNET.size


class Tap:
    """An open TAP device; its packets are bytes: the virtio header, then the ethernet frame."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self.ifindex = socket.if_nametoindex(name)

    @classmethod
    def open(cls, name: str, offload: Offload = Offload.ALL, queue: int = QUEUE) -> Self:
        """Create the device in the network namespace of this thread, up and silent.

        It holds no address and sends nothing of its own. `queue` is the number of packets that the
        kernel keeps for the reader (the device's transmit queue length). Raises Unsupported where
        there is no TUN driver or the process may not use it, OSError (EBUSY) when the name is
        taken.
        """
        try:
            fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Unsupported(
                f"{DEVICE} cannot be opened: {error.strerror}",
                hint="load the module tun, or let this user read and write the device",
            ) from error
        try:
            request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
            _ioctl(fd, _TUNSETIFF, request, name)
            _ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_SIZE), name)
            tap = cls(name, fd)
            tap.set_offload(offload)
            _configure(tap, queue)
        except BaseException:
            os.close(fd)
            raise
        return tap

    def set_offload(self, offload: Offload) -> Offload:
        """Say what the reader takes undone; UDP segmentation is left out before Linux 6.2."""
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, int(offload))
        except OSError as error:
            if error.errno != errno.EINVAL or not offload & (Offload.USO4 | Offload.USO6):
                raise OSError(error.errno, "TUNSETOFFLOAD", self.name) from error
            offload &= Offload.TCP
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, int(offload))
        return offload

    def set_send_buffer(self, size: int) -> None:
        """Bytes written that may be on their way through the kernel before a write says EAGAIN."""
        _ioctl(self.fd, _TUNSETSNDBUF, struct.pack("i", size), self.name)

    def fileno(self) -> int:
        return self.fd

    def read(self) -> bytes | None:
        """The next packet, None when there is none now."""
        try:
            return os.read(self.fd, _READ)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> None:
        """Let the device receive the packet; OSError when the kernel does not take it."""
        os.write(self.fd, packet)

    def lost(self) -> int:
        """0: what a full queue drops is counted by the device, where anybody can read it."""
        return 0

    def close(self) -> None:
        """Close the descriptor; the device, its filters and the packets in it go with it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _configure(tap: Tap, queue: int) -> None:
    """Up and silent: no ARP, no IPv6 address that would announce itself. By netlink, because the
    ioctl for the queue length asks for a right outside of user namespaces.
    """
    quiet = netlink.nested(socket.AF_INET6, netlink.u8(_ADDR_GEN_MODE, _ADDR_GEN_NONE))
    up = link.IFF_UP | _IFF_NOARP
    with Netlink.open() as nl:
        # One after the other: in one message the kernel would set the device up first.
        for flags, settings in (
            (0, netlink.u32(_IFLA_MTU, MAX_MTU) + netlink.u32(_IFLA_TXQLEN, queue)),
            (0, netlink.nested(_IFLA_AF_SPEC, quiet)),
            (up, b""),
        ):
            head = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, tap.ifindex, flags, flags)
            try:
                nl.request(_RTM_NEWLINK, head + settings, what=f"set up the device {tap.name}")
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6 has nothing to say
                    raise


def _ioctl(fd: int, request: int, argument: bytes, name: str) -> None:
    try:
        fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise OSError(error.errno, f"ioctl {request:#x}: {error.strerror}", name) from error
