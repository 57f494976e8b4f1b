"""A Kubernetes Job as a task: made, followed to its end, and removed again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from faultline.api.graph import JobTask
from faultline.engine.model import Done
from faultline.errors import InvalidParameter, TargetGone, Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.following import follow
from faultline.kubeapi.model import ApiError, Kind, Object, Rest, metadata, part, parts

JOBS: Final = Kind("Job", "jobs", "batch/v1")
PODS: Final = Kind("Pod", "pods", "v1")
_SLICE = 2.0  # seconds after which it is looked whether the task was given up
_LINES = 200  # of the log of its pod that are kept
_BYTES = 256 << 10  # of it that are read


@dataclass(frozen=True, slots=True)
class Where:
    """The cluster in which Jobs are made, where they do not name another one."""

    connect: Callable[[], Rest]
    owner: Object | None = None
    """Whoever goes takes the Job with it, as an ownerReference."""


def run_job(
    task: JobTask, seconds: float, given_up: Callable[[], str], where: Where | None = None
) -> Done:
    """Make the Job and wait for its end; raises Unsupported, InvalidParameter, TargetGone.

    It is removed with its pods, unless it is to be kept; also when it is given up.
    """
    meta: Object = dict(cast(Object, task.manifest.get("metadata") or {}))
    if not (meta.get("name") or meta.get("generateName")):
        raise InvalidParameter("job.manifest.metadata.name", None, "a name")
    with closing(_client(task, where)) as client:
        space = str(meta.get("namespace") or client.rest.namespace)
        if where is not None and where.owner is not None and not task.keep:
            meta["ownerReferences"] = [where.owner]
        whole = {"apiVersion": JOBS.version, "kind": "Job", **task.manifest, "metadata": meta}
        try:
            name = str(metadata(client.create(JOBS, whole, space))["name"])
        except ApiError as error:
            raise Unsupported(f"the Job cannot be made in {space}: {error.message}") from error
        try:
            return _follow(client, name, space, time.monotonic() + seconds, given_up)
        finally:
            if not task.keep:
                remove(client, name, space)


def _client(task: JobTask, where: Where | None) -> Client:
    try:
        if where is not None and not task.context:
            return Client(where.connect())
        from faultline.kubeapi.kubeconfig import connect

        return Client(connect(context=task.context))
    except ApiError as error:
        told = f"no cluster is known here: {error.message}"
        raise Unsupported(told, hint="set KUBECONFIG") from error


def remove(client: Client, name: str, space: str) -> None:
    """Delete a Job with its pods; harmless if it has gone. Raises ApiError."""
    try:
        client.delete(JOBS, name, space)
    except ApiError as error:
        if error.status != 404:
            raise


def _follow(
    client: Client, name: str, space: str, until: float, given_up: Callable[[], str]
) -> Done:
    called = f"the Job {space}/{name}"
    while True:
        left = max(0.0, until - time.monotonic())
        try:
            job = follow(client, JOBS, name, space, _is_over, min(_SLICE, left))
        except ApiError as error:
            raise Unsupported(f"{called} cannot be read: {error.message}") from error
        if job is None:
            raise TargetGone(f"{called} was removed by somebody")
        for kind, text in _conditions(job).items():
            output = _output(client, name, space)
            if kind == "Complete":
                return Done(None, "", output)
            return Done("error", f"Job {space}/{name}: {text}", {**output, "code": 1})
        why = given_up()
        if why or time.monotonic() > until:
            told = f"given up: {why}" if why else "not done in time"
            return Done("error", f"Job {space}/{name}: {told}", _output(client, name, space))


def _output(client: Client, name: str, space: str) -> dict[str, Any]:
    text, found = log(client, name, space), cast(Any, None)
    with suppress(ValueError):
        found = json.loads(text)
    return {"code": 0, "text": text, "json": found, "job": f"{space}/{name}"}


def _conditions(job: Object) -> dict[str, str]:
    """How it ended: `Complete` or `Failed` and why; empty while it has not."""
    told = parts(part(job, "status"), "conditions")
    return {
        str(each["type"]): str(each.get("message") or each.get("reason") or "it failed")
        for each in told
        if each.get("type") in ("Complete", "Failed") and each.get("status") == "True"
    }


def _is_over(job: Object) -> bool:
    return bool(_conditions(job))


def log(client: Client, name: str, space: str) -> str:
    """The end of what its first pod wrote, or why that cannot be read."""
    try:
        for pod in client.every(PODS, space, f"job-name={name}"):
            path = PODS.path(space, str(metadata(pod)["name"]), "log")
            asked = {"tailLines": str(_LINES), "limitBytes": str(_BYTES)}
            answer = client.rest.request("GET", path, asked)
            if answer.status >= 400:
                answer.json()
            return answer.body.decode(errors="replace")
    except ApiError as error:
        return f"(its log cannot be read: {error.message})"
    return ""
