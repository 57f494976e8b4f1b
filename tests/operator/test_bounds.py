"""What a run may not ask of an operator."""

from __future__ import annotations

from typing import Any

import pytest

from faultline.api.experiment import ExperimentSpec
from faultline.operator.running import bounds

TCP = {"name": "up", "type": "tcp", "host": "web", "port": 80}
FAULT = {"name": "slow", "fault": "network.delay", "params": {"latency": "1ms"},
         "selector": {"pods": {}}}  # fmt: skip


def spec(**fields: Any) -> ExperimentSpec:
    return ExperimentSpec.model_validate({
        "title": "t", "hypothesis": {"text": "h", "probes": ["up"]}, "probes": [TCP],
        "faults": [FAULT], **fields,
    })  # fmt: skip


def probe(**fields: Any) -> ExperimentSpec:
    return spec(probes=[TCP, {"name": "x", **fields}])


def job(**meta: Any) -> ExperimentSpec:
    manifest = {"metadata": {"name": "j", **meta}, "spec": {}}
    return spec(nodes=[{"name": "n", "type": "task", "job": {"manifest": manifest}}])


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (probe(type="command", command=["id"]), "spec.probes.1.type"),
        (probe(type="log", path="/var/log/messages", pattern="x"), "spec.probes.1.type"),
        (probe(type="file", path="/etc/passwd"), "spec.probes.1.type"),
        (probe(type="process", process="init"), "spec.probes.1.type"),
        (probe(type="plugin", plugin="x"), "spec.probes.1.type"),
        (probe(type="invariant", of=[{"type": "command", "command": ["id"]}]),
         "spec.probes.1.of.0.type"),
        (probe(type="kubernetes", kind="Secret"), "spec.probes.1.kind"),
        (probe(type="kubernetes", kind="secrets", measure="jsonPath", object="a",
               jsonPath="$.data.password"), "spec.probes.1.kind"),
        (probe(type="kubernetes", kubeconfig="/root/.kube/config"), "spec.probes.1.kubeconfig"),
        (probe(type="sql", url="sqlite:////etc/x.db", query="select 1"), "spec.probes.1.url"),
        (probe(type="http", url="https://a/", ca="/etc/ssl/a.pem"), "spec.probes.1.ca"),
        (probe(type="http", url="https://a/",
               headers={"Authorization": {"file": "/var/run/secrets/token"}}),
         "spec.probes.1.headers.Authorization"),
        (spec(nodes=[{"name": "n", "type": "task", "command": {"command": ["id"]}}]),
         "spec.nodes.0.command"),
        (job(namespace="kube-system"), "spec.nodes.0.job.manifest.metadata.namespace"),
        (spec(traffic=[{"name": "t", "type": "http", "url": "http://a/{{n}}", "rate": 1.0,
                        "feed": {"file": "/etc/passwd"}}]), "spec.traffic.0.feed.file"),
    ],
)  # fmt: skip
def test_it_is_refused(found: ExperimentSpec, path: str) -> None:
    assert [each.path for each in bounds.problems(found, "shop")] == [path]


@pytest.mark.parametrize(
    "found",
    [
        spec(),
        probe(type="kubernetes", selector="app=web", namespace="other"),
        probe(type="http", url="https://web/", headers={"Accept": "*/*"}),
        probe(type="sql", url="postgresql://shop@db/orders", query="select 1"),
        job(),
        job(namespace="shop"),
    ],
)
def test_it_is_allowed(found: ExperimentSpec) -> None:
    assert bounds.problems(found, "shop") == []


def test_faults_of_hosts_and_of_objects_are_known() -> None:
    assert bounds.check_fault("network.delay", {"latency": "1ms"}) == []
    assert bounds.check_fault("pod.delete", {}) == []
    assert [each.path for each in bounds.check_fault("pod.delete", {"grace": -1})]
    assert "did you mean" in bounds.check_fault("network.dealy", {})[0].expected
    assert bounds.check_fault("selector.plugin", {"name": "oldest", "params": {"pods": {}}}) == []
    assert [each.path for each in bounds.check_fault("selector.plugin", {"name": "none"})]
