"""A store in a real API server, for the suite of all stores and for what is special to this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from tests.kube.conftest import Server

from faultline.kube.crds import crds
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Kind
from faultline.kubeapi.plain import Plain
from faultline.stores import kube_flushing
from faultline.stores.kube import KubeStore

Opener = Callable[..., KubeStore]
CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1", False
)


def _established(client: Client, name: str) -> bool:
    told = client.get(CRDS, name).get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in told)


@pytest.fixture(scope="session")
def defined(apiserver: Server) -> Server:
    """The server with our kinds."""
    with closing(apiserver.client()) as client:
        made = crds()
        for each in made:
            client.patch(CRDS, each["metadata"]["name"], each, "apply")
        for each in made:
            while not _established(client, each["metadata"]["name"]):
                time.sleep(0.05)
            plural = each["spec"]["names"]["plural"]
            served = f"/apis/{each['spec']['group']}/v1alpha1/{plural}"
            while client.rest.request("GET", served).status != 200:  # a moment after that
                time.sleep(0.05)
    return apiserver


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series are written with the status, as the suite of all stores expects it."""
    monkeypatch.setattr(kube_flushing, "FLUSH", 0.0)


@pytest.fixture
def where(defined: Server, namespace: str, at_once: None) -> str:
    """A new store as `open_store` takes it."""
    return f"kube://{namespace}?kubeconfig={defined.kubeconfig()}"


@pytest.fixture
def fresh(defined: Server, namespace: str) -> Iterator[Opener]:
    """Opens one more connection to the same store."""
    opened: list[KubeStore] = []

    def more(token: str = "", *, cached: bool = False) -> KubeStore:
        access = defined.access(token) if token else defined.access()
        opened.append(KubeStore(lambda: Plain(access), namespace, cached=cached))
        return opened[-1]

    yield more
    for store in opened:
        store.close()


@pytest.fixture
def opener(fresh: Opener, at_once: None) -> Opener:
    return fresh


@pytest.fixture
def store(opener: Opener) -> KubeStore:
    return opener()


@pytest.fixture
def raw(defined: Server) -> Iterator[Client]:
    """The server as everybody else uses it."""
    with closing(defined.client()) as client:
        yield client
