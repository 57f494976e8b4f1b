"""A connection as kubectl has it: kubeconfig files, contexts, programs that give credentials.

All of that is lightkube's business, and so is HTTP (its own httpx).
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from faultline.errors import Unsupported
from faultline.kubeapi.model import (
    Answer,
    ApiError,
    Asking,
    Request,
    Rest,
    json_of,
    refusal,
    said,
    silent,
)
from faultline.kubeapi.plain import watched_over


def connect(kubeconfig: str = "", context: str = "") -> Rest:
    """The server that is named, else that of this pod, else that of kubectl; raises ApiError where
    the configuration is unusable, Unsupported where lightkube is missing.
    """
    made = _made(kubeconfig, context, _plain)
    return Adapted(made.client, made.namespace, made.failures)


def asynchronous(kubeconfig: str = "", context: str = "") -> Asynchronous:
    """The same for an event loop, with as many connections as are asked for at the same time."""
    return _made(kubeconfig, context, _unlimited)


@dataclass(frozen=True, slots=True)
class Asynchronous:
    """An HTTP client with its credentials."""

    client: Any
    namespace: str
    failures: tuple[type[BaseException], ...]


def _plain(adapter: Any, config: Any) -> Any:
    return adapter.Client(config, adapter.ConnectionParams())


def _unlimited(adapter: Any, config: Any) -> Any:
    http = cast(Any, vars(adapter)["httpx"])
    told = adapter.ConnectionParams(timeout=http.Timeout(10.0, read=None, pool=None))
    limits = http.Limits(max_connections=None, max_keepalive_connections=50)
    return http.AsyncClient(**told.httpx_params(config), limits=limits)


def _made(kubeconfig: str, context: str, make: Callable[[Any, Any], Any]) -> Asynchronous:
    try:
        from lightkube.config import client_adapter
        from lightkube.config.kubeconfig import KubeConfig
        from lightkube.core.exceptions import ConfigError
    except ImportError as error:
        raise Unsupported(
            "lightkube is not installed", hint="pip install 'faultline[kubernetes]'"
        ) from error
    from yaml import YAMLError

    failed = (ConfigError, OSError, ValueError, KeyError, subprocess.SubprocessError)
    try:
        config: Any = _read(KubeConfig, kubeconfig, context).get(context or None)
        made = make(client_adapter, config)
    except (*failed, YAMLError, TypeError, AttributeError, AssertionError) as error:
        raise ApiError(0, "NoCluster", f"no cluster can be reached: {said(error)}") from error
    http: Any = vars(client_adapter)["httpx"]  # its own name for httpx2
    logging.getLogger(http.__name__).setLevel(logging.WARNING)  # it tells of every request
    return Asynchronous(made, config.namespace, (http.HTTPError, http.InvalidURL, *failed))


def _read(reader: Any, kubeconfig: str, context: str) -> Any:
    # kubectl merges several files; the first one counts here.
    usual = os.environ.get("KUBECONFIG", "").partition(":")[0] or "~/.kube/config"
    if kubeconfig or context:
        return reader.from_file(kubeconfig or usual)
    if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
        return reader.from_service_account()
    return reader.from_file(usual)


class Adapted(Asking):
    """lightkube's HTTP client as a `Rest`."""

    def __init__(
        self, client: Any, namespace: str, failures: tuple[type[BaseException], ...]
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._failures = failures
        self._watching: set[Any] = set()

    @property
    def server(self) -> str:
        return str(self._client.base_url)

    @property
    def namespace(self) -> str:
        return self._namespace

    def close(self) -> None:
        """Whoever reads lines in another thread is told that the connection broke."""
        for watching in tuple(self._watching - {None}):
            with suppress(OSError):
                watching.shutdown(socket.SHUT_RDWR)
        self._client.close()

    def send(self, asked: Request) -> Answer:
        data = asked.data
        headers = {} if data is None else {"Content-Type": asked.content}
        more = {"content": data, "headers": headers, "timeout": asked.timeout}
        try:
            answer = self._client.request(asked.method, asked.path, params=asked.query, **more)
        except self._failures as error:
            raise silent(self.server, error) from error
        except RuntimeError as error:  # that it was closed meanwhile has no error of its own
            if not self._client.is_closed:
                raise
            raise silent(self.server, error) from error
        return Answer(answer.status_code, dict(answer.headers), answer.content)

    @contextmanager
    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> Generator[Iterator[bytes]]:
        try:
            with self._client.stream("GET", path, params=query, timeout=timeout) as answer:
                if answer.status_code != 200:
                    raise refusal(answer.status_code, json_of(answer.read()))
                stream = answer.extensions.get("network_stream")
                watching = None if stream is None else stream.get_extra_info("socket")
                try:
                    if watching is not None:
                        watched_over(watching)
                    self._watching.add(watching)
                    yield (line.encode() for line in answer.iter_lines() if line)
                finally:
                    self._watching.discard(watching)
        except self._failures as error:
            raise silent(self.server, error) from error
        except RuntimeError as error:  # that it was closed meanwhile has no error of its own
            if not self._client.is_closed:
                raise
            raise silent(self.server, error) from error
