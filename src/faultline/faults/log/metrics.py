"""Figures of an exporter that tell of trouble, though nothing is wrong."""

from __future__ import annotations

import http.client
import math
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, text
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter, Refused
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import clock, procnet
from faultline.places.model import Place
from faultline.workers import figures, metric_lines, metrics
from faultline.workers.metric_lines import Rule, Sample

_CLOSE = 1e-6  # the share of a figure that its text may be off


def _rule(rule: str) -> str:
    metric_lines.parse_rule(rule)
    return rule


def _listed(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(";") if part.strip())
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as http://127.0.0.1:9100/metrics")
    return url


def _listen(address: str) -> str:
    return str(ip_address(address))


class MetricsParams(Params):
    """Parameters of `log metrics`."""

    url: Annotated[str, AfterValidator(_url), Flag("u")]
    """The page of the real exporter, as Prometheus scrapes it."""
    port: Annotated[int, Between(1, 65535), Flag("p")]
    """Where the page with other figures is served, under the same path: point Prometheus there."""
    series: Annotated[
        tuple[Annotated[str, AfterValidator(_rule)], ...],
        BeforeValidator(_listed),
        Field(min_length=1, max_length=1000),
        Flag("s"),
    ]
    """What is shown: `errors_total{code="500"} *= 10`, `queue_length = 900`, `+= 3`, or `+= 2/s`,
    which grows; several are a list, or separated by `;`. Labels are matched as in a query. A series
    that does not exist is added by `=`."""
    ramp: Annotated[Duration, Between("0s", "1d")] = text("0s")
    """How long the figures take from the true ones to those asked for; they move evenly."""
    address: Annotated[str, AfterValidator(_listen), Flag("a")] = "127.0.0.1"
    """The address that is listened on; `0.0.0.0` for all."""


class LogMetrics(Fault[MetricsParams]):
    """Show other figures of an exporter, so that alarms can be tried without hurting anything.

    A page is served that is the real one but for the series named. Prometheus has to be pointed at
    it, for as long as the drill lasts.
    """

    id = "log.metrics"
    ending = Ending.SELF
    does = (
        "A process of ours listens on a port of its own, passes each request on to the real "
        "exporter and replaces figures in the page that comes back; everything else passes byte by "
        "byte, and so does an error."
    )
    cannot = (
        "Make Prometheus read it: that is a target in its configuration. Show `up`, which "
        "Prometheus makes itself. A counter falls back to the true figure at the end, which "
        "Prometheus takes for a restart. Pages are passed on in the text format, without "
        "exemplars and native histograms. What Prometheus stored of it stays."
    )
    measures = (
        "Both pages are read, the real one before and after, and compared series by series; the "
        "process counts how often others read it."
    )
    restores = "Ends the process; the port is free again."
    scratch = "exporter"
    example: ClassVar[dict[str, str]] = {
        "url": "{url}",
        "port": "19100",
        "series": 'app_errors_total{code="500"} *= 10',
    }

    def plan(self, place: Place, params: MetricsParams) -> list[Change]:
        holders = procnet.find_by_port(params.port, procnet.Transport.TCP)
        if holders:
            names = ", ".join(f"{each.name} (pid {each.pid})" for each in holders)
            raise Refused(
                f"tcp port {params.port} is held by {names}", hint="choose a port that is free"
            )
        real = _samples(_read(params.url))
        for rule in _rules(params):
            hits = [each for each in real.values() if rule.fits(each.name, each.labels)]
            if not hits and rule.added is None:
                raise InvalidParameter(
                    "series", rule.text, "a series of the exporter: none of them fits"
                )
            if not hits:
                guards.current().note(f"{rule.added} does not exist and is added")
        order = {
            "address": params.address,
            "port": params.port,
            "url": params.url,
            "rules": list(params.series),
            "ramp": int(params.ramp),
        }
        claim = f"tcp port {params.port} in network namespace {place.netns_cookie}"
        what = f"show {params.url} on {params.address} port {params.port} with other figures"
        return [
            Change("worker", {"module": "metrics", "spec": order, "what": what, "claims": [claim]})
        ]

    def observe(self, place: Place, params: MetricsParams, record: Record) -> Reading:
        asked = "; ".join(params.series)
        ready: dict[str, Any] = record.steps[0].made.get("ready", {})
        course = metrics.Course(int(ready.get("begin", 0)), int(params.ramp))
        try:
            before, first = _samples(_read(params.url)), clock.now()
            shown = _samples(_read(_ours(params)))
            after, last = _samples(_read(params.url)), clock.now()
        except Refused as refused:
            return Reading(Effect.INEFFECTIVE, asked, "", self.measures, refused.message)
        moments = [course.at(first), course.at(last)]
        right, wrong, others, changed = 0, list[str](), 0, list[str]()
        rules = _rules(params)
        for series, sample in shown.items():
            rule = next((r for r in rules if r.fits(sample.name, sample.labels)), None)
            real = [page[series].value for page in (before, after) if series in page]
            if rule is not None and _is_shown(rule, sample, real or [0.0], moments):
                right += 1
            elif rule is not None:
                wrong.append(series)
            elif _is_between(sample.value, real):
                others += 1
            else:
                changed.append(series)
        missing = len(set(before) & set(after) - set(shown))
        measured = f"{right} of {right + len(wrong)} series shown as asked, {others} others as real"
        scraped = (figures.read(ready.get("stats", "")) or {}).get("scrapes", 0)
        measured += f", read {scraped} times by others" if scraped else ", not read by others yet"
        values = {"asked": float(right + len(wrong)), "measured": float(right), "n": float(right)}
        bad = [*wrong, *changed]
        if right and not bad and not missing:
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)
        reason = f"not as asked: {', '.join(bad[:3])}" if bad else f"{missing} series are missing"
        reason = reason if bad or missing else "no series is shown"
        return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, reason, values)


def _rules(params: MetricsParams) -> list[Rule]:
    return [metric_lines.parse_rule(each) for each in params.series]


def _ours(params: MetricsParams) -> str:
    """The URL of the page that we serve."""
    parts = urlsplit(params.url)
    address = ip_address(params.address)
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    where = f"[{address}]" if address.version == 6 else str(address)
    return parts._replace(scheme="http", netloc=f"{where}:{params.port}").geturl()


def _read(url: str) -> str:
    """A page of figures; Refused with the reason where it cannot be had."""
    try:
        status, _, body = metrics.fetch(url, headers={"User-Agent": metrics.OURS})
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"{url} does not answer: {error}") from error
    if status != 200:
        raise Refused(f"{url} answers with status {status}")
    return body.decode("utf-8", "surrogateescape")


def _samples(page: str) -> dict[str, Sample]:
    found = (metric_lines.sample(line) for line in page.split("\n") if not line.startswith("#"))
    return {each.series: each for each in found if each is not None}


def _is_shown(
    rule: Rule, sample: Sample, real: list[float], moments: list[tuple[float, float]]
) -> bool:
    """Whether a figure lies between those that are due, as the real one and the time move on."""
    due = [rule.shown(true, part, seconds) for true in real for part, seconds in moments]
    return _is_between(sample.value, due)


def _is_between(value: float, due: list[float]) -> bool:
    """A counter or a gauge that moved meanwhile is anywhere between; NaN is NaN."""
    if any(math.isnan(each) for each in due):
        return math.isnan(value)
    if not due or value in due:
        return True  # without a real one it is a series that came and went
    room = _CLOSE * max(abs(each) for each in due)
    return min(due) - room <= value <= max(due) + room
