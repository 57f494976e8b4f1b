"""From nothing to a cluster with Faultline in it. What makes clusters is not here, so programs of
these names stand in for kind, minikube, k3s and Docker: they note how they are called.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from tests.kube.conftest import Server
from tests.kube.deploy.conftest import until

from faultline.errors import ApplyFailed, Unsupported
from faultline.kube import local
from faultline.kube.installing import DEPLOYMENTS
from faultline.kube.leaving import Leaving
from faultline.kube.manifests import OPERATOR
from faultline.kubeapi.model import ApiError

SRC = Path(__file__).resolve().parents[3] / "src"
CALLED = '#!/bin/sh\necho "$(basename "$0") $*" >>"$CALLS"\n'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], str]]:
    """Makes programs of these names the only ones; what comes back tells how they were called."""
    folder, calls = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    for name in ("basename", "sh", "cp", "mkdir"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CALLS", str(calls))

    def make(**each: str) -> Callable[[], str]:
        for name, more in each.items():
            (folder / name).write_text(CALLED + more)
            (folder / name).chmod(0o755)
        return lambda: calls.read_text() if calls.exists() else ""

    return make


def test_nothing_that_could_make_a_cluster(programs: Callable[..., Callable[[], str]]) -> None:
    programs()
    with pytest.raises(Unsupported, match="nothing that could make one"):
        local.tool()
    programs(kind="")
    with pytest.raises(Unsupported):  # kind needs an engine
        local.tool()
    programs(podman="")
    assert local.tool() == "kind"


def test_kind_is_given_the_image_of_docker(programs: Callable[..., Callable[[], str]]) -> None:
    called = programs(kind="", docker="")
    said: list[str] = []
    made = local.make(local.tool(), said.append)
    assert local.load(made, "localhost/faultline:1", said.append)
    assert made.context == "kind-faultline"
    assert called().splitlines() == [
        "kind get clusters",
        "kind create cluster --name faultline --wait 180s",
        "docker image inspect --format {{.Id}} localhost/faultline:1",
        "kind load docker-image localhost/faultline:1 --name faultline",
    ]
    assert said[0] == "$ kind create cluster --name faultline --wait 180s"


def test_a_cluster_that_was_made_before_is_used(programs: Callable[..., Callable[[], str]]) -> None:
    called = programs(kind="[ $1 = get ] && echo faultline\nexit 0\n", podman="")
    made = local.make("kind", lambda _: None)
    assert local.load(made, "x:1", lambda _: None)
    assert "create" not in called()
    assert "kind export kubeconfig --name faultline" in called()
    assert "podman save --output" in called()
    assert "kind load image-archive" in called()


def test_an_image_that_is_not_here_is_left_to_the_nodes(
    programs: Callable[..., Callable[[], str]],
) -> None:
    called = programs(minikube="", docker="exit 1\n")
    made = local.make(local.tool(), lambda _: None)
    assert made.remove == ("minikube", "delete", "--profile", "faultline")
    assert not local.load(made, "x:1", lambda _: None)
    assert "minikube start --profile faultline --wait all" in called()
    assert "image load" not in called()


def test_k3s_runs_on_in_a_session_of_its_own(
    programs: Callable[..., Callable[[], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "k3s.yaml"
    monkeypatch.setattr(local, "K3S", file)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    called = programs(k3s=f'[ "$1" = server ] && : >{file}\nexit 0\n', docker="")
    made = local.make(local.tool(), lambda _: None)
    assert made.kubeconfig == str(file)
    assert "k3s server --write-kubeconfig-mode 600 --disable traefik" in called()
    assert local.load(made, "x:1", lambda _: None)
    assert "k3s ctr images import" in called()


def test_what_a_program_complains_of_is_told(programs: Callable[..., Callable[[], str]]) -> None:
    programs(kind='[ "$1" = create ] && echo "no space left" >&2 && exit 3\nexit 0\n', docker="")
    with pytest.raises(ApplyFailed, match="status 3: no space left"):
        local.make("kind", lambda _: None)


@pytest.mark.needs_apiserver
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_from_nothing_to_the_next_command(
    apiserver: Server, programs: Callable[..., Callable[[], str]], tmp_path: Path
) -> None:
    """No cluster answers; the fake kind makes one: a real server, whose nodes the test plays."""
    told = yaml.safe_load(apiserver.kubeconfig().read_text())
    told["contexts"][0]["name"] = told["current-context"] = "kind-faultline"
    config = tmp_path / "made"
    config.write_text(yaml.safe_dump(told))
    copy = f'[ "$1" = create ] && mkdir -p "$HOME/.kube" && cp {config} "$HOME/.kube/config"\n'
    called = programs(kind=f"{copy}exit 0\n", docker="")
    env = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(SRC)}
    env.pop("KUBECONFIG", None)
    (tmp_path / "home").mkdir()
    words = [sys.executable, "-m", "faultline.cli.main", "kube", "quickstart", "--namespace",
             "flt-quick", "--profile", "api-only"]  # fmt: skip
    with closing(apiserver.client()) as client:
        thread = threading.Thread(target=lambda: until(available, "no Deployment", 300))

        def available() -> bool:
            try:
                found = client.get(DEPLOYMENTS, OPERATOR, "flt-quick")
            except ApiError:
                return False
            status = {"observedGeneration": found["metadata"]["generation"], "replicas": 1,
                      "availableReplicas": 1, "readyReplicas": 1}  # fmt: skip
            client.patch(DEPLOYMENTS, OPERATOR, {"status": status}, namespace="flt-quick",
                         part="status")  # fmt: skip
            return True

        thread.start()
        try:
            done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300,
                                  check=False)  # fmt: skip
            thread.join()
            said = done.stdout + done.stderr
            assert done.returncode == 0, said
            assert "no cluster answers" in said
            assert "kind load docker-image localhost/faultline:" in called()
            assert "Next:" in said
            assert "kubectl apply -f examples/web-show/show.yaml" in said
            assert "kind delete cluster --name faultline" in said
        finally:
            # The kinds stay: others use them.
            leaving = Leaving(client, "flt-quick", lambda _: None, patience=2)
            leaving.objects(kinds=False)
