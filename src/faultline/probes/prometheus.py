"""The prometheus probe: a query of the HTTP API, instant or over a range, made into one number.

A Prometheus that cannot be asked says nothing about the service that it watches: whatever goes
wrong here is `unmeasured`, with the words of its own error body.
https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any
from urllib.parse import urlencode

from faultline.api.probe import Measurement, PrometheusProbe
from faultline.api.probes_data import SELECTOR, Groups
from faultline.errors import InvalidParameter, ObserveFailed
from faultline.probes import effect_size, prober
from faultline.probes.exchange import Answer, exchange
from faultline.probes.limit import Limit, NoAnswer
from faultline.units import Duration

_LARGEST = 16 << 20  # bytes of an answer
_POINTS = 250  # asked for over a range
_SHOWN = 20  # series that expressions see
_RANGE = re.compile(r"\[(\d+(?:ms|s|m|h|d))[\]:]")

Sample = tuple[float, str]
Series = list[tuple[dict[str, str], list[Sample]]]


class Prober(prober.Prober[PrometheusProbe]):
    """Its value is the number that the query gives, or by how much two groups differ."""

    def look(self, limit: Limit) -> Measurement:
        if self.spec.groups is not None:
            return self._compare(self.spec.groups, limit)
        series = self._ask(self.spec.query, limit)
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

    def _ask(self, query: str, limit: Limit, step: float = 1.0, at: float | None = None) -> Series:
        spec = self.spec
        asked = {"query": query, "timeout": f"{limit.left() * 1000:.0f}ms"}
        path, at = "/api/v1/query", at or time.time()
        if spec.window is not None:
            path = "/api/v1/query_range"
            step = max(spec.window.seconds / _POINTS, step)
            asked |= {
                "start": f"{at - spec.window.seconds:.3f}",
                "end": f"{at:.3f}",
                "step": f"{step}",
            }
        else:
            asked["time"] = f"{at:.3f}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        headers |= {name: self.secret(value) for name, value in spec.headers.items()}
        try:
            answer = exchange(
                spec.url.rstrip("/") + path,
                limit,
                method="POST",  # a long query does not fit into every address
                headers=headers,
                body=urlencode(asked).encode(),
                keep=_LARGEST,
            )
        except NoAnswer as error:
            raise ObserveFailed(f"Prometheus at {spec.url}: {error}") from error
        return _series(_body(answer))

    def _one(self, numbers: list[float], series: Series) -> float:
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

    # ------------------------------------------------------------------ two groups

    def _compare(self, groups: Groups, limit: Limit) -> Measurement:
        at = time.time()
        queries = {
            "hit": _query(self.spec.query, groups.hit),
            "unhit": _query(self.spec.query, groups.unhit),
        }
        step = groups.step.seconds if groups.step else max(map(_longest_range, queries.values()))
        answers = {name: self._ask(query, limit, step, at) for name, query in queries.items()}
        for name, series in answers.items():
            if not any(samples for _, samples in series):
                raise ObserveFailed(f"no series of group {name} matches {queries[name]}")
        confidence = groups.confidence.ratio
        if self.spec.window is None:
            hit, unhit = (_numbers(series) for series in answers.values())
            found = effect_size.independent(hit, unhit, groups.size, confidence)
        else:
            first, second = (self._moments(series) for series in answers.values())
            both = sorted(first.keys() & second.keys())
            hit, unhit = [first[at] for at in both], [second[at] for at in both]
            found = effect_size.paired(hit, unhit, groups.size, confidence)
        return _compared(groups, found, {"hit": hit, "unhit": unhit}, answers)

    def _moments(self, series: Series) -> dict[float, float]:
        """The number of a group at each moment at which it has one."""
        at: dict[float, list[float]] = {}
        for _, samples in series:
            for moment, value in samples:
                if math.isfinite(float(value)):
                    at.setdefault(float(moment), []).append(float(value))
        several = max((len(numbers) for numbers in at.values()), default=0)
        if self.spec.reduce == "only" and several > 1:
            raise ObserveFailed(
                f"a group has {several} series, one number at each moment is expected",
                hint="sum, max or avg in the query, or `reduce` in the probe",
            )
        return {moment: self._one(numbers, []) for moment, numbers in at.items()}


def _query(query: str, group: str) -> str:
    return query.replace(SELECTOR, group) if query else group


def _longest_range(query: str) -> float:
    """Seconds of the longest range of a query: nearer moments would share samples."""
    found = [1.0]
    for text in _RANGE.findall(query):
        try:
            found.append(Duration.parse(text).seconds)
        except InvalidParameter:  # a range that is longer than any window
            continue
    return max(found)


def _numbers(series: Series) -> list[float]:
    numbers = [float(value) for _, samples in series for _, value in samples[-1:]]
    return [number for number in numbers if math.isfinite(number)]


def _compared(
    groups: Groups,
    found: effect_size.Comparison,
    numbers: dict[str, list[float]],
    answers: dict[str, Series],
) -> Measurement:
    value = found.effect if groups.value == "effect" else found.certain
    pairs = "pairs" if len(numbers["hit"]) == len(numbers["unhit"]) else "members at least"
    what = "more" if found.low > 0 else "less" if found.high < 0 else "no effect is shown:"
    between = f"{found.low:.4g} to {found.high:.4g}"
    return Measurement(
        value=value,
        ok=True,
        text=f"hit has {what} {found.effect:.4g} ({between}, {found.n} {pairs})",
        result={
            "effect": found.effect,
            "low": found.low,
            "high": found.high,
            "shown": found.shown,
            "certain": found.certain,
            "delta": found.delta,
            "n": found.n,
            "stretch": found.stretch,
            "groups": {name: _summary(numbers[name], len(answers[name])) for name in numbers},
        },
    )


def _summary(numbers: list[float], series: int) -> dict[str, Any]:
    ordered = sorted(numbers)
    return {
        "series": series,
        "n": len(ordered),
        "median": (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2,
        "mean": math.fsum(ordered) / len(ordered),
        "min": ordered[0],
        "max": ordered[-1],
    }


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


def _series(data: dict[str, Any]) -> Series:
    """Labels and samples, whatever the type of the result: scalar, vector or matrix."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return [({}, [(result[0], result[1])])]
    if kind == "vector":
        return [(each["metric"], [(each["value"][0], each["value"][1])]) for each in result]
    if kind == "matrix":
        return [(e["metric"], [(at, value) for at, value in e["values"]]) for e in result]
    raise ObserveFailed(f"the query gave a {kind}, one number is expected")
