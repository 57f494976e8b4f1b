"""Measuring a packet fault where no eBPF counts: probes over loopback, read where they arrive
again.

The worker sends what it has held back to the loopback device, where a packet socket sees every copy
before the network stack does. A probe matches the fault, is told by its headers, and carries a
number; so copies are counted, damage is seen byte by byte, and each one is timed. Its checksum is
wrong and its hop limit 1: no program ever gets it.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from dataclasses import dataclass, field

from faultline.changes.classifier import match_from
from faultline.changes.model import Record, Step
from faultline.errors import ObserveFailed
from faultline.kernel import probing
from faultline.kernel.match import Exempt
from faultline.kernel.predicate import Headers, example
from faultline.kernel.tc import Direction

METHOD = "probes over loopback, counted, compared and timed where they arrive; no program gets them"
LOOPBACK = "lo"
_MARK = 0x464C4C4F
_FILL = 32
_NUMBERED = 16  # bytes at the end of a probe: trailer, mark, number
_ETH_P_ALL = 0x0003
_SOL_PACKET, _IGNORE_OUTGOING = 263, 23
_ATTACH_FILTER = 26
_BUFFER = 4 << 20
_QUIET = 0.25  # seconds without an arrival after which no more is expected


@dataclass(slots=True)
class Returned:
    """What became of probes: by number, when each was sent and when its copies arrived (ns)."""

    sent: dict[int, int] = field(default_factory=dict[int, int])
    arrived: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    damaged: int = 0
    size: int = 0  # bytes of a probe on the device, ethernet header included

    @property
    def delays(self) -> list[int]:
        """The time on the way of each first copy."""
        return [copies[0] - self.sent[number] for number, copies in self.arrived.items()]


def redirection(record: Record) -> Step:
    """The step that leads packets to the worker; raises ObserveFailed without."""
    for step in record.steps:
        if step.change.kind == "redirect":
            return step
    raise ObserveFailed("nothing of this fault leads packets anywhere")


def send(
    record: Record, count: int, *, gap: float = 0.0, wait: float = 0.5, fill: int = _FILL
) -> Returned:
    """Send so many probes, `gap` seconds apart, and wait up to `wait` for those on their way.

    Raises ObserveFailed where the device is not loopback or no packet can match, OSError.
    """
    spec = redirection(record).change.spec
    if spec["device"] != LOOPBACK:
        raise ObserveFailed(
            f"without eBPF probes could leave the host by {spec['device']}: none are sent"
        )
    exempt = tuple(Exempt(**each) for each in spec.get("exempt", ()))
    headers = example(match_from(spec["match"]), Direction.EGRESS, exempt)
    if headers is None:
        raise ObserveFailed("no packet can match: the addresses, ports and exclusions leave none")
    probes = [_frame(headers, number, fill) for number in range(count)]
    with listener(LOOPBACK, len(probes[0])) as ear, probing.packet_socket() as mouth:
        return _exchange(ear, mouth, headers, probes, gap, wait)


def _frame(headers: Headers, number: int, fill: int) -> bytes:
    plain = probing.frame(headers, _header(headers), _MARK, number, fill)
    if headers.protocol != 17:
        return plain  # its checksum of zero is wrong already
    at = 14 + (20 if headers.version == 4 else 40) + 6
    return plain[:at] + b"\xde\xad" + plain[at + 2 :]  # zero would mean: not computed


def _header(headers: Headers) -> bytes:
    return bytes(12) + struct.pack(">H", 0x0800 if headers.version == 4 else 0x86DD)


def listener(device: str, size: int) -> socket.socket:
    """A packet socket for what arrives by a device with exactly this size in bytes."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    made = socket.socket(socket.AF_PACKET, kind, 0)
    made.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    # Load the length; jump on to `accept` if it is ours; else reject (linux/filter.h).
    code = ((0x80, 0, 0, 0), (0x15, 0, 1, size), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0))
    program = b"".join(struct.pack("=HBBI", *one) for one in code)
    _attach(made, program, len(code))
    made.bind((device, _ETH_P_ALL))
    return made


def _attach(listener: socket.socket, program: bytes, length: int) -> None:
    import ctypes

    memory = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", length, ctypes.addressof(memory))
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)


def _exchange(
    ear: socket.socket,
    mouth: socket.socket,
    headers: Headers,
    probes: list[bytes],
    gap: float,
    wait: float,
) -> Returned:
    found = Returned(size=len(probes[0]))
    numbers = {probe: number for number, probe in enumerate(probes)}
    address = (LOOPBACK, 0x0800 if headers.version == 4 else 0x86DD)
    due = time.monotonic()
    for number, probe in enumerate(probes):
        found.sent[number] = time.monotonic_ns()
        mouth.sendto(probe, address)
        due += gap
        _hear(ear, found, numbers, max(0.0, due - time.monotonic()))
    until = time.monotonic() + wait
    while (left := until - time.monotonic()) > 0 and len(found.arrived) < len(probes):
        _hear(ear, found, numbers, left)
    while _hear(ear, found, numbers, _QUIET, once=True):
        continue
    return found


def _hear(
    ear: socket.socket,
    found: Returned,
    numbers: dict[bytes, int],
    seconds: float,
    *,
    once: bool = False,
) -> bool:
    """Take in what arrives for so many seconds; with `once` only until something did."""
    until = time.monotonic() + seconds
    heard = False
    head = next(iter(numbers))[:-_NUMBERED]
    while True:
        ready = select.select((ear,), (), (), max(0.0, until - time.monotonic()))[0]
        if not ready:
            return heard
        data, now = ear.recv(65536), time.monotonic_ns()
        number = numbers.get(data)
        if number is not None:
            found.arrived.setdefault(number, []).append(now)
            heard = True
        elif _like(data, head):
            found.damaged += 1
            heard = True
        if once and heard:
            return True


def _like(data: bytes, head: bytes) -> bool:
    """Whether it is a probe with damage behind its headers; the filter has looked at its size."""
    network = 20 if head[12:14] == b"\x08\x00" else 40
    return data[14 : 14 + network + 4] == head[14 : 14 + network + 4]
