"""Faults of jobs where nobody acts on them: what they claim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.kube.conftest import Server
from tests.kube.objects.targets import make

from faultline.injection.reading import Effect
from faultline.kubeapi.client import Client
from faultline.kubefaults.change import Outcome, apply, undo
from faultline.kubefaults.model import View
from faultline.kubefaults.registry import get

pytestmark = pytest.mark.needs_apiserver
UID = "0123456789abcdef"


@pytest.fixture
def client(apiserver: Server) -> Iterator[Client]:
    with closing(apiserver.client()) as found:
        yield found


def test_more_pods_are_not_claimed_before_they_run(client: Client, namespace: str) -> None:
    fault, target = get("job.parallelism"), make(client, "Job", namespace)
    params = fault.params_type().read({"most": 4})
    view = View(client, UID, stop=lambda: True)
    (change,) = fault.plan(view, target, params)
    apply(client, change, UID)

    def seen(count: int) -> Effect:
        client.patch(change.kind, "shop", {"status": {"active": count}},
                     namespace=namespace, part="status")  # fmt: skip
        now = client.get(change.kind, "shop", namespace)
        return fault.observe(view, now, params, [change]).effect

    assert seen(2) is Effect.UNMEASURED
    assert seen(4) is Effect.EFFECTIVE
    assert undo(client, change, UID).outcome is Outcome.RECOVERED
