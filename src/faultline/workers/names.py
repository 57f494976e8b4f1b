"""Answers DNS queries in place of whoever was asked: a packet engine that reads the questions.

A filter redirects what goes to port 53 to the tap of this worker. A query whose name is meant is
answered at once by a packet that comes in at the device as if the server had sent it, or it waits,
or it is gone; every other packet goes on unchanged. It does not matter which server was asked, nor
whether there is one. Death and deadline are as of the packet engine (`packets`).

The answer to a query on a device comes in by a second tap, whose packets arrive at the device; on
loopback what goes out comes in, so there the one tap is enough.

Order (spec), beside `tap`, `mark`, `deadline` and `stats` as in `packets`: `heartbeat`; `back`,
{tap, heartbeat} of the second tap, or null; `to_port`; `names`, patterns; `share`, 0 to 1; `does`,
one of {code: number}, {addresses: list}, {drop: true} and {delay: nanoseconds}. `addresses` empty
is a new one for each query, from ranges that nobody has (RFC 2544, RFC 3849).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
from collections.abc import Callable
from typing import Any, Final

from faultline.errors import InvalidParameter
from faultline.kernel import clock, frame
from faultline.kernel.tap import Offload
from faultline.workers import name_packets
from faultline.workers.figures import Figures
from faultline.workers.name_packets import AAAA, A, Asked
from faultline.workers.packet_ports import Heartbeat, Sink, Source, open_heartbeat
from faultline.workers.packet_shape import Line, Shape
from faultline.workers.packet_stats import BUCKETS
from faultline.workers.packets import TAKEN_BACK, Engine, open_port, serve

NOBODY4: Final = "198.18.0.0/15"
NOBODY6: Final = "2001:db8::/32"
_ADDRESSES: Final = (A, AAAA)
_HINTS: Final = (64, 65)  # SVCB and HTTPS: they carry addresses too (RFC 9460)
_COUNTED: Final = ("queries", "meant", "hit", "answered", "probes", "refused")
_WAYS: Final = ("code", "addresses", "drop", "delay")


def meant(name: str, patterns: list[str]) -> bool:
    """Whether a name, in lower case, is one of: exact names, `*.example.com` (below it), `*`."""
    return any(
        pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
        for pattern in patterns
    )


class Answering:
    """The tap, with the queries that are answered here taken out of what it brings."""

    def __init__(self, port: Source, out: Sink, back: Sink, order: dict[str, Any]) -> None:
        self._port, self._out, self._back = port, out, back
        self._number = int(order["to_port"])
        self._names: list[str] = order["names"]
        self._share = float(order["share"])
        self._does: dict[str, Any] = order["does"]
        self._late: bytes | None = None
        self._random = random.Random(order.get("seed"))
        self.counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)

    def fileno(self) -> int:
        return self._port.fileno()

    def lost(self) -> int:
        return self._port.lost()

    def read(self) -> bytes | None:
        """The next packet that goes on, now or later; None when there is none."""
        while (packet := self._port.read()) is not None:
            found = name_packets.asked(packet, self._number)
            if found is None or not self._is_done_with(packet, found):
                return packet
        return None

    def waits(self, packet: bytes) -> bool:
        """Whether the packet that was just read has to wait."""
        return packet is self._late

    def write(self, packet: bytes) -> None:
        """Send a packet on, unless it is a probe of ours: that is answered after all it waited."""
        if "delay" in self._does:
            found = name_packets.asked(packet, self._number)
            if found is not None and found.query.probe:
                self._answer(packet, found, 0)
                return
        self._out.write(packet)

    def _is_done_with(self, packet: bytes, found: Asked) -> bool:
        """Whether nothing is left to be sent on of a query."""
        query = found.query
        ours = query.probe
        self.counts["probes" if ours else "queries"] += 1
        wanted = meant(query.name, self._names)
        self.counts["meant"] += wanted and not ours
        if not wanted or not self._applies(query.kind) or self._random.random() >= self._share:
            if ours:  # told from an answer of the fault by its being empty
                self._answer(packet, found, 0)
            return ours
        self.counts["hit"] += not ours
        if "delay" in self._does:
            self._late = packet
            return False
        if "code" in self._does:
            self._answer(packet, found, int(self._does["code"]))
        elif "addresses" in self._does:
            self._answer(packet, found, 0, self._addresses(query.kind))
        return True

    def _applies(self, kind: int) -> bool:
        return "addresses" not in self._does or kind in _ADDRESSES or kind in _HINTS

    def _addresses(self, kind: int) -> list[bytes]:
        """What an A or AAAA query is told; nothing for one of the other family, or for hints."""
        if kind not in _ADDRESSES:
            return []
        given = [ipaddress.ip_address(each) for each in self._does["addresses"]]
        if given:
            return [each.packed for each in given if (each.version == 4) == (kind == A)]
        network = ipaddress.ip_network(NOBODY4 if kind == A else NOBODY6)
        return [network[1 + self._random.randrange(network.num_addresses - 2)].packed]

    def _answer(
        self, packet: bytes, found: Asked, code: int, addresses: list[bytes] | None = None
    ) -> None:
        message = name_packets.answer(found.query, code, addresses or [])
        self.counts["answered"] += not found.query.probe
        self._send(self._back, name_packets.reply(packet, found, message))
        if found.packet.protocol == frame.TCP:
            self._send(self._out, name_packets.cut(packet, found))

    def _send(self, sink: Sink, packet: bytes) -> None:
        try:
            sink.write(packet)
        except OSError as error:
            if error.errno in TAKEN_BACK:
                raise
            self.counts["refused"] += 1


class _Told:
    """What the engine has to tell, and what became of the queries, for any other process."""

    def __init__(self, path: str, counts: dict[str, int]) -> None:
        self.error, self.holding = [0] * BUCKETS, [0] * BUCKETS  # nobody asks for these
        self._figures = Figures(path)
        self._counts = counts

    def publish(self, fields: dict[str, int]) -> None:
        self._figures.publish({**fields, **self._counts})


class _Beats:
    """The filters of both taps: the fault begins when each one hears."""

    def __init__(self, beats: list[Heartbeat]) -> None:
        self._beats = beats

    def beat(self, now: int) -> bool:
        heard = [each.beat(now) for each in self._beats]  # every one, whatever the others say
        return all(heard)

    def stop(self) -> None:
        for each in self._beats:
            each.stop()


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Answer, drop or delay until SIGTERM or the deadline; raises InvalidParameter, OSError."""
    does: dict[str, Any] = spec["does"]
    if len(does) != 1 or not set(does) <= set(_WAYS):
        raise InvalidParameter("does", does, f"one of {', '.join(_WAYS)}")
    shape = Shape.from_json({"delay": int(does.get("delay", 0))})
    second: dict[str, Any] | None = spec.get("back")
    with contextlib.ExitStack() as stack:
        tap = back = stack.enter_context(open_port(spec, Offload.ALL))
        beats = [open_heartbeat(spec.get("heartbeat"), tap.ifindex)]
        if second is not None:
            order = {"tap": second["tap"], "mark": spec.get("mark", "")}
            back = stack.enter_context(open_port(order, Offload.ALL))
            beats.append(open_heartbeat(second.get("heartbeat"), back.ifindex))
        names = Answering(tap, tap, back, spec)
        engine = Engine(
            names,
            names,
            Line(shape, random.Random(spec.get("seed")), lambda packet, _: packet),
            _Told(spec.get("stats", ""), names.counts),
            _Beats([each for each in beats if each is not None]),
            names.waits,
            clock.now,
        )
        about = {"pid": os.getpid(), "tap": tap.name, "stats": spec.get("stats", "")}
        return serve(engine, spec, lambda: ready(about), longest=shape.longest, linger=False)
