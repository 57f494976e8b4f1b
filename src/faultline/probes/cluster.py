"""Reading objects of any kind from the API server of a Kubernetes cluster.

How it is reached and who asks (certificates, tokens, programs that give one) is lightkube's
business; what is read stays JSON, so that every kind and every version of it is the same to us. A
server that does not answer is no answer about its objects.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, cast

from faultline.errors import ObserveFailed
from faultline.probes.apart import Apart
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import not_installed

Object = dict[str, Any]

_CHUNK = 500  # objects of one answer
_MOST = 20_000  # objects that one measurement reads


class NotThere(Exception):
    """The object that is named does not exist."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and where the server has it."""

    kind: str
    plural: str
    version: str  # `v1`, `apps/v1`
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """The address of one object, or of all of a namespace (`*`: of all namespaces)."""
        root = f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace != "*" else ""
        return f"{root}{within}/{self.plural}" + (f"/{name}" if name else "")


EVENTS = Kind("Event", "events", "v1", True)


class Api:
    """One API server. Used by one thread at a time."""

    def __init__(self, kubeconfig: str = "", context: str = "") -> None:
        self._kubeconfig, self._context = kubeconfig, context
        self._client: Any = None
        self._failures: tuple[type[BaseException], ...] = ()
        self._kinds: dict[str, Kind] = {}
        self._apart = Apart("kubernetes")
        self.namespace = "default"
        self.now = time.time()  # of the server, as far as its last answer tells

    def close(self) -> None:
        """Let go of connections. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # ------------------------------------------------------------------ objects

    def one(self, kind: Kind, namespace: str, name: str, limit: Limit) -> Object:
        """One object; raises NotThere."""
        return self._get(kind.path(namespace or self.namespace, name), {}, limit)

    def every(
        self, kind: Kind, namespace: str, limit: Limit, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Objects of a kind that fit the selectors."""
        asked = {"limit": str(_CHUNK), "labelSelector": labels, "fieldSelector": fields}
        query = {name: value for name, value in asked.items() if value}
        found: list[Object] = []
        while True:
            try:
                answer = self._get(kind.path(namespace or self.namespace), query, limit)
            except NotThere as error:
                raise ObserveFailed(f"the server has no {kind.plural}: {error}") from error
            found += parts(answer, "items")
            if len(found) > _MOST:
                raise ObserveFailed(f"there are more than {_MOST} {kind.plural}: select fewer")
            query["continue"] = str(part(answer, "metadata").get("continue") or "")
            if not query["continue"]:
                return found

    # ------------------------------------------------------------------ kinds

    def kind(self, name: str, limit: Limit) -> Kind:
        """The kind of this name, as the server knows it; the first where two groups have it."""
        if name not in self._kinds:
            self._kinds[name] = self._find(name.lower(), limit)
        return self._kinds[name]

    def _find(self, wanted: str, limit: Limit) -> Kind:
        if found := self._among("v1", "", wanted, limit):
            return found
        for group in parts(self._get("/apis", {}, limit), "groups"):
            name, preferred = group["name"], group["preferredVersion"]["groupVersion"]
            if "." in wanted and not name.startswith(wanted.partition(".")[2]):
                continue
            if found := self._among(preferred, name, wanted, limit):
                return found
        raise ObserveFailed(f"the server knows no kind {wanted!r}")

    def _among(self, version: str, group: str, wanted: str, limit: Limit) -> Kind | None:
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        try:
            resources = parts(self._get(root, {}, limit), "resources")
        except NotThere:
            return None  # a group whose server is gone
        for each in resources:
            names = {each["kind"], each["name"], each.get("singularName", "")}
            names |= {*(each.get("shortNames") or [])}
            lower = {name.lower() for name in names if name}
            if "/" not in each["name"] and {wanted, wanted.removesuffix(f".{group}")} & lower:
                return Kind(each["kind"], each["name"], version, each["namespaced"])
        return None

    # ------------------------------------------------------------------ asking

    def _get(self, path: str, query: dict[str, str], limit: Limit) -> Object:
        try:
            return self._apart.run(limit, lambda: self._ask(path, query, limit))
        except NoAnswer as error:
            raise ObserveFailed(f"the API server: {error}") from error

    def _ask(self, path: str, query: dict[str, str], limit: Limit) -> Object:
        client = self._connected()
        try:
            answer = client.get(path, params=query, timeout=limit.left())
            body: Any = answer.json()
        except self._failures as error:
            raise ObserveFailed(f"the API server at {client.base_url}: {_said(error)}") from error
        if date := answer.headers.get("date"):
            self.now = parsedate_to_datetime(date).timestamp()
        if not isinstance(body, dict):
            raise ObserveFailed(f"{client.base_url} answered {answer.status_code}, not an object")
        found = cast("Object", body)
        message = str(found.get("message", ""))
        if answer.status_code == 404:
            raise NotThere(message)
        if answer.status_code != 200:
            raise ObserveFailed(f"the API server answered {answer.status_code}: {message}")
        return found

    def _connected(self) -> Any:
        if self._client is not None:
            return self._client
        from yaml import YAMLError

        try:
            from lightkube.config import client_adapter
            from lightkube.config.kubeconfig import KubeConfig
            from lightkube.core.exceptions import ConfigError
        except ImportError as error:
            raise not_installed("lightkube", "kubernetes") from error
        # Its own name for httpx, which is httpx2 in newer versions.
        http: Any = vars(client_adapter)["httpx"]
        failed = (ConfigError, OSError, ValueError, KeyError, subprocess.SubprocessError)
        self._failures = (http.HTTPError, http.InvalidURL, *failed)
        make: Callable[..., Any] = client_adapter.Client
        try:
            config: Any = self._read(KubeConfig).get(self._context or None)
            self.namespace = config.namespace
            self._client = make(config, client_adapter.ConnectionParams())
        except (*failed, YAMLError, TypeError, AttributeError, AssertionError) as error:
            raise ObserveFailed(f"no cluster can be reached: {_said(error)}") from error
        return self._client

    def _read(self, reader: Any) -> Any:
        """The configuration that is named, else of the cluster that we run in, else of kubectl."""
        # kubectl merges several files; the first one counts here.
        usual = os.environ.get("KUBECONFIG", "").partition(":")[0] or "~/.kube/config"
        if self._kubeconfig or self._context:
            return reader.from_file(self._kubeconfig or usual)
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            return reader.from_service_account()
        return reader.from_file(usual)


def part(each: Object, name: str) -> Object:
    """What an object has under a name; empty if it has nothing there."""
    return cast("Object", each.get(name) or {})


def parts(each: Object, name: str) -> list[Object]:
    """The list that an object has under a name."""
    return cast("list[Object]", each.get(name) or [])


def _said(error: BaseException) -> str:
    return f"{error}" or type(error).__name__
