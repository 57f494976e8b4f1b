"""The whole of it on a real node: installed, hit, cut off in every way, and gone again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers.test_pods import kubectl
from tests.kube.deploy.conftest import AT, Installed, fault, installed, left_on_the_node, until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow]
DELAY = {"latency": "150ms"}


def address(space: str, name: str) -> str:
    return kubectl("get", "pod", "-n", space, name, "-o", "jsonpath={.status.podIP}")


def outside(ip: str) -> float:
    """Seconds for a connection from this machine to the pod."""
    begun = time.monotonic()
    with socket.create_connection((ip, 8080), 10):
        return time.monotonic() - begun


def inside(space: str, ip: str) -> float:
    """Seconds for a request from the pod beside it."""
    words = ["kubectl", "exec", "-n", space, "peer", "--", "wget", "-q", "-O", "/dev/null",
             f"http://{ip}:8080/"]  # fmt: skip
    begun = time.monotonic()
    subprocess.run(words, capture_output=True, timeout=30, check=False)
    return time.monotonic() - begun


def groups(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[2] for line in lines}


def keepers(state: Path) -> list[int]:
    from faultline.kernel import procfs

    return [each.pid for each in procfs.processes()
            if each.name.startswith("fl-keeper") and str(state) in each.cmdline]  # fmt: skip


@pytest.fixture(scope="module")
def full(space: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed(space, tmp_path_factory.mktemp("node")) as made:
        yield made


def slow(name: str, space: str, duration: str = "5m", **more: object) -> dict[str, object]:
    selector = {"pods": {"labels": {"shop": "web"}}}
    return fault(name, space, fault="network.delay", params=DELAY, duration=duration,
                 selector=selector, **more)  # fmt: skip


def test_a_fault_is_felt_inside_and_outside_and_goes(full: Installed) -> None:
    ip = address(full.space, "web")
    before = min(outside(ip) for _ in range(5))
    kubectl("apply", "-f", "-", given=slow("slow", full.space))
    full.effective("slow")
    assert min(outside(ip) for _ in range(3)) > before + 0.1
    assert min(inside(full.space, ip) for _ in range(2)) > 0.1
    kubectl("delete", "fault", "-n", full.space, "slow")
    assert min(outside(ip) for _ in range(5)) < 0.1


def test_keepers_outlive_the_pod_and_end_what_it_began(full: Installed) -> None:
    """The pod is deleted by force and its agent killed; nobody comes in its place."""
    state, ip = Path(full.settings.agent.state_folder), address(full.space, "web")
    kubectl("apply", "-f", "-", given=slow("orphan", full.space))
    full.effective("orphan")
    pid = full.agent()
    kept = keepers(state)
    assert len(kept) == 2
    pods = {each for each in groups(pid) if "kubepods" in each}
    assert pods
    assert all(groups(each) == {"/"} for each in kept)
    daemons = json.loads(kubectl("get", "daemonset", "-n", AT, "faultline-agent", "-o", "json"))
    kubectl("delete", "daemonset", "-n", AT, "faultline-agent", "--cascade=orphan")
    os.kill(pid, signal.SIGKILL)
    kubectl("delete", "pods", "-n", AT, "-l", "app.kubernetes.io/component=agent", "--force",
            "--grace-period=0")  # fmt: skip
    until(lambda: not any(Path(f"/sys/fs/cgroup/memory{each}").exists() for each in pods),
          "the control groups of the pod are still there")  # fmt: skip
    assert all(Path(f"/proc/{each}").exists() for each in kept)
    until(lambda: min(outside(ip) for _ in range(3)) < 0.1, "it was not undone")
    until(lambda: not keepers(state), "keepers did not end")
    assert left_on_the_node(state) == []
    for each in ("resourceVersion", "uid", "creationTimestamp", "generation"):
        daemons["metadata"].pop(each, None)
    kubectl("create", "-f", "-", given=daemons)
    kubectl("delete", "fault", "-n", full.space, "orphan")
