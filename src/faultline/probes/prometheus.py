"""The prometheus probe: a query of the HTTP API, instant or over a range, made into one number.

A Prometheus that cannot be asked says nothing about the service that it watches: whatever goes
wrong here is `unmeasured`, with the words of its own error body.
https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import json
import math
import time
from typing import Any
from urllib.parse import urlencode

from faultline.api.probe import Measurement, PrometheusProbe
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.exchange import Answer, exchange
from faultline.probes.limit import Limit, NoAnswer

_LARGEST = 16 << 20  # bytes of an answer
_POINTS = 250  # asked for over a range
_SHOWN = 20  # series that expressions see

Sample = tuple[float, str]


class Prober(prober.Prober[PrometheusProbe]):
    """Its value is the number that the query gives."""

    def look(self, limit: Limit) -> Measurement:
        data = self._ask(limit)
        series = _series(data)
        numbers = [float(value) for _, samples in series for _, value in samples]
        value = self._one(numbers, series)
        if not math.isfinite(value):
            raise ObserveFailed(f"the query gave {value}, not a number to judge")
        shown = [
            {"labels": labels, "value": samples[-1][1]} for labels, samples in series if samples
        ]
        return Measurement(
            value=value,
            ok=True,
            text=f"{value:g} from {len(series)} series",
            result={"series": shown[:_SHOWN], "count": len(series)},
        )

    def _ask(self, limit: Limit) -> dict[str, Any]:
        spec = self.spec
        asked = {"query": spec.query, "timeout": f"{limit.left() * 1000:.0f}ms"}
        path = "/api/v1/query"
        if spec.window is not None:
            at, path = time.time(), "/api/v1/query_range"
            step = max(spec.window.seconds / _POINTS, 1.0)
            asked |= {
                "start": f"{at - spec.window.seconds:.3f}",
                "end": f"{at:.3f}",
                "step": f"{step}",
            }
        try:
            answer = exchange(
                spec.url.rstrip("/") + path,
                limit,
                method="POST",  # a long query does not fit into every address
                headers={"Content-Type": "application/x-www-form-urlencoded", **spec.headers},
                body=urlencode(asked).encode(),
                keep=_LARGEST,
            )
        except NoAnswer as error:
            raise ObserveFailed(f"Prometheus at {spec.url}: {error}") from error
        return _body(answer)

    def _one(
        self, numbers: list[float], series: list[tuple[dict[str, str], list[Sample]]]
    ) -> float:
        if not numbers:
            raise ObserveFailed(f"no series matches {self.spec.query}")
        match self.spec.reduce:
            case "only":
                if len(numbers) > 1:
                    what = f"{len(series)} series" if len(series) > 1 else f"{len(numbers)} points"
                    raise ObserveFailed(
                        f"the query gave {what}, one number is expected",
                        hint="sum, max or avg in the query, or `reduce` in the probe",
                    )
                return numbers[0]
            case "min":
                return min(numbers)
            case "max":
                return max(numbers)
            case "mean":
                return math.fsum(numbers) / len(numbers)
            case "sum":
                return math.fsum(numbers)
            case "last":
                latest = max((samples[-1] for _, samples in series if samples), key=lambda s: s[0])
                return float(latest[1])


def _body(answer: Answer) -> dict[str, Any]:
    """The data of an answer; raises ObserveFailed with what Prometheus says of its failure."""
    try:
        body = json.loads(answer.body)
        if body["status"] == "success":
            return body["data"]
        said = f"{body['errorType']}: {body['error']}"
    except (ValueError, KeyError, TypeError):
        said = f"status {answer.code}, not an answer of Prometheus: " + prober.quoted(
            answer.body[:200].decode(errors="replace")
        )
    raise ObserveFailed(f"Prometheus said {said}")


def _series(data: dict[str, Any]) -> list[tuple[dict[str, str], list[Sample]]]:
    """Labels and samples, whatever the type of the result: scalar, vector or matrix."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return [({}, [(result[0], result[1])])]
    if kind == "vector":
        return [(each["metric"], [(each["value"][0], each["value"][1])]) for each in result]
    if kind == "matrix":
        return [(e["metric"], [(at, value) for at, value in e["values"]]) for e in result]
    raise ObserveFailed(f"the query gave a {kind}, one number is expected")
