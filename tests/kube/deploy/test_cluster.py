"""The whole of it on a real node: installed, hit, cut off in every way, and gone again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
import yaml
from tests.containers.test_pods import kubectl
from tests.kube.deploy.conftest import (
    AT,
    NAME,
    Installed,
    fault,
    installed,
    left_on_the_node,
    uninstall,
    until,
)

from faultline.errors import FaultlineError
from faultline.kernel import procfs
from faultline.kube import capabilities

pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.slow, pytest.mark.timeout(400),
]  # fmt: skip
DELAY = {"latency": "150ms"}
# In the order of capabilities(7), which is that of their numbers.
NUMBERS = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
]  # fmt: skip
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


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


def test_an_agent_that_comes_back_goes_on_with_what_is_wanted(full: Installed) -> None:
    ip = address(full.space, "web")
    kubectl("apply", "-f", "-", given=slow("lasting", full.space))
    full.effective("lasting")
    before = full.agent()
    os.kill(before, signal.SIGKILL)
    until(lambda: another(full, before), "the agent was not started again")
    assert min(outside(ip) for _ in range(3)) > 0.1
    assert full.status("lasting")["phase"] == "active"
    kubectl("delete", "fault", "-n", full.space, "lasting")
    assert min(outside(ip) for _ in range(5)) < 0.1


def another(full: Installed, before: int) -> bool:
    try:
        return full.agent() != before
    except (AssertionError, FaultlineError):
        return False


def test_a_file_of_the_node_is_a_file_of_the_node(full: Installed, tmp_path: Path) -> None:
    """And not one of the container in which the agent runs."""
    file = tmp_path / "settings.conf"
    file.write_text("mode = calm\n")
    selector = {"nodes": {"labels": {"kubernetes.io/os": "linux"}}}
    params = {"path": str(file), "to": f"{file}.away"}
    made = fault("moved", full.space, fault="file.move", params=params, duration="5m",
                 selector=selector, allow=["control-plane"])  # fmt: skip
    kubectl("apply", "-f", "-", given=made)
    full.effective("moved")
    assert not file.exists()
    kubectl("delete", "fault", "-n", full.space, "moved")
    assert file.read_text() == "mode = calm\n"


def test_the_page_of_the_example_shows_the_fault(full: Installed) -> None:
    """Its curve before, during and after the document that lies beside it."""
    folder = EXAMPLES / "web-show"
    files = {name: (folder / name).read_text() for name in ("show.py", "page.html")}
    made = list(yaml.safe_load_all((folder / "show.yaml").read_text()))
    made.insert(1, {"apiVersion": "v1", "kind": "ConfigMap", "data": files,
                    "metadata": {"name": "files", "namespace": "web-show"}})  # fmt: skip
    for each in made:
        if each["kind"] == "Deployment":  # an image of its own is what the Containerfile makes
            pod = each["spec"]["template"]["spec"]
            pod["volumes"] = [{"name": "files", "configMap": {"name": "files"}}]
            pod["terminationGracePeriodSeconds"] = 0
            pod["containers"][0] |= {
                "image": NAME, "imagePullPolicy": "Never",
                "command": [f"{sys.base_prefix}/bin/python3", "/show/show.py"],
                "volumeMounts": [{"name": "files", "mountPath": "/show"}],
            }  # fmt: skip
    try:
        for each in made:
            kubectl("apply", "-f", "-", given=each)
        for name in ("peer", "show"):
            words = ("rollout", "status", "-n", "web-show", f"deployment/{name}", "--timeout=90s")
            kubectl(*words)
        ip = kubectl("get", "pods", "-n", "web-show", "-l", "app=show", "-o",
                     "jsonpath={.items[0].status.podIP}")  # fmt: skip
        assert median(curve(ip, 10)) < 100
        kubectl("apply", "-f", str(folder / "slow.yaml"))
        until(lambda: shown("effect") == "effective", "the peer is not slow")
        assert median(curve(ip, 10)) > 140
        kubectl("delete", "-f", str(folder / "slow.yaml"))
        assert median(curve(ip, 10)) < 100
    finally:
        kubectl("delete", "namespace", "web-show")


def shown(what: str) -> str:
    return kubectl("get", "fault", "-n", "web-show", "slow-peer", "-o",
                   f"jsonpath={{.status.{what}}}")  # fmt: skip


def curve(ip: str, count: int) -> list[float]:
    """What the page draws: the next so many requests."""
    begun = time.time()

    def there() -> list[float]:
        with urllib.request.urlopen(f"http://{ip}:8080/curve", timeout=10) as answer:
            told = json.loads(answer.read())
        found = [each["ms"] for each in told if each["at"] > begun + 0.5]
        return found if len(found) >= count else []

    return until(there, "the page draws nothing")


def test_nobody_is_refused_a_right_and_everything_goes(full: Installed) -> None:
    """Last of all: what both programs said, then uninstall with a fault in place."""
    said = full.said()
    assert "forbidden" not in said.lower(), said[-4000:]
    state, ip = Path(full.settings.agent.state_folder), address(full.space, "web")
    kubectl("apply", "-f", "-", given=slow("late", full.space))
    full.effective("late")
    told = uninstall()
    assert "every fault is undone" in told
    assert min(outside(ip) for _ in range(5)) < 0.1
    assert left_of_us() == []
    until(lambda: not keepers(state), "keepers did not end")
    assert left_on_the_node(state) == []


def left_of_us() -> list[str]:
    """Objects in the cluster that are ours."""
    kinds = ("crd,clusterrole,clusterrolebinding,validatingwebhookconfiguration,"
             "mutatingwebhookconfiguration,deployment,daemonset,service,serviceaccount,role,"
             "rolebinding,resourcequota,lease,namespace")  # fmt: skip
    found = kubectl("get", kinds, "-A", "-o", "name", "-l", "app.kubernetes.io/part-of=faultline")
    spaces = kubectl("get", "namespaces", "-o", "name").split()
    return [*found.split(), *(each for each in spaces if each.endswith("/faultline"))]


def lacking() -> list[str]:
    """Capabilities that this profile asks for and that no process of this machine can have."""
    bounding = int(procfs.status(os.getpid())["CapBnd"], 16)
    return [each for each in capabilities.names() if not bounding >> NUMBERS.index(each) & 1]


@pytest.mark.parametrize("profile", ["full", "unprivileged"])
def test_torn_out(space: str, tmp_path: Path, profile: str) -> None:
    """Operator, rights and agents are deleted with a fault in place."""
    if profile == "unprivileged" and (missing := lacking()):
        pytest.skip(f"no container of this machine may have {', '.join(missing)}")
    values = {"profile": profile, "agent": {"seccomp": "RuntimeDefault"}}
    with installed(space, tmp_path, **values) as made:
        ip = address(space, "web")
        kubectl("apply", "-f", "-", given=slow("bare", space))
        made.effective("bare")
        assert min(outside(ip) for _ in range(3)) > 0.1
        state = Path(made.settings.agent.state_folder)
        assert all(groups(each) == {"/"} for each in keepers(state))
        kubectl("delete", "deployment,daemonset,clusterrole,clusterrolebinding", "-A", "-l",
                "app.kubernetes.io/part-of=faultline", "--wait=false")  # fmt: skip
        told = uninstall()
        assert "every fault is undone" in told
        assert min(outside(ip) for _ in range(5)) < 0.1
        assert left_of_us() == []
        until(lambda: not keepers(state), "keepers did not end")
        assert left_on_the_node(state) == []
