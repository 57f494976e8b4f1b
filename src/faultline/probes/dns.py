"""The dns probe: one query to a server, without cache or retry of ours, so that a loss is seen."""

from __future__ import annotations

import secrets
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

from faultline.api.probe import DnsProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import dnswire, prober
from faultline.probes.dnswire import Malformed, Reply
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import LimitedReader, connect, reason, resolve

_CONFIGURATION = Path("/etc/resolv.conf")


class Prober(prober.Prober[DnsProbe]):
    """Its value is the time until the answer.

    Without a server those of resolv.conf(5) are asked in turn, each with its share of the time.
    """

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        try:
            asked = dnswire.question(spec.query, spec.record, secrets.randbelow(1 << 16))
        except Malformed as error:
            raise ObserveFailed(f"{spec.query!r} cannot be asked for: {error}") from error
        servers = [_address(spec.server)] if spec.server else _configured()
        failure = NoAnswer("no server")
        for left, (host, port) in zip(range(len(servers), 0, -1), servers, strict=True):
            begun = monotonic()
            try:
                reply = _ask(host, port, asked, Limit(limit.left() / left))
            except NoAnswer as error:
                failure = NoAnswer(f"{host}: {error}")
                continue
            return self._judge(reply, host, monotonic() - begun)
        raise failure

    def _judge(self, reply: Reply, host: str, seconds: float) -> Measurement:
        spec = self.spec
        found = {_normal(answer) for answer in reply.answers}
        missing = [wanted for wanted in spec.answers if _normal(wanted) not in found]
        text = f"{host}: " + (", ".join(reply.answers) or "no such record")
        if reply.code != "NOERROR":
            text = f"{host}: {reply.code}"
        if missing:
            text += f"; missing: {', '.join(missing)}"
        return Measurement(
            value=seconds,
            ok=reply.code == "NOERROR" and bool(reply.answers) and not missing,
            latency=seconds,
            text=text,
            result={"code": reply.code, "answers": reply.answers, "server": host},
        )


def _normal(answer: str) -> str:
    try:
        return str(ip_address(answer))
    except ValueError:
        return answer.rstrip(".").lower()


def _address(server: str) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address."""
    if server.startswith("["):
        host, _, port = server[1:].partition("]")
        port = port.removeprefix(":")
    elif server.count(":") == 1:
        host, _, port = server.partition(":")
    else:
        host, port = server, ""
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ObserveFailed(f"{server!r} is not a server: its port is no port")
    return host, int(port or 53)


def _configured() -> list[tuple[str, int]]:
    try:
        lines = _CONFIGURATION.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    words = [line.split() for line in lines]
    found = [(line[1], 53) for line in words if line[:1] == ["nameserver"] and len(line) > 1]
    return found or [("127.0.0.1", 53)]  # as resolv.conf(5) has it


def _ask(host: str, port: int, asked: bytes, limit: Limit) -> Reply:
    """Ask over UDP and, where the answer does not fit, over TCP (RFC 7766)."""
    family, address = resolve(host, limit)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as wire:
        try:
            wire.connect((address, port))  # only this server's packets are received
            wire.send(asked)
            reply = _receive(wire, asked, limit)
        except TimeoutError as error:
            raise limit.late() from error
        except OSError as error:
            raise NoAnswer(reason(error)) from error
    return _ask_by_tcp(address, port, asked, limit) if reply.truncated else reply


def _receive(wire: socket.socket, asked: bytes, limit: Limit) -> Reply:
    while True:
        wire.settimeout(limit.left())
        data = wire.recv(65535)
        try:
            return dnswire.reply(data, asked)
        except Malformed as error:
            if data[:2] == asked[:2]:
                raise NoAnswer(f"a broken answer: {error}") from error
            # An answer to an earlier question, or somebody's guess: ours is still to come.


def _ask_by_tcp(address: str, port: int, asked: bytes, limit: Limit) -> Reply:
    with connect(address, port, limit) as wire:
        try:
            wire.sendall(struct.pack("!H", len(asked)) + asked)
            reader = LimitedReader(wire, limit)
            length = int.from_bytes(_exactly(reader, 2), "big")
            return dnswire.reply(_exactly(reader, length), asked)
        except TimeoutError as error:
            raise limit.late() from error
        except OSError as error:
            raise NoAnswer(reason(error)) from error
        except Malformed as error:
            raise NoAnswer(f"a broken answer: {error}") from error


def _exactly(reader: LimitedReader, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = reader.read(count - len(data))
        if not part:
            raise NoAnswer("the connection was closed without an answer")
        data += part
    return data
