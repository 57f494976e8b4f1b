"""A real API server of Kubernetes for these tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from tests.kube.apiserver import ADMIN, Server, running

__all__ = ["ADMIN", "Server"]


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """One for all tests; each makes a namespace of its own."""
    with running(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture
def namespace(apiserver: Server, request: pytest.FixtureRequest) -> str:
    """A namespace of this test. It goes with the server: without controllers nothing empties it."""
    words = request.node.name.lower()
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in words)
    name = f"t-{abs(hash(request.node.nodeid)) % 10**8}-{safe}"[:50].strip("-")
    client = apiserver.client()
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    client.rest.request("POST", "/api/v1/namespaces", None, made).json()
    client.close()
    return name
