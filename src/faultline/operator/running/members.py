"""The runs in other clusters that one run consists of: made there once, looked at, told our wishes.

In each cluster its own operator carries the run out; what is lost on the way there changes nothing
of what it does, and its faults end at their deadlines.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from faultline.api.clusters import ClusterRef, ClusterStatus
from faultline.api.model import Metadata
from faultline.api.run import ENGINE, OPERATOR, Phase, Run, Stage
from faultline.engine import runs
from faultline.errors import Conflict, InvalidDocument, TargetGone, UnknownName
from faultline.kubeapi.client import Client
from faultline.kubeapi.embedded import access_of
from faultline.kubeapi.model import Answer, ApiError, Kind, Object, Request, Rest, Wrapped
from faultline.kubeapi.plain import Plain
from faultline.stores.kube import KubeStore
from faultline.stores.model import Exists, Stale

SECRETS: Final = Kind("Secret", "secrets", "v1")
PARENT: Final = "faultline.dev/parent"
"""The annotation of a run in another cluster with the uid of the run that it belongs to."""
TIMEOUT = 10.0  # seconds within which a cluster must answer
FRESH = 60.0  # seconds after which the Secret of a cluster is read anew


@dataclass(slots=True)
class _There:
    """One cluster as it was reached."""

    store: KubeStore
    folder: Path
    since: float


class Hasty(Wrapped):
    """A connection that does not wait long: many others are looked at too."""

    def send(self, asked: Request) -> Answer:
        return super().send(replace(asked, timeout=min(asked.timeout, TIMEOUT)))


class ClusterMembers:
    """The clusters of one run. Each is looked at by one thread at a time."""

    def __init__(self, reach: Callable[[], Rest], namespace: str) -> None:
        self._reach, self._namespace = reach, namespace
        self._there: dict[str, _There] = {}
        self._lock = threading.Lock()

    def look(self, run: Run, cluster: ClusterRef, stop: str) -> ClusterStatus:
        """How far the run is there; raises ApiError, StoreFailed and what will never be better."""
        known = next((each for each in run.status.clusters if each.name == cluster.name), None)
        made_before = known is not None and bool(known.run)
        store = self._store(cluster)
        try:
            try:
                there = store.get(Run, run.metadata.name)
            except UnknownName:
                if made_before:
                    raise TargetGone("the run there was removed by somebody") from None
                if stop:
                    return _never(cluster, stop)
                there = _make(store, run, cluster)
            if there.metadata.annotations.get(PARENT) != run.metadata.uid:
                raise Conflict(f"there is another run {there.metadata.name} there",
                               holder=there.metadata.name)  # fmt: skip
            return _told(cluster, _wish(store, there, run, stop))
        except ApiError:
            self._forget(cluster.name)
            raise

    def close(self) -> None:
        """Let go of connections. Idempotent."""
        for name in list(self._there):
            self._forget(name)

    # ------------------------------------------------------------------ connections

    def _store(self, cluster: ClusterRef) -> KubeStore:
        with self._lock:
            there = self._there.get(cluster.name)
        if there is not None and time.monotonic() - there.since < FRESH:
            return there.store
        self._forget(cluster.name)
        folder = Path(tempfile.mkdtemp(prefix="faultline-cluster-"))
        try:
            access = access_of(
                self._secret(cluster), cluster.context, folder,
                f"the Secret {self._namespace}/{cluster.secret.name}",
            )  # fmt: skip
            store = KubeStore(lambda: Hasty(Plain(access)), cluster.namespace or self._namespace)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._there[cluster.name] = _There(store, folder, time.monotonic())
        return store

    def _secret(self, cluster: ClusterRef) -> str:
        ref = cluster.secret
        with closing(Client(self._reach())) as client:
            try:
                found = client.get(SECRETS, ref.name, self._namespace)
            except ApiError as error:
                if not error.refused:
                    raise
                raise InvalidDocument(f"the Secret of its kubeconfig: {error.message}") from error
        data = cast(Object, found.get("data") or {}).get(ref.key)
        if not data:
            raise InvalidDocument(f"the Secret {ref.name} has no key {ref.key!r}")
        return base64.b64decode(str(data)).decode()

    def _forget(self, name: str) -> None:
        with self._lock:
            there = self._there.pop(name, None)
        if there is not None:
            there.store.close()
            shutil.rmtree(there.folder, ignore_errors=True)


def _make(store: KubeStore, run: Run, cluster: ClusterRef) -> Run:
    meta = run.metadata
    labels = {**meta.labels, "cluster": cluster.name, ENGINE: OPERATOR}
    spec = run.spec.model_copy(
        update={
            "clusters": [], "abort": "", "pause": "",
            "creator": run.spec.creator or f"run {meta.name}",
        }
    )  # fmt: skip
    made = Run(
        metadata=Metadata(name=meta.name, labels=labels, annotations={PARENT: meta.uid}), spec=spec
    )
    try:
        return store.create(made)
    except Exists:
        return store.get(Run, meta.name)


def _wish(store: KubeStore, there: Run, run: Run, stop: str) -> Run:
    """The run there, told what is wanted of it."""
    if there.status.phase is Phase.ENDED:
        return there
    if stop and not there.spec.abort:
        return runs.abort(store, there.metadata.name, stop)
    if there.spec.pause != run.spec.pause:
        spec = there.spec.model_copy(update={"pause": run.spec.pause})
        try:
            return store.update(there.model_copy(update={"spec": spec}))
        except Stale:  # the next look does it
            return there
    return there


def _told(cluster: ClusterRef, there: Run) -> ClusterStatus:
    status = there.status
    faults = status.faults
    return ClusterStatus(
        name=cluster.name, run=there.metadata.name, phase=str(status.phase),
        verdict=str(status.verdict or ""), reason=status.reason,
        faults=len(faults),
        effective=sum(each.effect == "effective" for each in faults),
        open=sum(Stage.WAITING.rank < each.stage.rank < Stage.ENDED.rank for each in faults),
        ended=status.ended if status.phase is Phase.ENDED else None,
        aborted=status.aborted, aborted_by=status.aborted_by,
    )  # fmt: skip


def _never(cluster: ClusterRef, stop: str) -> ClusterStatus:
    return ClusterStatus(
        name=cluster.name, phase=str(Phase.ENDED), verdict="not measured",
        reason=f"it was not begun: {stop}", ended=time.time(),
    )  # fmt: skip
