"""Our kinds in a real cluster, for as long as a module of tests needs them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from tests.containers.test_pods import kubectl

from faultline.kube.crds import crd


@contextmanager
def kinds_there(*kinds: str) -> Generator[None]:
    """They are known for the block; behind it they are gone, with all objects of them."""
    made = [crd(kind) for kind in kinds]
    names = [f"crd/{each['metadata']['name']}" for each in made]
    everything = {"apiVersion": "v1", "kind": "List", "items": made}
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=everything)
    try:
        kubectl("wait", "--for=condition=Established", "--timeout=100s", *names)
        yield
    finally:
        kubectl("delete", "--timeout=100s", *names)
