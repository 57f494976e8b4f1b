"""The chart, installed and taken away by Helm itself, with a fault in place when it goes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from tests.containers.test_pods import kubectl
from tests.kube.deploy.conftest import (
    AT,
    Installed,
    fault,
    left_on_the_node,
    run_of,
    uninstall,
    until,
)

from faultline.kube.installing import ready
from faultline.kube.settings import chosen
from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect

CHART = Path(__file__).resolve().parents[3] / "deploy" / "chart"
PART = "app.kubernetes.io/part-of=faultline"
pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow, pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm"),
]  # fmt: skip


def helm(*words: str) -> str:
    done = subprocess.run(
        ["helm", *words, "-n", AT], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def release(space: str, tmp_path: Path) -> Generator[Installed]:
    """What `helm install` makes of the chart."""
    state = Path(
        f"/var/lib/faultline-{tmp_path.name}"
    )  # not below /tmp, which a pod has for itself
    agent = {"lease": "8s", "renew": "2s", "extraArgs": ["--no-doctor"], "stateFolder": str(state)}
    values = {"image": "faultline", "tag": "test", "agent": agent}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    try:
        told = helm("install", "faultline", str(CHART), "--create-namespace", "-f", str(file))
        assert "STATUS: deployed" in told
        with closing(Client(connect())) as client:
            ready(client, AT)
            yield Installed(client, chosen(values), space)
    finally:
        uninstall()  # whatever Helm has left
        for each in (state, run_of(state)):
            shutil.rmtree(each, ignore_errors=True)


def test_what_helm_installs_acts_and_what_it_uninstalls_undoes_everything(
    release: Installed,
) -> None:
    delay = {"fault": "network.delay", "params": {"latency": "150ms"}, "duration": "5m",
             "selector": {"pods": {"labels": {"shop": "web"}}}}  # fmt: skip
    kubectl("apply", "-f", "-", given=fault("slow", release.space, **delay))
    release.effective("slow")
    helm("uninstall", "faultline", "--wait")
    state = Path(release.settings.agent.state_folder)
    until(lambda: left_on_the_node(state) == [], "something is left on the node")
    assert kubectl("get", "deployment,daemonset", "-A", "-l", PART, "-o", "name") == ""
    kinds = kubectl("get", "crd", "-l", PART, "-o", "name").split()
    assert len(kinds) > 5, "kinds stay, as with every chart"
    told = kubectl("get", "faults", "-n", release.space, "-o", "jsonpath={.items[*].status.phase}")
    assert told in ("", "ended")
