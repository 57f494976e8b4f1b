"""A pair of devices as a TAP where no TAP may be opened: packets in the hands of a process of ours.

`/dev/net/tun` is closed to ordinary users on many machines; veth pairs and packet sockets are not
closed to the root of a user namespace. What a filter redirects to the near end arrives at the far
end, where a packet socket reads it from a ring in shared memory, virtio header and all, so that a
64 KiB packet stays one packet. The far end lies in a network namespace that holds nothing else: no
address, no route, no program listens there, so nothing but the socket has the packets. The
namespace lives as long as this process, and the pair goes with it, as a TAP does.

Sources: packet(7), Documentation/networking/packet_mmap.rst, veth(4), linux/if_packet.h.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
from types import TracebackType
from typing import Final, Self

from faultline.kernel import link, netns
from faultline.kernel.netlink import Netlink
from faultline.kernel.tap import VNET_SIZE, Offload, VnetFlag

MTU: Final = 65535
_SMALL: Final = 1900  # bytes of a frame; what is larger goes to a ring of its own
_ROOMS: Final = ((2048, 4096), (17 * 4096, 512))  # bytes and number of places, small and large

# linux/if_packet.h
_SOL_PACKET: Final = 263
_ETH_P_ALL: Final = 0x0003
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_VNET_HDR: Final = 15
_PACKET_QDISC_BYPASS: Final = 20
_PACKET_IGNORE_OUTGOING: Final = 23
_TPACKET_V2: Final = 1
_TP_STATUS_USER: Final = 1
_TP_STATUS_VLAN_VALID: Final = 1 << 4
_TP_STATUS_VLAN_TPID_VALID: Final = 1 << 6
_HEADER: Final = struct.Struct("=IIIHHIIHH")  # struct tpacket2_hdr
_STATUS: Final = struct.Struct("=I")
_ATTACH_FILTER: Final = 26
_TAG_AT: Final = VNET_SIZE + 12
_DOT1Q: Final = 0x8100


class _Ring:
    """A packet socket on the far end and the memory in which the kernel leaves packets for us."""

    def __init__(self, namespace: int, device: str, *, large: bool) -> None:
        self._frame, self._frames = _ROOMS[large]
        self._next = 0
        self._lost = 0
        self.socket = _socket(namespace, device, large=large)
        self._ring = mmap.mmap(self.socket.fileno(), self._frame * self._frames)

    def waiting(self) -> int:
        """When the next packet came, nanoseconds; 0 when there is none."""
        status, _, _, _, _, second, nanosecond, _, _ = _HEADER.unpack_from(
            self._ring, self._next * self._frame
        )
        return (second * 1_000_000_000 + nanosecond) if status & _TP_STATUS_USER else 0

    def take(self) -> bytes:
        """The packet that waits; its place is free then."""
        ring, start = self._ring, self._next * self._frame
        status, _, length, begin, _, _, _, tag, kind = _HEADER.unpack_from(ring, start)
        first = start + begin - VNET_SIZE
        packet = ring[first : first + VNET_SIZE + length]
        _STATUS.pack_into(ring, start, 0)
        self._next = (self._next + 1) % self._frames
        if status & _TP_STATUS_VLAN_VALID:
            known = status & _TP_STATUS_VLAN_TPID_VALID
            return _tagged(packet, kind if known else _DOT1Q, tag)
        return packet

    def lost(self) -> int:
        raw = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._lost += struct.unpack("=II", raw)[1]  # reading sets the kernel's counter to 0
        return self._lost

    def close(self) -> None:
        self._ring.close()
        self.socket.close()


class Capture:
    """The near end by its name, and its packets: bytes of a virtio header and an ethernet frame."""

    def __init__(self, name: str, namespace: int) -> None:
        self.name = name
        self.ifindex = socket.if_nametoindex(name)
        self._namespace = namespace
        far = peer_name(name)
        self._small = _Ring(namespace, far, large=False)
        self._large = _Ring(namespace, far, large=True)
        self._poll = select.epoll()
        for ring in (self._small, self._large):
            self._poll.register(ring.socket, select.EPOLLIN)

    @classmethod
    def open(cls, name: str, offload: Offload = Offload.ALL, mark: str = "") -> Self:
        """Make the pair in the network namespace of this thread; the near end is called `name`.

        Both ends are up and silent. `offload` as of a TAP: without segmentation every packet comes
        by itself. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN in the user namespace; OSError says what
        was refused.
        """
        namespace = netns.create()
        try:
            with Netlink.open() as nl:
                _pair(nl, name, mark, namespace, whole=bool(offload & Offload.TSO4))
                try:
                    capture = cls(name, namespace)
                    link.set_up(nl, name)
                except BaseException:
                    link.delete(nl, name)
                    raise
        except BaseException:
            os.close(namespace)
            raise
        return capture

    def fileno(self) -> int:
        """A descriptor that is readable when a packet is there."""
        return self._poll.fileno()

    def read(self) -> bytes | None:
        """The next packet, None when there is none now."""
        small, large = self._small.waiting(), self._large.waiting()
        if not small and not large:
            return None
        first = self._large if not small or 0 < large < small else self._small
        return first.take()

    def write(self, packet: bytes) -> None:
        """Let the near end receive the packet; OSError when the kernel does not take it."""
        self._small.socket.send(packet)

    def lost(self) -> int:
        """Packets that the kernel dropped so far, because a ring was full."""
        return self._small.lost() + self._large.lost()

    def close(self) -> None:
        """Delete the pair and the packets in it."""
        if self._poll.closed:
            return
        self._poll.close()
        self._small.close()
        self._large.close()
        os.close(self._namespace)
        # The namespace is taken down by the kernel at its leisure; the devices go now.
        with Netlink.open() as nl:
            link.delete(nl, self.ifindex)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def peer_name(name: str) -> str:
    """The name of the far end in the namespace of its own."""
    return f"{name[:14]}p"


def _carries_udp_segments() -> bool:
    """Whether the virtio header can tell of a UDP packet that stands for several (Linux 6.2)."""
    version = os.uname().release.split(".", 2)
    return (int(version[0]), int(version[1].partition("-")[0])) >= (6, 2)


def _pair(nl: Netlink, name: str, mark: str, namespace: int, *, whole: bool) -> None:
    """Both ends, the far one moved and set up; nothing is left behind when that fails."""
    link.add_veth(nl, (name, peer_name(name)), mark, mtu=MTU)
    try:
        if not whole or not _carries_udp_segments():
            link.set_gso_max_segments(nl, name, 1)
        link.move(nl, peer_name(name), namespace)
        with netns.entered(namespace), Netlink.open() as there:
            link.set_no_addresses(there, peer_name(name))  # a move makes the kernel forget it
            link.set_up(there, peer_name(name))
    except BaseException:
        link.delete(nl, name)
        raise


def _socket(namespace: int, device: str, *, large: bool) -> socket.socket:
    """A socket that reads what arrives at the device, of one of both sizes, through a ring."""
    frame, frames = _ROOMS[large]
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with netns.entered(namespace):
        made = socket.socket(socket.AF_PACKET, kind, 0)
    try:
        for option, value in (
            (_PACKET_VERSION, _TPACKET_V2),
            (_PACKET_VNET_HDR, 1),
            (_PACKET_QDISC_BYPASS, 1),
            (_PACKET_IGNORE_OUTGOING, 1),
        ):
            made.setsockopt(_SOL_PACKET, option, value)
        _choose(made, large=large)
        block = max(frame, 1 << 16) // frame * frame
        request = struct.pack("=4I", block, frame * frames // block, frame, frames)
        made.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        made.bind((device, _ETH_P_ALL))
    except BaseException:
        made.close()
        raise
    return made


def _choose(receiver: socket.socket, *, large: bool) -> None:
    """Let only large or only small packets in, by a filter of four lines (linux/filter.h)."""
    whole = (0x06, 0, 0, 0x40000)
    nothing = (0x06, 0, 0, 0)
    code = (
        (0x80, 0, 0, 0),  # load the length
        (0x25, 0, 1, _SMALL),  # greater: the next line, else the one after it
        whole if large else nothing,
        nothing if large else whole,
    )
    program = b"".join(struct.pack("=HBBI", *line) for line in code)
    memory = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(code), ctypes.addressof(memory))
    receiver.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)


def _tagged(packet: bytes, kind: int, tag: int) -> bytes:
    """Put a VLAN tag back that the kernel keeps beside the packet."""
    head = bytearray(packet[:_TAG_AT])
    if head[0] & VnetFlag.NEEDS_CHECKSUM:
        start = struct.unpack_from("=H", head, 6)[0]
        struct.pack_into("=H", head, 6, start + 4)
    return bytes(head) + struct.pack("!HH", kind, tag) + packet[_TAG_AT:]
