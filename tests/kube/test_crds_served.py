"""The definitions in a real API server: it takes them, checks documents by them, explains them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kube.conftest import Server
from tests.kube.programs import program

from faultline.api.kinds import KINDS
from faultline.kube.crds import crds
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object

ROOT = Path(__file__).resolve().parents[2]
CRDS = Kind(
    "CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io/v1", False
)

pytestmark = pytest.mark.needs_apiserver


def established(client: Client, name: str) -> bool:
    told = client.get(CRDS, name).get("status", {}).get("conditions") or []
    wrong = [each for each in told if each["type"] == "NonStructuralSchema"]
    assert not wrong, wrong
    return any(each["type"] == "Established" and each["status"] == "True" for each in told)


@pytest.fixture(scope="module")
def served(apiserver: Server) -> Generator[Client]:
    with closing(apiserver.client()) as client:
        for each in crds():
            name = each["metadata"]["name"]
            client.patch(CRDS, name, each, "apply")
            while not established(client, name):
                time.sleep(0.05)
        yield client


def kind_of(name: str) -> Kind:
    return Kind(name, KINDS[name].plural, "faultline.dev/v1alpha1")


def document(path: str, **spec: Any) -> Object:
    found: Object = yaml.safe_load((ROOT / "examples" / path).read_text())
    found["spec"] |= spec
    return found


def test_every_example_can_be_applied_as_it_is(served: Client, namespace: str) -> None:
    made = 0
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            if isinstance(each, dict) and each.get("kind") in KINDS:
                kind = kind_of(each["kind"])
                each["metadata"].pop("namespace", None)
                stored = served.create(kind, each, namespace)
                assert stored["spec"] == each["spec"], f"{path}: the server changed it"
                served.delete(kind, each["metadata"]["name"], namespace)
                made += 1
    assert made >= 5


def test_what_is_plainly_wrong_is_refused_with_the_path_of_the_field(
    served: Client, namespace: str
) -> None:
    wrong = document("slow-network.yaml")
    wrong["spec"]["faults"][0]["fault"] = "no dots"
    with pytest.raises(ApiError, match=r"spec\.faults(\[0\])?\.fault") as refused:
        served.create(kind_of("Experiment"), wrong, namespace)
    assert refused.value.reason == "Invalid"


def test_status_is_written_apart_from_the_spec(served: Client, namespace: str) -> None:
    kind = kind_of("Probe")
    probe = {
        "apiVersion": "faultline.dev/v1alpha1", "kind": "Probe", "metadata": {"name": "up"},
        "spec": {"name": "up", "type": "tcp", "host": "127.0.0.1", "port": 80},
    }  # fmt: skip
    made = served.create(kind, {**probe, "status": {"value": 1.0}}, namespace)
    assert "status" not in made
    told = {**made, "spec": {**made["spec"], "port": 81}, "status": {"value": 2.5, "ok": True}}
    written = served.replace(kind, told, "status")
    assert (written["spec"]["port"], written["status"]) == (80, {"value": 2.5, "ok": True})


def test_kubectl_explains_and_shows_what_matters(
    served: Client, apiserver: Server, namespace: str, tmp_path: Path
) -> None:
    kubectl = program("kubectl")
    served.create(kind_of("Experiment"), document("slow-network.yaml"), namespace)

    def said(*words: str) -> str:
        options = (f"--kubeconfig={apiserver.kubeconfig()}", f"--cache-dir={tmp_path}")
        command = [kubectl, *options, *words]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        return ended.stdout or ended.stderr

    # The server publishes what it can explain a moment after it serves it.
    until = time.monotonic() + 60
    while "DESCRIPTION" not in (explained := said("explain", "experiments.spec.faults")):
        assert time.monotonic() < until, explained
        time.sleep(1)
    assert "How long it lasts, from the moment at which it is injected." in " ".join(
        explained.split()
    )
    assert "Default: 10m." in explained
    listed = said("get", "fexp", "-n", namespace)
    assert listed.split("\n")[0].split() == ["NAME", "TITLE", "AGE"]
    assert "slow-network" in said("get", "faultline", "-n", namespace)
