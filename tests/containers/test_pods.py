"""Pods of a cluster whose node is this machine: named, hit, started again by the kubelet.

The cluster has an image with a shell: FAULTLINE_POD_IMAGE, else localhost/busybox:1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Cli
from tests.containers.everywhere import LOSS
from tests.containers.grounds import until
from tests.containers.looking import ended, took

from faultline.changes.model import End
from faultline.errors import Protected, Refused, TargetGone
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.places import containers
from faultline.places.find import Target, find
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow]
IMAGE = os.environ.get("FAULTLINE_POD_IMAGE", "localhost/busybox:1")


def kubectl(*words: str, given: Any = None) -> str:
    told = subprocess.run(
        ["kubectl", *words], input=json.dumps(given) if given else None, text=True,
        capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    return told.stdout


def pod(name: str, space: str, *inside: str) -> dict[str, Any]:
    each: dict[str, Any] = {
        "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"],
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": {"shop": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": inner, **each} for inner in inside],
        },
    }


@pytest.fixture(scope="module")
def space() -> Iterator[str]:
    """A namespace with a pod of one container and a pod of two; and one pod in kube-system."""
    name = f"fltest-{os.getpid()}"
    kubectl("create", "namespace", name)
    made = [pod("one", name, "app"), pod("two", name, "app", "side")]
    made.append(pod(f"{name}-system", "kube-system", "app"))
    try:
        for each in made:
            kubectl("create", "-f", "-", given=each)
        for each in made:
            about = each["metadata"]
            words = ("--for=condition=Ready", "--timeout=60s", f"pod/{about['name']}")
            kubectl("wait", "-n", about["namespace"], *words)
        yield name
    finally:
        kubectl("delete", "pod", "-n", "kube-system", f"{name}-system", "--ignore-not-found")
        kubectl("delete", "namespace", name)


def order(fault: str, where: str, duration: str = "30s", **params: Any) -> Order:
    return Order(fault, params, Duration.parse(duration), target=Target(pod=where))


def test_a_pod_is_named_as_kubectl_names_it(space: str) -> None:
    found = containers.find_in_pod(f"{space}/one")
    assert (found.pod, found.in_pod) == (f"{space}/one", "app")
    assert containers.find_in_pod(f"{space}/two/side").in_pod == "side"
    with pytest.raises(Refused, match="2 containers"):
        containers.find_in_pod(f"{space}/two")
    with pytest.raises(TargetGone):
        containers.find_in_pod(f"{space}/three")


def test_a_label_of_a_pod_means_what_runs_in_it(space: str) -> None:
    assert containers.find("shop=one") == containers.find_in_pod(f"{space}/one")


def test_the_network_of_a_pod(space: str, injector: Injector) -> None:
    record = injector.inject(order("network.loss", f"{space}/one", **LOSS))
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert took(find(Target(pod=f"{space}/one"))) is None
    assert took(find(Target(pod=f"{space}/two/app"))) is not None
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_pod_is_paused(space: str, injector: Injector) -> None:
    record = injector.inject(order("container.pause", f"{space}/one"))
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


def test_what_belongs_to_kubernetes_itself_is_refused(space: str, injector: Injector) -> None:
    with pytest.raises(Protected, match="part of Kubernetes"):
        injector.inject(order("container.kill", f"kube-system/{space}-system"))


def test_the_kubelet_starts_again_what_was_stopped(space: str, injector: Injector) -> None:
    before = containers.find_in_pod(f"{space}/one")
    lost = injector.inject(order("network.loss", f"{space}/one", **LOSS))
    record = injector.inject(order("container.stop", f"{space}/one", grace="0s"))
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.NOTHING
    assert ended(injector, lost.uid).end is End.GONE

    def again() -> bool:
        now = containers.find_in_pod(f"{space}/one")
        return not now.sandbox and now.process != before.process

    until(again, 60.0)
    assert took(find(Target(pod=f"{space}/one"))) is not None


def test_a_pod_is_followed(space: str, store: Path) -> None:
    cli = Cli(store, -1)
    where = f"{space}/two/side"
    words = ("inject", "network", "loss", "--interface", "lo", "--percent", "100%", "--pod", where)
    follow = cli.start(*words, "-t", "100s", "--follow")
    try:
        until(lambda: took(find(Target(pod=where))) is None)
        first = containers.find_in_pod(where).process
        first.send(signal.SIGKILL)

        def hit_again() -> bool:
            try:
                place = find(Target(pod=where))
                return place.process != first and took(place) is None
            except TargetGone:
                return False

        until(hit_again, 60.0)
        follow.send_signal(signal.SIGINT)
        out, err = follow.communicate(timeout=30)
    finally:
        follow.kill()
        follow.wait()
    assert follow.returncode == 130, (out, err)
    assert "target gone" in err
    assert took(find(Target(pod=where))) is not None
