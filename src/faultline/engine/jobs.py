"""A Kubernetes Job as a task: made, followed to its end, and removed again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from faultline.api.graph import JobTask
from faultline.engine.model import Done
from faultline.errors import InvalidParameter, TargetGone, Unsupported

_PAUSE = 1.0  # seconds between two looks
_LINES = 200  # of the log of its pod that are kept


def run_job(task: JobTask, seconds: float, given_up: Callable[[], str]) -> Done:
    """Make the Job and wait for its end; raises Unsupported, InvalidParameter, TargetGone.

    It is removed with its pods, unless it is to be kept; also when it is given up.
    """
    client, resources = _client(task)
    job: Any = resources.Job.from_dict(task.manifest)
    if not job.metadata or not (job.metadata.name or job.metadata.generateName):
        raise InvalidParameter("job.manifest.metadata.name", None, "a name")
    space = job.metadata.namespace or "default"
    made: Any = client.create(job, namespace=space)
    made_name = str(made.metadata.name)
    try:
        return _follow(client, resources, made_name, space, seconds, given_up)
    finally:
        if not task.keep:
            client.delete(resources.Job, made_name, namespace=space, cascade=resources.Background)


def _follow(
    client: Any, resources: Any, name: str, space: str, seconds: float, given_up: Callable[[], str]
) -> Done:
    until = time.monotonic() + seconds
    while True:
        try:
            job: Any = client.get(resources.Job, name, namespace=space)
        except resources.ApiError as error:
            if error.status.code == 404:
                raise TargetGone(f"the Job {space}/{name} was removed by somebody") from error
            raise Unsupported(f"the Job {space}/{name} cannot be read: {error}") from error
        status: Any = job.status
        text = ""
        if status and (status.succeeded or status.failed):
            text = _log(client, resources, name, space)
        output: dict[str, Any] = {"code": 0, "text": text, "json": None, "job": f"{space}/{name}"}
        conditions: list[Any] = (status.conditions or []) if status else []
        for condition in conditions:
            if condition.type == "Complete" and condition.status == "True":
                return Done(None, "", output)
            if condition.type == "Failed" and condition.status == "True":
                why = condition.message or condition.reason or "it failed"
                return Done("error", f"Job {space}/{name}: {why}", {**output, "code": 1})
        if given_up() or time.monotonic() > until:
            why = f"given up: {given_up()}" if given_up() else f"not done within {seconds:g} s"
            return Done("error", f"Job {space}/{name}: {why}", output)
        time.sleep(_PAUSE)


def _log(client: Any, resources: Any, name: str, space: str) -> str:
    pods = list(client.list(resources.Pod, namespace=space, labels={"job-name": name}))
    lines: list[str] = []
    for pod in pods[:1]:
        try:
            lines.extend(client.log(pod.metadata.name, namespace=space, tail_lines=_LINES))
        except resources.ApiError as error:
            lines.append(f"(its log cannot be read: {error})")
    return "".join(lines)


class _Resources:
    """What of lightkube is used, imported only now."""

    def __init__(self) -> None:
        from lightkube.core.exceptions import ApiError
        from lightkube.resources.batch_v1 import Job
        from lightkube.resources.core_v1 import Pod
        from lightkube.types import CascadeType

        self.ApiError, self.Job, self.Pod = ApiError, Job, Pod
        self.Background = CascadeType.BACKGROUND


def _client(task: JobTask) -> tuple[Any, Any]:
    try:
        resources = _Resources()
        from lightkube import Client, KubeConfig
        from lightkube.core.exceptions import ConfigError
    except ModuleNotFoundError as error:
        raise Unsupported(
            "Kubernetes needs an extra", hint="pip install faultline[kubernetes]"
        ) from error
    try:
        config = KubeConfig.from_env()
        found = config.get(context_name=task.context or None)
        return Client(config=found), resources
    except ConfigError as error:
        raise Unsupported(f"no cluster is known here: {error}", hint="set KUBECONFIG") from error
