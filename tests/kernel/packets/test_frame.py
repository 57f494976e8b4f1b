"""Frames as bytes: reading them, their size on the wire, damaging them."""

from __future__ import annotations

import random
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.errors import InvalidParameter
from faultline.kernel import frame
from faultline.kernel.tap import VNET_SIZE, VnetHeader
from faultline.workers.packet_match import compile_match, read_match

PLAIN = bytes(VNET_SIZE)
V4 = socket.inet_aton("10.1.2.3") + socket.inet_aton("10.9.8.7")
V6 = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2")


def ethernet(kind: int, payload: bytes, tags: int = 0) -> bytes:
    tag = struct.pack("!HH", 0x8100, 5) * tags
    return b"\x02" * 6 + b"\x04" * 6 + tag + struct.pack("!H", kind) + payload


def ipv4(protocol: int, payload: bytes, piece: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH", 0x40 | words, 0, words * 4 + len(payload), 7, piece, 64, protocol, 0
    )
    return head + V4 + options + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + V6 + payload


def total(data: bytes) -> int:
    """An independent RFC 1071 sum: word by word, carries folded at the end."""
    if len(data) % 2:
        data += b"\0"
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while words > 0xFFFF:
        words = (words & 0xFFFF) + (words >> 16)
    return words


def pseudo(version: int, protocol: int, length: int) -> bytes:
    if version == 4:
        return V4 + struct.pack("!BBH", 0, protocol, length)
    return V6 + struct.pack("!II", length, protocol)


def udp(payload: bytes, version: int = 4, *, finished: bool = True) -> bytes:
    length = 8 + len(payload)
    start = total(pseudo(version, 17, length))
    head = struct.pack("!HHHH", 1000, 2000, length, 0)
    value = 0xFFFF - total(struct.pack("!H", start) + head + payload) if finished else start
    return (
        struct.pack("!HHHH", 1000, 2000, length, (value or 0xFFFF) if finished else value) + payload
    )


def verifies(packet: bytes) -> bool:
    """Whether a receiver that computes the checksum accepts the packet."""
    found = frame.parse(packet, VNET_SIZE)
    assert found is not None
    body = packet[found.transport : found.end]
    head = pseudo(found.version, found.protocol, len(body))
    return total(head + body) == 0xFFFF


def test_a_udp_packet_of_ipv4_is_read() -> None:
    found = frame.parse(ethernet(0x0800, ipv4(17, udp(b"hello"))))
    assert found is not None
    assert (found.version, found.protocol, found.ports) == (4, 17, (1000, 2000))
    assert socket.inet_ntoa(found.source) == "10.1.2.3"
    assert socket.inet_ntoa(found.destination) == "10.9.8.7"
    assert not found.fragment


@pytest.mark.parametrize("tags", [1, 2])
def test_vlan_tags_are_skipped(tags: int) -> None:
    found = frame.parse(ethernet(0x0800, ipv4(17, udp(b"hello")), tags))
    assert found is not None
    assert found.ports == (1000, 2000)


def test_options_of_ipv4_are_skipped() -> None:
    found = frame.parse(ethernet(0x0800, ipv4(17, udp(b"hello"), options=b"\1" * 8)))
    assert found is not None
    assert found.ports == (1000, 2000)


def test_extension_headers_of_ipv6_are_skipped() -> None:
    inner = udp(b"hello", 6)
    hop, routing = bytes([43, 0]) + bytes(6), bytes([17, 1]) + bytes(14)
    found = frame.parse(ethernet(0x86DD, ipv6(0, hop + routing + inner)))
    assert found is not None
    assert (found.protocol, found.ports) == (17, (1000, 2000))


@pytest.mark.parametrize(
    ("piece", "ports"), [(0x2000, (1000, 2000)), (0x2010, None), (0x0010, None)]
)
def test_only_the_first_fragment_of_ipv4_has_ports(
    piece: int, ports: tuple[int, int] | None
) -> None:
    found = frame.parse(ethernet(0x0800, ipv4(17, udp(b"hello"), piece)))
    assert found is not None
    assert found.ports == ports
    assert found.fragment


@pytest.mark.parametrize(("offset", "ports"), [(1, (1000, 2000)), (8, None)])
def test_only_the_first_fragment_of_ipv6_has_ports(
    offset: int, ports: tuple[int, int] | None
) -> None:
    part = struct.pack("!BBHI", 17, 0, offset, 1) + udp(b"hello", 6)
    found = frame.parse(ethernet(0x86DD, ipv6(44, part)))
    assert found is not None
    assert found.ports == ports
    assert found.fragment


@given(st.binary(max_size=120), st.integers(0, 12))
def test_no_bytes_whatever_break_the_parser(data: bytes, at: int) -> None:
    frame.parse(data, at)
    frame.parse(ethernet(0x0800, data))
    frame.parse(ethernet(0x86DD, data))
    frame.parse(ethernet(0x0800, b"\x45" + data))
    frame.parse(ethernet(0x86DD, b"\x60" + data))


@given(st.binary(max_size=120), st.integers(), st.booleans())
def test_no_bytes_whatever_break_the_damage(data: bytes, seed: int, deliver: bool) -> None:
    for packet in (PLAIN + data, PLAIN + ethernet(0x0800, b"\x45" + data)):
        damaged = frame.corrupt(packet, random.Random(seed), deliver=deliver)
        assert len(damaged) == len(packet)


def test_a_large_packet_counts_the_headers_of_every_segment() -> None:
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 8 << 4, 16, 100, 0, 0) + bytes(12)
    header = VnetHeader(1, 1, 66, 1448, 34, 16).pack()
    packet = header + ethernet(0x0800, ipv4(6, tcp + bytes(1448 * 3 + 10)))
    assert frame.wire_size(packet) == 4 * (14 + 20 + 32) + 1448 * 3 + 10
    assert frame.wire_size(PLAIN + packet[VNET_SIZE:]) == len(packet) - VNET_SIZE


@pytest.mark.parametrize("version", [4, 6])
@given(payload=st.binary(max_size=80))
def test_a_checksum_left_to_the_hardware_is_finished(version: int, payload: bytes) -> None:
    inner = udp(payload, version, finished=False)
    outer = ipv4(17, inner) if version == 4 else ipv6(17, inner)
    start = 34 if version == 4 else 54
    packet = VnetHeader(1, 0, 0, 0, start, 6).pack() + ethernet(
        0x0800 if version == 4 else 0x86DD, outer
    )
    done = frame.finish_checksum(packet)
    assert done[:VNET_SIZE] == PLAIN
    assert verifies(done)
    assert done[VNET_SIZE:] == PLAIN[:0] + ethernet(
        0x0800 if version == 4 else 0x86DD,
        ipv4(17, udp(payload)) if version == 4 else ipv6(17, udp(payload, 6)),
    )


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("finished", [True, False])
@given(payload=st.binary(min_size=1, max_size=80), seed=st.integers())
def test_damage_changes_one_bit_and_the_receiver_notices(
    version: int, finished: bool, payload: bytes, seed: int
) -> None:
    inner = udp(payload, version, finished=finished)
    outer = ipv4(17, inner) if version == 4 else ipv6(17, inner)
    header = PLAIN if finished else VnetHeader(1, 0, 0, 0, 34 if version == 4 else 54, 6).pack()
    packet = header + ethernet(0x0800 if version == 4 else 0x86DD, outer)
    damaged = frame.corrupt(packet, random.Random(seed))
    whole = frame.finish_checksum(packet)
    assert sum((a ^ b).bit_count() for a, b in zip(whole, damaged, strict=True)) == 1
    assert not verifies(damaged)


@pytest.mark.parametrize("version", [4, 6])
@given(payload=st.binary(min_size=1, max_size=80), seed=st.integers())
def test_damage_to_be_delivered_fits_the_checksum(version: int, payload: bytes, seed: int) -> None:
    outer = ipv4(17, udp(payload)) if version == 4 else ipv6(17, udp(payload, 6))
    packet = PLAIN + ethernet(0x0800 if version == 4 else 0x86DD, outer)
    damaged = frame.corrupt(packet, random.Random(seed), deliver=True)
    assert damaged != packet
    assert verifies(damaged)


def matching(document: dict[str, object], packet: frame.Packet | None) -> bool:
    return compile_match(*read_match(document))(packet)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, True),
        ({"protocols": ["udp"]}, True),
        ({"protocols": ["tcp"]}, False),
        ({"protocols": ["tcp", "udp"]}, True),
        ({"protocols": ["tcp"], "exclude": True}, True),
        ({"sources": ["10.1.2.3"]}, True),
        ({"sources": ["10.1.0.0/16"]}, True),
        ({"sources": ["0.0.0.0/0"]}, True),
        ({"sources": ["fd00::/8"]}, False),
        ({"sources": ["::ffff:10.1.2.0/120"]}, True),
        ({"sources": []}, False),
        ({"sources": [], "exclude": True}, True),
        ({"sources": ["fd00::/8", "10.1.2.0/24"]}, True),
        ({"destinations": ["10.1.2.3"]}, False),
        ({"source_ports": [[999, 1000]]}, True),
        ({"destination_ports": [[1, 1999], [2001, 65535]]}, False),
        ({"destination_ports": [[2000, 2000]], "sources": ["10.1.2.3"]}, True),
        ({"destination_ports": [[2000, 2000]], "exclude": True}, False),
    ],
)
def test_matching(document: dict[str, object], expected: bool) -> None:
    found = frame.parse(ethernet(0x0800, ipv4(17, udp(b"hello"))))
    assert matching(document, found) is expected


@pytest.mark.parametrize(
    ("remote", "remote_port", "local_port", "expected"),
    [
        ("10.9.8.7", 2, 1, False),
        ("10.9.8.7", 0, 1, False),
        ("10.9.8.7", 2, 0, False),
        ("10.9.8.7", 1, 2, True),
        ("10.1.2.3", 2, 1, True),
    ],
)
def test_an_exempt_connection_never_matches(
    remote: str, remote_port: int, local_port: int, expected: bool
) -> None:
    one = {"remote": remote, "remote_port": remote_port, "local_port": local_port}
    tcp = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 5 << 4, 16, 100, 0, 0)
    found = frame.parse(ethernet(0x0800, ipv4(6, tcp)))
    assert matching({"exempt": [one]}, found) is expected


def test_a_later_fragment_has_no_ports_to_match() -> None:
    found = frame.parse(ethernet(0x0800, ipv4(17, udp(b"hello"), 0x0010)))
    assert not matching({"destination_ports": [[2000, 2000]]}, found)
    assert matching({"destinations": ["10.9.8.7"]}, found)


@pytest.mark.parametrize("document", [{}, {"protocols": ["udp"], "exclude": True}])
def test_what_is_not_ip_and_neighbour_discovery_never_match(document: dict[str, object]) -> None:
    assert not matching(document, frame.parse(ethernet(0x0806, bytes(28))))
    assert not matching(document, frame.parse(ethernet(0x86DD, ipv6(58, bytes([135]) + bytes(23)))))
    assert matching(document, frame.parse(ethernet(0x86DD, ipv6(58, bytes([128]) + bytes(23)))))


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"protocols": ["gre"]}, "match"),
        ({"sources": ["example.org"]}, "match"),
        ({"sources": ["10.0.0.0/33"]}, "match"),
        ({"destinations": ["fd00::/x"]}, "match"),
        ({"source_ports": [[5, 4]]}, "match"),
        ({"exempt": [{"port": 4}]}, "match"),
        ({"port": 5}, "match.port"),
    ],
)
def test_a_wrong_match_is_refused_with_the_name_of_the_field(
    document: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_match(document)
    assert caught.value.field == field
