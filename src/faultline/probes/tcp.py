"""The tcp probe: whether a connection is accepted, and how soon."""

from __future__ import annotations

from time import monotonic

from faultline.api.probe import Measurement, TcpProbe
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import connect, reason


class Prober(prober.Prober[TcpProbe]):
    """Its value is the time until the connection is established; nothing is sent on it."""

    def look(self, limit: Limit) -> Measurement:
        begun = monotonic()
        connection = connect(self.spec.host, self.spec.port, limit)
        seconds = monotonic() - begun
        try:
            address = str(connection.getpeername()[0])
        except OSError as error:  # reset as soon as it was accepted
            raise NoAnswer(reason(error)) from error
        finally:
            connection.close()
        return Measurement(
            value=seconds,
            ok=True,
            latency=seconds,
            text=f"connected to {address}",
            result={"address": address},
        )
