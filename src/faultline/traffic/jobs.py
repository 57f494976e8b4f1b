"""Generators in pods of their own: a Job for each, and what it says is read from its log.

For whoever draws the curves it is a generator as any other. A log may break off and is then read
again: each second has a number, and what was heard is not heard twice.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from faultline.api.traffic import TrafficJob
from faultline.kernel.clock import now
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object, metadata, part
from faultline.traffic.alone import LOAD
from faultline.traffic.model import SECOND, Load, Tick

JOBS: Final = Kind("Job", "jobs", "batch/v1")
PODS: Final = Kind("Pod", "pods", "v1")
LABEL: Final = "faultline.dev/traffic"
USER: Final = 65532
"""Nobody: sending needs no rights."""
MOST: Final = 64 << 20
"""Bytes that are read of one log."""
_LOOK = 0.5  # seconds between two looks for its pod
_LATE = 30.0  # seconds without a word after which the log is read anew
_GRACE = 5  # seconds that a pod has beyond the time-out of its answers
_STOP_WITHIN = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where Jobs are made, and for whom."""

    client: Client
    namespace: str
    job: TrafficJob
    image: str
    name: str  # of the load, for people
    label: str  # by which all Jobs of this load are found
    owner: Object | None = None  # who goes takes them along
    longest: float = 8 * 3600.0  # seconds after which the cluster itself ends them


def manifest(place: Place, name: str, load: Load) -> Object:
    """The Job of one generator."""
    grace = load.timeout // SECOND + _GRACE
    lasts = min(place.longest, load.duration / SECOND + grace + 60)
    meta: Object = {"name": name, "labels": {LABEL: place.label}}
    if place.owner is not None:
        meta["ownerReferences"] = [place.owner]
    container: Object = {
        "name": "traffic", "image": place.image,
        "args": ["traffic", "worker"],
        "env": [{"name": LOAD, "value": load.to_line().decode().strip()}],
        "securityContext": {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True, "runAsNonRoot": True, "runAsUser": USER,
        },
    }  # fmt: skip
    if place.job.pull_policy:
        container["imagePullPolicy"] = place.job.pull_policy
    pod: Object = {
        "restartPolicy": "Never", "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": grace, "containers": [container],
    }  # fmt: skip
    if place.job.node_labels:
        pod["nodeSelector"] = place.job.node_labels
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": meta,
        "spec": {
            "backoffLimit": 0, "completions": 1, "parallelism": 1,
            "activeDeadlineSeconds": max(1, round(lasts)),
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": {LABEL: place.label}}, "spec": pod},
        },
    }  # fmt: skip


def clear(place: Place) -> None:
    """End what an engine before this one has left of this load; raises ApiError."""
    for each in place.client.every(JOBS, place.namespace, f"{LABEL}={place.label}"):
        _delete(place, str(metadata(each)["name"]))


def _delete(place: Place, name: str) -> None:
    try:
        place.client.delete(JOBS, name, place.namespace)
    except ApiError as error:
        if error.status != 404:
            raise


@dataclass
class JobWorker:
    """One generator in a pod, as `Worker` is one beside us."""

    place: Place
    name: str
    load: Load
    pid: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    ticks: list[Tick] = field(default_factory=list[Tick])
    _heard: list[Tick] = field(default_factory=list[Tick])
    _begun: float = 0.0
    _shift: int | None = None  # seconds by which it began later than the load as a whole
    _last: int = -1  # the number of the latest second that was heard
    _failure: str = ""
    _asked: bool = False  # to end
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.place.client.create(
            JOBS, manifest(self.place, self.name, self.load), self.place.namespace
        )
        self._thread = threading.Thread(
            target=self._follow, name=f"traffic {self.name}", daemon=True
        )
        self._thread.start()

    # ------------------------------------------------------------------ told

    def tell(self, line: bytes) -> None:
        """`go N`: from then on its seconds count; `end` and `stop` end its Job."""
        word, _, number = line.decode().strip().partition(" ")
        if word == "go":
            started = time.time() + (int(number) - now()) / SECOND
            with self._lock:
                self._shift = round(self._begun - started)
                heard, self._heard = self._heard, []
                for tick in heard:
                    self._count(tick)
        elif word in ("end", "stop"):
            self._asked = True
            with suppress(ApiError):  # it ends by itself
                _delete(self.place, self.name)

    def stop(self) -> None:
        """End it now, and listen no more."""
        self.tell(b"stop\n")
        self.ended.wait(_STOP_WITHIN)
        self.ended.set()

    def failure(self) -> str:
        """Why it ended before its time; '' while it runs and when it ended well."""
        return "" if self._asked else self._failure

    # ------------------------------------------------------------------ heard

    def _count(self, tick: Tick) -> None:
        index = tick.index + (self._shift or 0)
        if index >= 0:
            self.ticks.append(
                replace(tick, index=index, until=tick.until + (self._shift or 0) * SECOND)
            )

    def _follow(self) -> None:
        try:
            pod = self._pod()
            while pod and not self.ended.is_set() and not self._read(pod):
                time.sleep(_LOOK)
                if not self._there(pod):
                    self._failure = self._failure or f"its pod {pod} has gone"
                    break
        except ApiError as error:
            self._failure = error.message
        self.ready.set()
        self.ended.set()

    def _pod(self) -> str:
        """The name of its pod once it runs, or has run; empty if there is none to be."""
        space = self.place.namespace
        while not self.ended.is_set():
            for pod in self.place.client.every(PODS, space, f"job-name={self.name}"):
                phase = part(pod, "status").get("phase")
                if phase in ("Running", "Succeeded", "Failed"):
                    return str(metadata(pod)["name"])
            if not self._job_there():
                self._failure = "its Job was removed"
                return ""
            time.sleep(_LOOK)
        return ""

    def _job_there(self) -> bool:
        try:
            self.place.client.get(JOBS, self.name, self.place.namespace)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _there(self, pod: str) -> bool:
        try:
            found = self.place.client.get(PODS, pod, self.place.namespace)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return part(found, "status").get("phase") == "Running"

    def _read(self, pod: str) -> bool:
        """Its log from the beginning, until it says that this is all; False if it breaks off."""
        path, size = PODS.path(self.place.namespace, pod, "log"), 0
        try:
            with self.place.client.rest.lines(path, {"follow": "true"}, _LATE) as lines:
                for line in lines:
                    size += len(line)
                    if self._hear(line):
                        return True
                    if self.ended.is_set():
                        return True
                    if size > MOST:
                        self._failure = f"its log is longer than {MOST >> 20} MiB"
                        return True
        except ApiError:
            return False
        return False

    def _hear(self, line: bytes) -> bool:
        """Take in a word; whether it was the last."""
        try:
            word: Any = json.loads(line)
        except ValueError:
            return False  # somebody else's words
        if not isinstance(word, dict):
            return False
        told = cast(Object, word)
        if "begun" in told:
            self._begun = float(told["begun"])
            self.ready.set()
        elif "tick" in told:
            tick = Tick.from_json(told["tick"])
            with self._lock:
                if tick.index > self._last:
                    self._last = tick.index
                    (self._heard.append if self._shift is None else self._count)(tick)
        elif "failed" in told:
            self._failure = str(told["failed"])
            return True
        return "done" in told
