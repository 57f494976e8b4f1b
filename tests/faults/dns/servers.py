"""A name server of the tests, and whoever asks it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from netrig import Net

from faultline.probes import dnswire
from faultline.workers import name_packets

TRUE = {name_packets.A: bytes([203, 0, 113, 5]), name_packets.AAAA: bytes([0xFD] * 16)}


def answer(message: bytes) -> bytes:
    query = name_packets.read_query(message)
    assert query is not None
    known = [TRUE[query.kind]] if query.kind in TRUE else []
    return name_packets.answer(query, 0, known)


@dataclass
class Server:
    """Answers every A query with 203.0.113.5, by UDP and by TCP, and notes what it was asked."""

    host: str
    seen: list[str] = field(default_factory=list)
    stopped: bool = False

    def serve_udp(self, wire: socket.socket) -> None:
        wire.settimeout(0.05)
        while not self.stopped:
            try:
                message, whom = wire.recvfrom(4096)
            except TimeoutError:
                continue
            self._note(message)
            wire.sendto(answer(message), whom)

    def serve_tcp(self, listener: socket.socket) -> None:
        listener.settimeout(0.05)
        while not self.stopped:
            try:
                wire, _ = listener.accept()
            except TimeoutError:
                continue
            with wire:
                wire.settimeout(1)
                try:
                    message = wire.recv(4096)[2:]
                    if message:
                        self._note(message)
                        told = answer(message)
                        wire.sendall(struct.pack("!H", len(told)) + told)
                except OSError:
                    continue

    def _note(self, message: bytes) -> None:
        query = name_packets.read_query(message)
        self.seen.append(query.name if query else "?")


@contextmanager
def serving(net: Net, host: str, port: int = 53) -> Iterator[Server]:
    server = Server(host)
    udp, tcp = net.udp(host, port), net.listen(host, port)
    threads = [
        threading.Thread(target=server.serve_udp, args=(udp,)),
        threading.Thread(target=server.serve_tcp, args=(tcp,)),
    ]
    for each in threads:
        each.start()
    try:
        yield server
    finally:
        server.stopped = True
        for each in threads:
            each.join()
        for each in (udp, tcp):
            net.opened.remove(each)
            each.close()


@dataclass
class Answered:
    """What somebody who asked was told, and how long that took."""

    code: str
    addresses: list[str]
    seconds: float


def ask(
    net: Net, host: str, name: str, record: str = "A", patience: float = 3.0, port: int = 53
) -> Answered | None:
    """Ask over UDP; None when nobody answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wire = net.socket(family, socket.SOCK_DGRAM)
    try:
        wire.settimeout(patience)
        wire.connect((host, port))
        question = dnswire.question(name, record, 4711)
        begun = time.monotonic()
        wire.send(question)
        try:
            told = dnswire.reply(wire.recv(4096), question)
        except (TimeoutError, ConnectionRefusedError):
            return None
        return Answered(told.code, told.answers, time.monotonic() - begun)
    finally:
        net.opened.remove(wire)
        wire.close()


def ask_by_tcp(net: Net, host: str, name: str, patience: float = 3.0) -> Answered | None:
    """Ask over TCP and read until the connection ends; None when nobody answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wire = net.socket(family, socket.SOCK_STREAM)
    try:
        wire.settimeout(patience)
        question = dnswire.question(name, "A", 4711)
        begun = time.monotonic()
        wire.connect((host, 53))
        wire.sendall(struct.pack("!H", len(question)) + question)
        data = b""
        try:
            while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
                part = wire.recv(4096)
                if not part:
                    return None
                data += part
        except TimeoutError:
            return None
        told = dnswire.reply(data[2:], question)
        return Answered(told.code, told.answers, time.monotonic() - begun)
    finally:
        net.opened.remove(wire)
        wire.close()
