"""The udp probe: one datagram, and what comes back for it."""

from __future__ import annotations

import re
import socket
from time import monotonic

from faultline.api.probe import Measurement, UdpProbe
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import reason, resolve

_SHOWN = 16384  # characters of an answer that expressions see


class Prober(prober.Prober[UdpProbe]):
    """Its value is the time until the first answer of the server that was asked."""

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        family, address = resolve(spec.host, limit)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as wire:
            try:
                wire.connect((address, spec.port))  # only this server's datagrams are received
                begun = monotonic()
                wire.settimeout(limit.left())
                wire.send(spec.data())
                wire.settimeout(limit.left())
                answer = wire.recv(65535)
            except TimeoutError as error:
                raise limit.late(f"{address}: no answer") from error
            except OSError as error:  # refused: the host said that nobody listens there
                raise NoAnswer(f"{address}: {reason(error)}") from error
        seconds = monotonic() - begun
        text = answer.decode(errors="replace")
        good = re.search(spec.pattern, text) is not None if spec.pattern else True
        return Measurement(
            value=seconds,
            ok=good,
            latency=seconds,
            text=f"{len(answer)} bytes from {address}"
            + ("" if good else f" without {spec.pattern!r}: {self.quoted(text)}"),
            result={"answer": text[:_SHOWN], "hex": answer[:_SHOWN].hex(), "size": len(answer)},
        )
