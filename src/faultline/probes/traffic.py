"""The traffic probe: what the clients of a load of the same experiment see."""

from __future__ import annotations

from faultline.api.probe import Measurement, TrafficProbe
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer


class Prober(prober.Prober[TrafficProbe]):
    """Its value is a percentile in seconds, a share of errors, or good answers per second."""

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        seen = self.traffic(spec.traffic, spec.window) if self.traffic else None
        if seen is None:
            raise ObserveFailed(f"traffic {spec.traffic} has no figures of the last seconds")
        finished = seen.ok + seen.errors
        value: float | None
        if spec.measure == "errors":
            value = seen.errors / finished if finished else None
        elif spec.measure == "rate":
            value = seen.ok / seen.seconds if seen.seconds else None
        else:
            value = getattr(seen, spec.measure)
        kinds = ", ".join(f"{count} {kind}" for kind, count in seen.kinds.items())
        if value is None and seen.errors:
            raise NoAnswer(f"every request failed: {kinds}")
        if value is None:
            raise ObserveFailed(f"no request of traffic {spec.traffic} was answered yet")
        return Measurement(
            value=value,
            ok=True,
            text=f"{seen.ok} answered, {seen.errors} failed" + (f" ({kinds})" if kinds else ""),
            result=seen.model_dump(mode="json", by_alias=True, exclude={"histogram"}),
        )
