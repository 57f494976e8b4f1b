"""The alertmanager probe: alerts that fire, as Alertmanager or Prometheus itself tells.

Whoever cannot be asked says nothing about alerts: that is `unmeasured`, and never "none fires".
https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
https://prometheus.io/docs/prometheus/latest/querying/api/#alerts
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from faultline.api.probe import AlertmanagerProbe, Measurement
from faultline.api.probes_cluster import Matching, matching
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.exchange import Answer, exchange
from faultline.probes.limit import Limit, NoAnswer

_LARGEST = 16 << 20  # bytes of an answer
_SHOWN = 20  # alerts that expressions see
_FRACTION = re.compile(r"\.(\d+)")  # of a second, to the nanosecond, which Python does not read


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, whoever tells of it."""

    labels: dict[str, str]
    since: float  # seconds since 1970
    pending: bool = False
    silenced: bool = False
    inhibited: bool = False

    def shown(self) -> dict[str, Any]:
        state = (
            "pending" if self.pending
            else "silenced" if self.silenced
            else "inhibited" if self.inhibited
            else "firing"
        )  # fmt: skip
        return {"labels": self.labels, "since": self.since, "state": state}


class Prober(prober.Prober[AlertmanagerProbe]):
    """Its value is how many alerts fire, or for how long the first of them does."""

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        matchers = [matching(text) for text in spec.matchers]
        alerts = [alert for alert in self._ask(limit) if fits(alert.labels, matchers)]
        firing = sorted(
            (
                alert
                for alert in alerts
                if (spec.pending or not alert.pending)
                and (spec.silenced or not alert.silenced)
                and (spec.inhibited or not alert.inhibited)
            ),
            key=lambda alert: alert.since,
        )
        state = spec.state or ("any" if spec.expect else "firing")
        since = firing[0].since if firing else None
        value = float(len(firing))
        if spec.measure == "seconds":
            value = max(0.0, time.time() - since) if since is not None else 0.0
        return Measurement(
            value=value,
            ok={"firing": bool(firing), "resolved": not firing, "any": True}[state],
            text=_told(alerts, firing),
            since=since,
            result={
                "firing": len(firing),
                "pending": sum(alert.pending for alert in alerts),
                "silenced": sum(alert.silenced for alert in alerts),
                "inhibited": sum(alert.inhibited for alert in alerts),
                "since": since,
                "alerts": [alert.shown() for alert in (firing or alerts)[:_SHOWN]],
            },
        )

    def _ask(self, limit: Limit) -> list[Alert]:
        spec = self.spec
        base, path = spec.url.rstrip("/"), "/api/v1/alerts"
        if spec.source == "alertmanager":
            # It looks for matchers itself; what is silenced is asked for too, so as to be told of.
            path = "/api/v2/alerts?" + urlencode([("filter", each) for each in spec.matchers])
        headers = {name: self.secret(value) for name, value in spec.headers.items()}
        try:
            answer = exchange(f"{base}{path}", limit, headers=headers, keep=_LARGEST)
        except NoAnswer as error:
            raise ObserveFailed(f"{spec.source} at {spec.url}: {error}") from error
        try:
            return alerts_of(spec.source, answer)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = prober.quoted(answer.body[:200].decode(errors="replace"))
            raise ObserveFailed(
                f"{spec.url} answered {answer.code}, not with alerts of {spec.source}: {said}"
            ) from error


def alerts_of(source: str, answer: Answer) -> list[Alert]:
    """The alerts of an answer; raises ValueError, KeyError or TypeError for any other answer."""
    if answer.code != 200:
        raise ValueError(answer.code)
    body: Any = json.loads(answer.body)
    if source == "alertmanager":
        if not isinstance(body, list):
            raise TypeError("a list is expected")
        found: list[Alert] = []
        for each in cast("list[dict[str, Any]]", body):
            status = each["status"]
            silenced, inhibited = bool(status["silencedBy"]), bool(status["inhibitedBy"])
            since = moment(each["startsAt"])
            found.append(Alert(each["labels"], since, silenced=silenced, inhibited=inhibited))
        return found
    return [
        Alert(each["labels"], moment(each["activeAt"]), pending=each["state"] == "pending")
        for each in body["data"]["alerts"]
        if each["state"] in ("firing", "pending")
    ]


def moment(text: str) -> float:
    """RFC 3339 as seconds since 1970; raises ValueError."""
    return datetime.fromisoformat(_FRACTION.sub(lambda m: f".{m[1][:6]:0<6}", text)).timestamp()


def fits(labels: dict[str, str], matchers: list[Matching]) -> bool:
    """Whether labels satisfy all matchers; a label that is not there is empty."""
    return all(_fits(labels.get(name, ""), operator, value) for name, operator, value in matchers)


def _fits(label: str, operator: str, value: str) -> bool:
    if operator in ("=", "!="):
        return (label == value) == (operator == "=")
    return bool(re.fullmatch(value, label)) == (operator == "=~")


def _told(alerts: list[Alert], firing: list[Alert]) -> str:
    other = [each for each in alerts if each not in firing]
    kinds = {
        "pending": sum(each.pending for each in other),
        "silenced": sum(each.silenced for each in other),
        "inhibited": sum(each.inhibited for each in other),
    }
    rest = "".join(f", {count} {kind}" for kind, count in kinds.items() if count)
    if not firing:
        return f"no alert fires{rest}"
    first = firing[0].labels.get("alertname", "")
    return (
        f"{len(firing)} firing{rest}: {first} for {max(0.0, time.time() - firing[0].since):.1f} s"
    )
