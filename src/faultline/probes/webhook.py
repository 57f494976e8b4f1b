"""The webhook probe: what people and on-call tools have reported to the run."""

from __future__ import annotations

import re

from faultline.api.probe import Measurement, WebhookProbe
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.limit import Limit

_SHOWN = 20  # signals that expressions see


class Prober(prober.Prober[WebhookProbe]):
    """Its value is the number of signals; it holds from the moment of the first."""

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        if self.signals is None:
            raise ObserveFailed("only a run has signals")
        heard = [
            each
            for each in self.signals()
            if each.name == spec.signal and re.search(spec.who, each.who)
        ]
        heard.sort(key=lambda each: each.at)
        shown = [each.to_json() for each in heard[:_SHOWN]]
        if not heard:
            return Measurement(
                value=0.0,
                # With something to expect of the number, the number alone decides.
                ok=spec.expect is not None,
                text=f"nobody has reported {spec.signal!r}",
                result={"count": 0, "at": None, "who": "", "text": "", "signals": shown},
            )
        first = heard[0]
        who = first.who or "somebody"
        return Measurement(
            value=float(len(heard)),
            ok=True,
            text=f"{who} reported {spec.signal!r}" + (f": {first.text}" if first.text else ""),
            since=first.at,
            result={
                "count": len(heard),
                "at": first.at,
                "who": first.who,
                "text": first.text,
                "signals": shown,
            },
        )
