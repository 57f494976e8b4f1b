"""The kubernetes probe: what an API server says of objects, of any kind."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import datetime
from typing import Any, cast

from faultline.api.probe import KubernetesProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.kubeapi.model import Kind, Object, part, parts
from faultline.probes import prober
from faultline.probes.cluster import EVENTS, Api, NotThere
from faultline.probes.limit import Limit

_SHOWN = 50  # names and values that expressions see
_KEPT = 100_000  # containers and events that are remembered
_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "E": 1e18, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
    "Ei": 2.0**60,
}  # fmt: skip
_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([numkMGTPE]?|[KMGTPE]i)")


class Prober(prober.Prober[KubernetesProbe]):
    """Its value is a number of objects, of restarts or of events, or one that stands in them."""

    def __init__(self, spec: KubernetesProbe, traffic: prober.Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._begun: Api | None = None
        self._first: dict[str, int] | None = None  # counts at the first look
        self._last: dict[str, int] = {}  # and at the latest one, also of what has gone since
        self._uids: set[str] = set()
        self._reasons = Counter[str]()

    @property
    def _api(self) -> Api:
        if self._begun is None:
            self._begun = Api(self.spec.kubeconfig, self.spec.context, self.reach)
        return self._begun

    def close(self) -> None:
        if self._begun is not None:
            self._begun.close()

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        kind = self._api.kind(spec.kind, limit)
        if spec.measure == "events" and not spec.selector and not spec.field_selector:
            return self._events(kind, None, limit)
        try:
            objects = self._objects(kind, limit)
        except NotThere:
            if spec.measure == "count":
                return self._measured(0.0, [], f"no {kind.kind} {spec.object}")
            return Measurement(ok=False, text=f"there is no {kind.kind} {spec.object}")
        match spec.measure:
            case "count":
                found = self._measured(
                    float(len(objects)), objects, f"{len(objects)} of {kind.kind}"
                )
            case "ready":
                found = self._ready(kind, objects)
            case "condition":
                found = self._condition(kind, objects)
            case "restarts":
                found = self._restarts(objects)
            case "events":
                found = self._events(kind, objects, limit)
            case "jsonPath":
                found = self._at_path(kind, objects)
        return found

    def _objects(self, kind: Kind, limit: Limit) -> list[Object]:
        spec = self.spec
        if spec.object:
            return [self._api.one(kind, spec.namespace, spec.object, limit)]
        return self._api.every(kind, spec.namespace, limit, spec.selector, spec.field_selector)

    def _measured(
        self, value: float | None, objects: list[Object], text: str, **result: Any
    ) -> Measurement:
        names = [_name(each) for each in objects[:_SHOWN]]
        told = {"count": len(objects), "names": names, **result}
        return Measurement(value=value, ok=True, text=text, result=told)

    # ------------------------------------------------------------------ ready

    def _ready(self, kind: Kind, objects: list[Object]) -> Measurement:
        ready = wanted = 0
        missing: list[str] = []
        for each in objects:
            if part(each, "status").get("phase") == "Succeeded":
                continue  # a pod that has done its work
            replicas = _replicas(each)
            if replicas is None:
                good = self._holds(kind, each, "Ready", "True") and not _ending(each)
                replicas = (int(good), 1)
            elif self.spec.min_seconds:
                raise ObserveFailed(
                    f"a {kind.kind} does not tell since when its replicas are ready"
                )
            ready, wanted = ready + replicas[0], wanted + replicas[1]
            if replicas[0] < replicas[1]:
                missing.append(_name(each))
        return self._shared(objects, ready, wanted, "ready", missing)

    def _condition(self, kind: Kind, objects: list[Object]) -> Measurement:
        spec = self.spec
        holds = [self._holds(kind, each, spec.condition, spec.status) for each in objects]
        missing = [_name(each) for each, good in zip(objects, holds, strict=True) if not good]
        what = f"{spec.condition}={spec.status}"
        return self._shared(objects, sum(holds), len(objects), what, missing)

    def _shared(
        self, objects: list[Object], found: int, wanted: int, what: str, missing: list[str]
    ) -> Measurement:
        """The number or the share; with nothing to expect of it, all have to be so."""
        text = f"{found} of {wanted} {what}" + (
            f", not {', '.join(missing[:3])}" if missing else ""
        )
        if not wanted and (self.spec.share or not self.spec.expect):
            raise ObserveFailed("no object is selected: nothing can be said of all of nothing")
        value = found / wanted if self.spec.share else float(found)
        told = {"found": found, "wanted": wanted, "missing": missing[:_SHOWN]}
        measured = self._measured(value, objects, text, **told)
        measured.ok = bool(self.spec.expect) or found >= wanted
        return measured

    def _holds(self, kind: Kind, each: Object, condition: str, status: str) -> bool:
        """Whether a condition is so, and has been for long enough by the clock of the server."""
        if "status" not in each:
            raise ObserveFailed(f"a {kind.kind} has no conditions")
        for found in parts(part(each, "status"), "conditions"):
            if found.get("type") != condition:
                continue
            if found.get("status") != status:
                return False
            least = self.spec.min_seconds.seconds
            if not least:
                return True
            since = _moment(found.get("lastTransitionTime"))
            return since is not None and self._api.now - since >= least
        return False

    # ------------------------------------------------------------------ since the first look

    def _since_first(self, counts: dict[str, int]) -> int:
        """How many were added since the first look, also of what has gone since."""
        if self._first is None:
            self._first = dict(counts)
        if len(self._last) > _KEPT:
            raise ObserveFailed(f"there are more than {_KEPT} to remember: select fewer")
        self._last.update(counts)
        return sum(max(0, count - self._first.get(key, 0)) for key, count in self._last.items())

    def _restarts(self, objects: list[Object]) -> Measurement:
        counts: dict[str, int] = {}
        before = {**self._last}
        for each in objects:
            status = part(each, "status")
            kinds = ("containerStatuses", "initContainerStatuses")
            for one in (one for kind in kinds for one in parts(status, kind)):
                key = f"{each['metadata']['uid']}/{one['name']}"
                counts[key] = int(one.get("restartCount", 0))
                if self._first is not None and counts[key] > before.get(key, 0):
                    ended = part(part(one, "lastState"), "terminated")
                    self._reasons[str(ended.get("reason", "unknown"))] += 1
        found = self._since_first(counts)
        why = ", ".join(f"{count} {reason}" for reason, count in self._reasons.items())
        return self._measured(
            float(found),
            objects,
            f"{found} restarts" + (f": {why}" if why else ""),
            total=sum(counts.values()),
            reasons=dict(self._reasons),
        )

    def _events(self, kind: Kind, objects: list[Object] | None, limit: Limit) -> Measurement:
        spec = self.spec
        fields = [f"involvedObject.kind={kind.kind}"]
        fields += [f"involvedObject.name={spec.object}"] if spec.object else []
        fields += [f"type={spec.event_type}"] if spec.event_type != "any" else []
        space = spec.namespace if kind.namespaced else "*"
        events = self._api.every(EVENTS, space, limit, fields=",".join(fields))
        if objects is not None:
            self._uids |= {each["metadata"]["uid"] for each in objects}
            events = [one for one in events if part(one, "involvedObject").get("uid") in self._uids]
        events = [one for one in events if re.search(spec.pattern, _event(one))]
        events.sort(key=_last_seen)
        found = self._since_first({one["metadata"]["uid"]: _times(one) for one in events})
        latest = [_event(one) for one in events[-_SHOWN:]]
        text = f"{found} events" + (f", the latest {latest[-1]}" if found and latest else "")
        return self._measured(float(found), objects or [], text, events=latest)

    # ------------------------------------------------------------------ a value

    def _at_path(self, kind: Kind, objects: list[Object]) -> Measurement:
        from jsonpath_ng.ext.parser import parse

        expression: Any = parse(self.spec.json_path)  # its types are open
        values: list[Any] = []
        for each in objects:
            try:
                values += [found.value for found in expression.find(each)]
            except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                raise ObserveFailed(f"the path does not fit a {kind.kind}: {error!r}") from error
        shown = values[:_SHOWN]
        numbers = [quantity(value) for value in values]
        told = ", ".join(str(value)[:60] for value in shown[:3])
        if not values:
            text = f"nothing stands at {self.spec.json_path}"
            return Measurement(
                ok=False if objects else None, text=text if objects else "no object is selected"
            )
        if None in numbers:
            return self._measured(None, objects, told, values=shown)
        return self._measured(self._one(cast("list[float]", numbers)), objects, told, values=shown)

    def _one(self, numbers: list[float]) -> float:
        match self.spec.reduce:
            case "only":
                if len(numbers) > 1:
                    raise ObserveFailed(
                        f"{len(numbers)} values were found, one is expected: name the object, "
                        "or use `reduce`"
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


def quantity(value: Any) -> float | None:
    """A number, a truth value or a quantity of Kubernetes as a number; None for anything else."""
    if isinstance(value, bool | int | float):
        return float(value)
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) * _SUFFIXES[found[2]] if found else None


def _name(each: Object) -> str:
    about = each["metadata"]
    space = about.get("namespace")
    return f"{space}/{about['name']}" if space else str(about["name"])


def _ending(each: Object) -> bool:
    """Whether it is being deleted: nothing is sent to such a pod any more."""
    return "deletionTimestamp" in each["metadata"]


def _replicas(each: Object) -> tuple[int, int] | None:
    """How many replicas of a workload are ready and how many are wanted; None if it has none."""
    spec, status = part(each, "spec"), part(each, "status")
    if "desiredNumberScheduled" in status:
        return int(status.get("numberReady") or 0), int(status["desiredNumberScheduled"])
    if "replicas" in spec and isinstance(spec["replicas"], int):
        return int(status.get("readyReplicas") or 0), spec["replicas"]
    return None


def _moment(text: Any) -> float | None:
    return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None


def _event(one: Object) -> str:
    return f"{one.get('reason', '')}: {one.get('message', '')}"


def _times(one: Object) -> int:
    series = part(one, "series")
    return int(series.get("count") or one.get("count") or 1)


def _last_seen(one: Object) -> str:
    series = part(one, "series")
    last = series.get("lastObservedTime") or one.get("lastTimestamp") or one.get("eventTime")
    return str(last or one["metadata"].get("creationTimestamp") or "")
