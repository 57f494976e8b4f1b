"""A run as annotations of Grafana: the run and its faults as regions, its time points as moments.

Source: Grafana HTTP API, annotations (`POST /api/annotations`). Each has the tag `faultline` and
one with the name of the run; what is there already is not sent again.
"""

from __future__ import annotations

import html
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from faultline.api.run import Run
from faultline.errors import ObserveFailed

_TIMEOUT = 10.0
_MANY = 1000  # annotations that are asked for
_LARGEST = 8 << 20
_POINTS = {
    "impact": "the service is hurt",
    "discovered": "it was noticed",
    "located": "its cause is known",
    "recovered": "the service is well again",
    "resolved": "the alarm ended",
}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One of them; times in milliseconds since 1970, `end` is 0 for a moment."""

    time: int
    end: int
    text: str
    tags: tuple[str, ...]

    def to_json(self, dashboard: str = "", panel: int = 0) -> dict[str, Any]:
        """As Grafana wants it; without a dashboard it is shown wherever its tags are asked for."""
        found: dict[str, Any] = {"time": self.time, "text": self.text, "tags": list(self.tags)}
        if self.end:
            found["timeEnd"] = self.end
        if dashboard:
            found["dashboardUID"] = dashboard
        if dashboard and panel:
            found["panelId"] = panel
        return found


def every(run: Run) -> list[Annotation]:
    """The run, its faults, its time points. Grafana shows texts as HTML, so they are escaped."""
    status = run.status
    if status.started is None:
        return []
    tags = ("faultline", f"run:{run.metadata.name}", f"experiment:{run.spec.experiment}")
    stamps = [point.at for point in status.timeline]
    last = status.ended if status.ended is not None else max(stamps, default=status.started)
    verdict = str(status.verdict or "not finished")
    text = f"{verdict}: {run.spec.resolved.title}\n{status.reason}"
    out = [_made(status.started, last, text, (*tags, f"verdict:{verdict}"))]
    for fault in status.faults:
        if fault.started is None:
            continue
        reading = fault.reading or {}
        told = str(reading.get("measured") or reading.get("reason") or "")
        text = f"{fault.name}: {fault.fault}, {fault.effect or 'unmeasured'}\n{told}"
        end = fault.recovered_at if fault.recovered_at is not None else last
        out.append(_made(fault.started, end, text, (*tags, "fault", f"fault:{fault.fault}")))
    for pause in status.pauses:
        end = pause.until if pause.until is not None else last
        out.append(_made(pause.at, end, f"paused: {pause.why}", (*tags, "paused")))
    for name, text in _POINTS.items():
        at = getattr(status.points, name)
        if at is not None:
            out.append(_made(at, 0.0, text, (*tags, name)))
    return out


def _made(start: float, end: float, text: str, tags: tuple[str, ...]) -> Annotation:
    stop = max(round(end * 1000), round(start * 1000) + 1) if end else 0
    return Annotation(round(start * 1000), stop, html.escape(text.strip(), quote=False), tags)


def to_json(run: Run, dashboard: str = "", panel: int = 0) -> str:
    """All of them as one JSON list, as they would be sent one by one."""
    found = [each.to_json(dashboard, panel) for each in every(run)]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def send(
    run: Run, url: str, headers: Mapping[str, str], dashboard: str = "", panel: int = 0
) -> int:
    """Make those that are not there yet; how many. Raises ObserveFailed, with what Grafana said."""
    grafana = _Grafana(url, headers)
    known = grafana.known(f"run:{run.metadata.name}")
    made = 0
    for each in every(run):
        if (each.time, each.end or each.time, each.text) not in known:
            grafana.make(each.to_json(dashboard, panel))
            made += 1
    return made


class _Grafana:
    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ObserveFailed(f"not an address of Grafana: {url}")
        self._url = url.rstrip("/")
        self._headers = {"Accept": "application/json", "User-Agent": "faultline", **headers}
        self._opener = urllib.request.build_opener(_NoRedirect)

    def known(self, tag: str) -> set[tuple[int, int, str]]:
        asked = urllib.parse.urlencode({"tags": tag, "limit": _MANY})
        found = self._ask(f"/api/annotations?{asked}")
        if not isinstance(found, list):
            raise ObserveFailed("Grafana gave no list of annotations")
        rows = cast("list[dict[str, Any]]", found)
        return {
            (int(row.get("time") or 0), int(row.get("timeEnd") or 0), str(row.get("text")))
            for row in rows
        }

    def make(self, annotation: dict[str, Any]) -> None:
        self._ask("/api/annotations", annotation)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if data else {})}
        request = urllib.request.Request(self._url + path, data=data, headers=headers)  # noqa: S310 (http and https alone, above)
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                return json.loads(answer.read(_LARGEST))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(300).decode(errors="replace").strip()
            raise ObserveFailed(f"Grafana answered {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise ObserveFailed(f"Grafana at {self._url}: {why}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is for the address that was named and for no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
