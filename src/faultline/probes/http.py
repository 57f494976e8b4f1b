"""The http probe: one request on a connection of its own, as a new client would see the service."""

from __future__ import annotations

import re

from faultline.api.probe import HttpProbe, Measurement
from faultline.probes import prober
from faultline.probes.exchange import exchange
from faultline.probes.limit import Limit

_KEPT = 1 << 20  # bytes of a body that patterns see
_SHOWN = 16384  # characters of it that expressions see


class Prober(prober.Prober[HttpProbe]):
    """Its value is the time from before the connection to the last byte of the answer."""

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        answer = exchange(
            spec.url,
            limit,
            method=spec.method,
            headers=spec.headers,
            body=spec.body.encode(),
            verify=spec.verify,
            keep=_KEPT,
        )
        body = answer.body.decode(errors="replace")
        good, text = _accepts(spec.code, answer.code), f"{answer.code}"
        if not good:
            text += f", expected {spec.code}"
        elif spec.pattern and not re.search(spec.pattern, body):
            good, text = False, f"{text} without {spec.pattern!r}: {prober.quoted(body)}"
        return Measurement(
            value=answer.seconds,
            ok=good,
            latency=answer.seconds,
            text=text,
            result={"code": answer.code, "headers": answer.headers, "body": body[:_SHOWN]},
        )


def _accepts(codes: str, code: int) -> bool:
    for part in codes.split(","):
        low, _, high = part.partition("-")
        if int(low) <= code <= int(high or low):
            return True
    return False
