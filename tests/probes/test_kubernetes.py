"""The kubernetes probe asks a real API server about real objects.

The cluster has an image with a shell: FAULTLINE_POD_IMAGE, else localhost/busybox:1.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from faultline.api.probe import Measurement, ProbeBase, ProbeSpec
from faultline.probes.kubernetes import quantity
from faultline.probes.prober import Prober

Measure = Callable[..., Measurement]
Probe = Callable[..., Prober[ProbeBase]]
READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
IMAGE = os.environ.get("FAULTLINE_POD_IMAGE", "localhost/busybox:1")
real = [pytest.mark.needs_cluster, pytest.mark.slow]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"object": "a", "selector": "b=c"}, "not both"),
        ({"measure": "jsonPath"}, "expected jsonPath"),
        ({"jsonPath": ".a"}, "expected jsonPath"),
        ({"measure": "jsonPath", "jsonPath": "{.a["}, "jsonPath"),
        ({"measure": "count", "share": True}, "share"),
        ({"measure": "count", "minSeconds": "3s"}, "share"),
        ({"measure": "restarts", "kind": "Deployment"}, "expected kind Pod"),
        ({"object": "a", "namespace": "*"}, "one namespace"),
        ({"namespace": "No"}, "namespace"),
        ({"kind": "../pods"}, "kind"),
        ({"object": "../../secrets"}, "object"),
        ({"share": True, "expect": "1"}, "percentage"),
    ],
)
def test_documents_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python({"name": "it", "type": "kubernetes", **given})
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (3, 3.0), ("3", 3.0), ("250m", 0.25), ("1Gi", 2.0**30), ("1.5k", 1500.0), ("2e3", 2000.0),
        ("-1", -1.0), (True, 1.0), ("100n", 1e-7), ("1E", 1e18), ("Running", None), ("", None),
        ("1 Gi", None), (None, None), ({}, None), ("1Ki2", None),
    ],
)  # fmt: skip
def test_quantities_are_numbers(given: Any, number: float | None) -> None:
    assert quantity(given) == (None if number is None else pytest.approx(number))


def test_a_cluster_that_cannot_be_reached_is_unmeasured(
    measure: Measure, closed_port: int, tmp_path: Path
) -> None:
    assert "not found" in measure("kubernetes", kubeconfig=str(tmp_path / "none")).text
    for text in ("", "clusters: 3", "{", "clusters: []\ncontexts: []\ncurrent-context: a"):
        (tmp_path / "odd").write_text(text)
        found = measure("kubernetes", kubeconfig=str(tmp_path / "odd"))
        assert found.ok is None
        assert "no cluster can be reached" in found.text
    config = {
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{closed_port}"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": {"token": "secret"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    found = measure("kubernetes", kubeconfig=str(tmp_path / "config"))
    assert found.ok is None
    assert "refused" in found.text
    found = measure("kubernetes", kubeconfig=str(tmp_path / "config"), context="b")
    assert (found.ok, "'b'" in found.text) == (None, True)


# ---------------------------------------------------------------------- a real cluster


def kubectl(*words: str, given: Any = None) -> str:
    told = subprocess.run(
        [shutil.which("kubectl") or "kubectl", *words],
        input=json.dumps(given) if given else None,
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return told.stdout


def pods(count: int) -> dict[str, Any]:
    """A deployment of pods that are ready as long as /tmp/ready is there, and end by /tmp/end."""
    script = "touch /tmp/ready; until [ -e /tmp/end ]; do sleep 0.3; done; exit 3"
    ready = {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    one = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "readinessProbe": ready,
        "resources": {"requests": {"cpu": "10m"}},
    }
    return {
        "replicas": count,
        "selector": {"matchLabels": {"app": "shop"}},
        "template": {
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [one]},
        },
    }


def crd(name: str) -> dict[str, Any]:
    names = {"plural": name, "singular": name[:-1], "kind": name.title(), "listKind": "Them"}
    fields = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": fields},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}.faultline.test"},
        "spec": {
            "group": "faultline.test", "scope": "Namespaced", "names": names, "versions": [version],
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def space() -> Iterator[str]:
    """A namespace with a deployment of two pods, and a kind of its own."""
    name = f"flprobe-{os.getpid()}"
    kubectl("create", "namespace", name)
    try:
        about = {"name": "shop", "namespace": name}
        kubectl("create", "-f", "-", given={
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": pods(2),
        })  # fmt: skip
        kubectl("create", "-f", "-", given=crd(f"gadgets{os.getpid()}"))
        kubectl("rollout", "status", "-n", name, "deployment/shop", "--timeout=90s")
        yield name
    finally:
        kubectl("delete", "crd", f"gadgets{os.getpid()}.faultline.test", "--ignore-not-found")
        kubectl("delete", "namespace", name, "--wait=false")


def names(space: str) -> list[str]:
    return kubectl("get", "pods", "-n", space, "-l", "app=shop", "-o", "name").split()


def until(look: Callable[[], Measurement], right: Callable[[Measurement], bool]) -> Measurement:
    end = time.monotonic() + 60
    while not right(found := look()):
        assert time.monotonic() < end, found
        time.sleep(0.3)
    return found


class TestReal:
    pytestmark = real

    def test_pods_and_workloads_are_ready(self, measure: Measure, space: str) -> None:
        asked = {"namespace": space, "selector": "app=shop"}
        for fields in ({"kind": "Pod", **asked}, {"kind": "deploy", "namespace": space},
                       {"kind": "deployments.apps", "namespace": space, "object": "shop"},
                       {"kind": "ReplicaSet", "namespace": space}):  # fmt: skip
            found = measure("kubernetes", **fields)
            assert (found.ok, found.value) == (True, 2.0), found
            assert found.result["wanted"] == 2
        share = measure("kubernetes", share=True, expect="100%", **asked)
        assert share.value == 1.0
        long = measure("kubernetes", minSeconds="1h", expect="2,", **asked)
        assert (long.ok, long.value) == (True, 0.0), "ready, but not for an hour"
        assert measure("kubernetes", kind="Node", share=True).value == 1.0

    def test_a_pod_that_is_not_ready_is_named(self, measure: Measure, space: str) -> None:
        pod = names(space)[0]
        asked = {"namespace": space, "selector": "app=shop"}
        kubectl("exec", "-n", space, pod, "--", "rm", "/tmp/ready")
        look = lambda: measure("kubernetes", **asked)  # noqa: E731
        found = until(look, lambda one: one.ok is False)
        assert (found.value, found.result["missing"]) == (1.0, [f"{space}/{pod[4:]}"])
        no = {"measure": "condition", "status": "False", "expect": "1", **asked}
        assert measure("kubernetes", **no).value == 1.0
        kubectl("exec", "-n", space, pod, "--", "touch", "/tmp/ready")
        until(look, lambda one: one.ok is True)

    def test_restarts_and_their_events_count_from_the_first_look(
        self, probe: Probe, space: str
    ) -> None:
        asked = {"namespace": space, "selector": "app=shop"}
        restarts = probe("kubernetes", measure="restarts", **asked)
        events = probe(
            "kubernetes", measure="events", eventType="any", pattern="^(Started|Killing)", **asked
        )
        assert restarts.measure().value == events.measure().value == 0.0
        kubectl("exec", "-n", space, names(space)[0], "--", "touch", "/tmp/end")
        found = until(restarts.measure, lambda one: one.value == 1.0)
        assert found.result["total"] == 1
        assert sum(found.result["reasons"].values()) == 1
        told = until(events.measure, lambda one: bool(one.value))
        assert "Started" in told.text
        until(lambda: probe("kubernetes", **asked).measure(), lambda one: one.ok is True)
        kubectl("delete", "pod", "-n", space, names(space)[0].removeprefix("pod/"), "--wait=false")
        until(events.measure, lambda one: "Killing" in str(one.result["events"]))
        assert restarts.measure().value == 1.0, "also when the pod has gone"
        until(probe("kubernetes", **asked).measure, lambda one: one.text == "2 of 2 ready")

    def test_a_value_in_any_object(self, measure: Measure, space: str) -> None:
        at = {"measure": "jsonPath", "namespace": space}
        deployed = {**at, "kind": "Deployment", "object": "shop"}
        assert measure("kubernetes", jsonPath="{.spec.replicas}", **deployed).value == 2.0
        cpu = ".spec.template.spec.containers[0].resources.requests.cpu"
        assert measure("kubernetes", jsonPath=cpu, **deployed).value == 0.01
        text = measure("kubernetes", jsonPath="{.metadata.name}", **deployed)
        assert (text.value, text.ok, text.result["values"]) == (None, True, ["shop"])
        found = measure("kubernetes", jsonPath="{.spec.nothing}", **deployed)
        assert (found.ok, "nothing stands" in found.text) == (False, True)
        several = {**at, "kind": "po", "selector": "app=shop", "jsonPath": "{.status.phase}"}
        assert set(measure("kubernetes", **several).result["values"]) == {"Running"}
        several["jsonPath"] = "{.spec.containers[*].resources.requests.cpu}"
        assert measure("kubernetes", **several).ok is None
        assert measure("kubernetes", reduce="sum", **several).value == pytest.approx(0.02)

    def test_custom_resources(self, measure: Measure, space: str) -> None:
        kind = f"Gadgets{os.getpid()}"
        kubectl("create", "-n", space, "-f", "-", given={
            "apiVersion": "faultline.test/v1", "kind": kind, "metadata": {"name": "one"},
            "spec": {"level": 7, "note": {"a.b/c": "12Mi"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"},
                                      {"type": "Synced", "status": "False"}]},
        })  # fmt: skip
        asked = {"kind": kind, "namespace": space}
        assert measure("kubernetes", **asked).value == 1.0
        assert measure("kubernetes", measure="count", object="one", **asked).value == 1.0
        assert measure("kubernetes", measure="count", object="two", **asked).value == 0.0
        synced = measure("kubernetes", measure="condition", condition="Synced", **asked)
        assert (synced.ok, synced.value) == (False, 0.0)
        path = {"measure": "jsonPath", "jsonPath": '{.spec.note."a.b/c"}'}
        assert measure("kubernetes", **path, **asked).value == 12 * 2.0**20
        plural = f"{kind.lower()}.faultline.test"
        assert measure("kubernetes", kind=plural, namespace=space).value == 1.0

    def test_what_is_not_there(self, measure: Measure, space: str) -> None:
        gone = measure("kubernetes", namespace=space, object="nobody")
        assert (gone.ok, "there is no Pod nobody" in gone.text) == (False, True)
        none = measure("kubernetes", namespace=space, selector="app=nobody", measure="count")
        assert (none.ok, none.value) == (True, 0.0)
        for fields in (
            {"kind": "Nonsense"},
            {"selector": "app=nobody"},
            {"selector": "app=nobody", "share": True, "expect": "100%"},
            {"kind": "ConfigMap"},
            {"selector": "this is no selector"},
            {"kind": "Deployment", "minSeconds": "3s"},
        ):
            found = measure("kubernetes", namespace=space, **fields)
            assert found.ok is None, (fields, found)

    def test_whoever_may_not_look_has_not_measured(
        self, measure: Measure, space: str, tmp_path: Path
    ) -> None:
        config = json.loads(kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
        config["users"] = [{"name": each["name"], "user": {}} for each in config["users"]]
        path = tmp_path / "config"
        path.write_text(json.dumps(config))
        found = measure("kubernetes", namespace=space, kubeconfig=str(path))
        assert found.ok is None
        assert "forbidden" in found.text or "nauthorized" in found.text
