"""The table of tracked connections of one network namespace: counted, filled, emptied of ours.

The limit is one for the whole host, the count is of each namespace. An entry made through netlink
is counted and refused by the same code as a packet's, so it tells what a new connection would meet.
Source: net/netfilter/nf_conntrack_core.c, linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from faultline.errors import Unsupported
from faultline.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    SOL_NETLINK,
    Netlink,
    attribute,
    nested,
    walk,
)  # fmt: skip

ENTRY: Final = 320  # bytes of kernel memory that one takes, about
_FOLDER: Final = Path("/proc/sys/net/netfilter")
_PROTOCOL: Final = 12  # NETLINK_NETFILTER
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # IPCTNL_MSG_CT_*, of NFNL_SUBSYS_CTNETLINK
_ORIGINAL, _REPLY, _STATUS, _TIMEOUT, _MARK, _MARK_MASK = 1, 2, 3, 7, 8, 21  # CTA_*
_NO_ENOBUFS: Final = 5
_SETTLED: Final = 0x2 | 0x4 | 0x8  # answered, assured (never given up for a newcomer), confirmed
_EXPERIMENTAL: Final = 253  # a protocol number that nobody speaks (RFC 3692)
_HOSTS: Final = 1 << 17  # in 198.18.0.0/15, which is for measurements (RFC 2544)
_FIRST: Final = 0xC6120000
_DOCUMENTED: Final = 0xCB007100  # 203.0.113.0/24 (RFC 5737)
_BATCH: Final = 256  # entries of one message to the kernel
_PROBE: Final = _HOSTS * 255  # the entry that is tried and taken away again


def _number(name: str) -> int:
    try:
        return int((_FOLDER / name).read_text())
    except FileNotFoundError:
        raise Unsupported("this kernel tracks no connections (no nf_conntrack)") from None


def limit() -> int:
    """How many entries a table may have; 0 for any number."""
    return _number("nf_conntrack_max")


def count() -> int:
    """How many entries the table of the calling thread's network has."""
    return _number("nf_conntrack_count")


def _tuple(kind: int, source: bytes, target: bytes) -> bytes:
    addresses = nested(1, attribute(1, source), attribute(2, target))
    return nested(kind, addresses, nested(2, attribute(1, bytes((_EXPERIMENTAL,)))))


def _tuples(number: int) -> tuple[bytes, bytes]:
    block, host = divmod(number, _HOSTS)
    source = struct.pack("!I", _FIRST + host)
    target = struct.pack("!I", _DOCUMENTED + block)
    return _tuple(_ORIGINAL, source, target), _tuple(_REPLY, target, source)


def _big(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _offsets(data: bytes, part: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(part, at)]


_GENERIC = struct.pack("=BBH", socket.AF_INET, 0, 0)  # nfgenmsg
_ANY = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)


class Table(Netlink):
    """A socket to the connection table of one network namespace."""

    @classmethod
    def open(cls, protocol: int = _PROTOCOL) -> Self:
        """In the calling thread's network; raises Unsupported where nothing can be done there."""
        try:
            table = super().open(protocol)
        except OSError as error:
            raise Unsupported(f"the kernel has no netfilter: {error.strerror}") from error
        table.sock.setsockopt(SOL_NETLINK, _NO_ENOBUFS, 1)
        table.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return table

    def add(self, number: int, mark: int, seconds: int) -> None:
        """One entry; OSError ENOMEM when the table is full, EEXIST, EPERM."""
        self.request(
            _NEW, self._entry(number, mark, seconds), flags=NLM_F_CREATE | NLM_F_EXCL,
            what="a tracked connection",
        )  # fmt: skip

    def _entry(self, number: int, mark: int, seconds: int) -> bytes:
        settings = _big(_STATUS, _SETTLED) + _big(_TIMEOUT, seconds) + _big(_MARK, mark)
        return _GENERIC + b"".join(_tuples(number)) + settings

    def fill(self, amount: int, mark: int, seconds: int) -> None:
        """Add this many entries, or as many as there is room for. Answers are not waited for."""
        body = self._entry(0, mark, seconds)
        flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
        one = struct.pack("=IHHII", 16 + len(body), _NEW, flags, 0, 0) + body
        first, second = struct.pack("!I", _FIRST), struct.pack("!I", _DOCUMENTED)
        # Where the addresses stand in a message: written anew for each entry, the rest is the same.
        sources, targets = (_offsets(one, each) for each in (first, second))
        batch = bytearray(one * _BATCH)
        word = struct.Struct("!I")
        for start in range(0, amount, _BATCH):
            number = min(_BATCH, amount - start)
            for at, entry in enumerate(range(start, start + number)):
                block, host = divmod(entry, _HOSTS)
                for offset in sources:
                    word.pack_into(batch, at * len(one) + offset, _FIRST + host)
                if block:
                    for offset in targets:
                        word.pack_into(batch, at * len(one) + offset, _DOCUMENTED + block)
            self.sock.send(memoryview(batch)[: number * len(one)])
            if self._refused():
                return

    def _refused(self) -> bool:
        """Whether the kernel has said of an entry that there is no room for it."""
        codes = list(self._answers())
        for code in codes:
            if code not in (errno.EEXIST, errno.ENOMEM):
                raise OSError(code, os.strerror(code), "a tracked connection")
        return errno.ENOMEM in codes

    def _answers(self) -> Iterator[int]:
        while True:
            try:
                data = self.sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if len(data) >= 20:
                yield -struct.unpack_from("=i", data, 16)[0]

    def mark_of(self, number: int) -> int | None:
        """The mark of one of the entries that are ours by their addresses; None without it."""
        try:
            found = self.request(_GET, _GENERIC + _tuples(number)[0], what="a tracked connection")
        except FileNotFoundError:
            return None
        for kind, value in walk(found[0].payload[len(_GENERIC) :]) if found else ():
            if kind == _MARK:
                return int.from_bytes(value, "big")
        return 0

    def remove(self, number: int) -> None:
        """Take away one entry by its addresses; FileNotFoundError without it."""
        self.request(_DELETE, _GENERIC + _tuples(number)[0], what="a tracked connection")

    def remove_marked(self, mark: int) -> None:
        """Take away every entry with the mark, in one request.

        A kernel without marks would take away all there are: `mark_of` has to have shown ours.
        """
        payload = _ANY + _big(_MARK, mark) + _big(_MARK_MASK, 0xFFFFFFFF)
        self.request(_DELETE, payload, what="tracked connections")

    def accepts_one(self) -> bool:
        """Whether one more connection could be tracked: tried, and taken away again."""
        try:
            self.add(_PROBE, 0, 1)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                return False
            raise
        self.remove(_PROBE)
        return True
