"""Reading objects of any kind from the API server of a Kubernetes cluster, within a limit.

What is read stays JSON, so that every kind and every version of it is the same to us. A server that
does not answer is no answer about its objects.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from faultline.errors import ObserveFailed, Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Kind, Object, Request, Rest, Wrapped
from faultline.probes.apart import Apart
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Reach, not_installed

T = TypeVar("T")

_MOST = 20_000  # objects that one measurement reads

EVENTS = Kind("Event", "events", "v1")


class NotThere(Exception):
    """The object that is named does not exist."""


class _Timed(Wrapped):
    """A connection that answers within a limit, and tells the time of the server."""

    def __init__(self, rest: Rest) -> None:
        super().__init__(rest)
        self.limit: Limit | None = None
        self.now = time.time()  # of the server, as far as its last answer tells

    def send(self, asked: Request) -> Answer:
        left = asked.timeout if self.limit is None else self.limit.left()
        answer = self._rest.request(asked.method, asked.path, asked.query, timeout=left)
        if date := answer.headers.get("date"):
            self.now = parsedate_to_datetime(date).timestamp()
        return answer


class Api:
    """One API server. Used by one thread at a time."""

    def __init__(self, kubeconfig: str = "", context: str = "", reach: Reach | None = None) -> None:
        """`reach` connects where neither file nor context is named."""
        self._reach = reach if reach and not (kubeconfig or context) else None
        self._kubeconfig, self._context = kubeconfig, context
        self._client: Client | None = None
        self._timed: _Timed | None = None
        self._apart = Apart("kubernetes")

    def close(self) -> None:
        """Let go of connections. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def now(self) -> float:
        """The time of the server, as far as its last answer tells."""
        return time.time() if self._timed is None else self._timed.now

    # ------------------------------------------------------------------ asking

    def one(self, kind: Kind, namespace: str, name: str, limit: Limit) -> Object:
        """One object; raises NotThere."""
        try:
            return self._ask(limit, lambda client: client.get(kind, name, namespace))
        except ApiError as error:
            if error.status == 404:
                raise NotThere(error.message) from error
            raise _unknown(error) from error

    def every(
        self, kind: Kind, namespace: str, limit: Limit, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Objects of a kind that fit the selectors; of namespace `*` those of all."""

        def read(client: Client) -> list[Object]:
            where = "" if namespace == "*" else namespace or client.rest.namespace
            found: list[Object] = []
            for each in client.every(kind, where, labels, fields):
                found.append(each)
                if len(found) > _MOST:
                    raise ObserveFailed(f"there are more than {_MOST} {kind.plural}: select fewer")
            return found

        try:
            return self._ask(limit, read)
        except ApiError as error:
            raise _unknown(error) from error

    def kind(self, name: str, limit: Limit) -> Kind:
        """The kind of this name, as the server knows it; the first where two groups have it."""
        try:
            return self._ask(limit, lambda client: client.kind(name))
        except ApiError as error:
            if error.status == 404:
                raise ObserveFailed(f"the server knows no kind {name!r}") from error
            raise _unknown(error) from error

    def _ask(self, limit: Limit, work: Callable[[Client], T]) -> T:
        """In a thread of its own: what the operating system looks up may take for ever."""

        def asked() -> T:
            client = self._connected()
            if self._timed is not None:
                self._timed.limit = limit
            return work(client)

        try:
            return self._apart.run(limit, asked)
        except NoAnswer as error:
            raise ObserveFailed(f"the API server: {error}") from error

    def _connected(self) -> Client:
        if self._client is None:
            self._timed = _Timed(self._connect())
            self._client = Client(self._timed)
        return self._client

    def _connect(self) -> Rest:
        try:
            if self._reach is not None:
                return self._reach()
            from faultline.kubeapi.kubeconfig import connect

            return connect(self._kubeconfig, self._context)
        except ApiError as error:
            raise ObserveFailed(error.message) from error
        except Unsupported as error:
            raise not_installed("lightkube", "kubernetes") from error


def _unknown(error: ApiError) -> ObserveFailed:
    if error.status:
        return ObserveFailed(f"the API server answered {error.status}: {error.message}")
    return ObserveFailed(error.message)
