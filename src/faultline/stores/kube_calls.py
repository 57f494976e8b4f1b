"""How a store in Kubernetes reaches its API server: with patience, and with errors of our own.

A server that is busy says so (429, or 503 with Retry-After) and is asked again when it wants to be,
as API priority and fairness expects of its clients.
https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from faultline.errors import FaultlineError, InvalidDocument, Refused, UnknownName, UsageError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Kind, Request, Rest, Wrapped
from faultline.stores.model import Exists, Expired, Stale, StoreFailed

if TYPE_CHECKING:
    from faultline.api.model import Resource

PATIENCE = 10.0
"""Seconds for which a server that is busy is asked again."""
WRITING = 10.0
"""Seconds that a write may take: whoever waits for it may have a fault to undo."""
_BUSY = (429, 503)
_MANIFESTS = "the rights that are needed are listed in docs/stores.md"
_FORBIDDEN = re.compile(r"cannot (\S+) resource \"([^\"]+)\"(?:.*in the namespace \"([^\"]+)\")?")
_TYPES = re.compile(r"could not find the requested resource|answered 404")


@dataclass(frozen=True, slots=True)
class Where:
    """Which server and namespace; what is empty is that of kubectl, or of this pod."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str = ""

    @staticmethod
    def read(url: str) -> Where:
        """`kube://NAMESPACE`, with `?context=NAME` and `&kubeconfig=FILE`; raises UsageError."""
        try:
            parts = urlsplit(url)
            asked = parse_qs(parts.query, strict_parsing=bool(parts.query))
        except ValueError as error:
            raise UsageError(f"{url} is no store: {error}") from error
        unknown = asked.keys() - {"context", "kubeconfig"}
        if unknown or parts.path.strip("/"):
            raise UsageError(
                f"{url} is no store in Kubernetes", hint="kube://NAMESPACE?context=NAME"
            )
        told = {name: values[-1] for name, values in asked.items()}
        return Where(parts.netloc, **told)

    def connect(self) -> Rest:
        """A new connection; raises StoreFailed, or Unsupported where lightkube is missing."""
        from faultline.kubeapi import kubeconfig, plain

        plainly = not (self.context or self.kubeconfig or "KUBECONFIG" in os.environ)
        try:
            if plainly and "KUBERNETES_SERVICE_HOST" in os.environ:
                return plain.Plain(plain.of_pod())
            return kubeconfig.connect(self.kubeconfig, self.context)
        except ApiError as error:
            raise StoreFailed(
                error.message, hint="which cluster is meant: kube://NAMESPACE?context=NAME"
            ) from error


class Patient(Wrapped):
    """A connection that asks again where the server wants to be asked later."""

    def __init__(self, rest: Rest) -> None:
        super().__init__(rest)
        self._ending = threading.Event()
        self.requests = 0  # that were sent, watches included

    def close(self) -> None:
        self._ending.set()
        super().close()

    def send(self, asked: Request) -> Answer:
        if asked.method != "GET":
            asked = replace(asked, timeout=min(WRITING, asked.timeout))
        until, pause = time.monotonic() + min(PATIENCE, asked.timeout), 0.1
        while True:
            self.requests += 1
            answer = super().send(asked)
            if answer.status not in _BUSY or (answer.status == 503 and not answer.wait):
                return answer
            pause = min(2.0, pause * 2)
            wait = max(answer.wait, pause * random.uniform(0.5, 1.0))
            if time.monotonic() + wait > until or self._ending.wait(wait):
                return answer

    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[Iterator[bytes]]:
        self.requests += 1
        return super().lines(path, query, timeout)


def client(connect: Callable[[], Rest]) -> Client:
    """A client of a new connection."""
    return Client(Patient(connect()))


def sent(rest: Rest) -> int:
    """How many requests went over it."""
    return rest.requests if isinstance(rest, Patient) else 0


def kind_of(model: type[Resource]) -> Kind:
    """Where the server has the resources of a model."""
    from faultline.api.model import API_VERSION

    cluster_wide: bool = getattr(model, "cluster_wide", False)
    name: Any = model.model_fields["kind"].default
    return Kind(str(name), model.plural, API_VERSION, not cluster_wide)


# ---------------------------------------------------------------------- errors


@contextmanager
def translated(kind: str, name: str = "") -> Generator[None]:
    """What the server refuses of this resource, as the errors of stores."""
    try:
        yield
    except ApiError as error:
        raise translate(error, kind, name) from error


def translate(error: ApiError, kind: str, name: str = "") -> FaultlineError:
    """The error of a store for one of the server."""
    what = f"{kind} {name!r}" if name else f"a {kind}"
    if error.status == 413 or "too large" in error.message:
        return InvalidDocument(
            f"{what} is too large for Kubernetes: {error.message}",
            hint="keep it in PostgreSQL, or make it of several",
        )
    match error.status, error.reason:
        case 404, _:
            made = _missing(error, kind, name)
        case 409, "AlreadyExists":
            made = Exists(f"there is a {what} already")
        case 409, _:
            made = Stale(f"{what} was written by somebody else meanwhile: {error.message}")
        case 410, _:
            made = Expired(f"the server does not keep the changes any more: {error.message}")
        case 401, _:
            made = Refused(error.message, hint="the server does not know the account: log in again")
        case 403, _:
            made = Refused(error.message, hint=_right(error.message))
        case ((400 | 422), _):
            made = _invalid(error, what)
        case _:
            made = StoreFailed(f"the API server did not do it: {error.message}")
    return made


def _missing(error: ApiError, kind: str, name: str) -> FaultlineError:
    if _TYPES.search(error.message):
        return StoreFailed(
            f"the API server knows no {kind} of ours",
            hint="define them: faultline kube crds | kubectl apply --server-side -f -",
        )
    if "namespaces " in error.message:
        return UnknownName(error.message, hint="make it: kubectl create namespace NAME")
    return UnknownName(f"there is no {kind} {name!r}")


def _right(message: str) -> str:
    found = _FORBIDDEN.search(message)
    if found is None:
        return _MANIFESTS
    verb, plural, namespace = found.groups()
    where = f" in namespace {namespace}" if namespace else ""
    return f"missing is the right to {verb} {plural}{where}; {_MANIFESTS}"


def _invalid(error: ApiError, what: str) -> InvalidDocument:
    problems = [(path, said) for path, said in error.causes if path]
    lines = "".join(f"\n  {path}: {said}" for path, said in problems)
    told = f"{what} is not valid:{lines}" if lines else f"{what} is not valid: {error.message}"
    return InvalidDocument(told, problems=problems)
