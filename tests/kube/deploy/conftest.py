"""Faultline installed in a real cluster whose node is this machine, from an image made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_pods import kubectl, pod
from tests.kube.deploy import image

from faultline.changes.store import memory_folder, run_folder_key
from faultline.kube.installing import apply, ready
from faultline.kube.manifests import AGENT, objects
from faultline.kube.settings import Settings, chosen
from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.places import containers
from faultline.places.find import Target, find

NAME = "localhost/faultline:test"
AT = "faultline"
VERSION = "faultline.dev/v1alpha1"
FAULTS = Kind("Fault", "faults", VERSION)
HOSTS = Kind("Host", "hosts", VERSION, namespaced=False)
SRC = Path(__file__).resolve().parents[3] / "src"


def until(what: Callable[[], Any], words: str = "", patience: float = 60.0) -> Any:
    """What it answers as soon as that is something."""
    end = time.monotonic() + patience
    while not (answer := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {patience:g} s: {words or what}", pytrace=False)
        time.sleep(0.1)
    return answer


def fault(name: str, space: str, **spec: Any) -> Object:
    meta = {"name": name, "namespace": space}
    return {"apiVersion": VERSION, "kind": "Fault", "metadata": meta, "spec": spec}


@dataclass
class Installed:
    """Faultline in the cluster."""

    client: Client
    settings: Settings
    space: str  # a namespace with pods to be hit

    def status(self, name: str) -> Object:
        try:
            return self.client.get(FAULTS, name, self.space).get("status") or {}
        except ApiError as error:
            if error.status != 404:
                raise
            return {"phase": "deleted"}

    def phase(self, name: str, phase: str, patience: float = 60.0) -> Object:
        def there() -> Object:
            told = self.status(name)
            return told if told.get("phase") == phase else {}

        try:
            return until(there, patience=patience)
        except pytest.fail.Exception:
            pytest.fail(f"{name} is not {phase}: {self.status(name)}\n{self.said()}", pytrace=False)

    def effective(self, name: str) -> Object:
        def there() -> Object:
            told = self.status(name)
            return told if told.get("effect") == "effective" else {}

        try:
            return until(there)
        except pytest.fail.Exception:
            pytest.fail(f"{name}: {self.status(name)}\n{self.said()}", pytrace=False)

    def said(self) -> str:
        """What both programs have said, and their hosts."""
        told = [json.dumps(each)[:3000] for each in self.client.every(HOSTS)]
        for program in ("operator", "agent"):
            words = ("logs", "-n", AT, "-l", f"app.kubernetes.io/component={program}",
                     "--tail=40")  # fmt: skip
            done = subprocess.run(
                ["kubectl", *words], capture_output=True, text=True, timeout=30, check=False
            )
            told.append(f"{program}: {done.stdout}{done.stderr}")
        return "\n".join(told)

    def agent(self) -> int:
        """The pid of the agent's process on this machine."""
        name = kubectl("get", "pods", "-n", AT, "-o", "name", "-l",
                       "app.kubernetes.io/component=agent").strip()  # fmt: skip
        process = find(Target(pod=f"{AT}/{name.rpartition('/')[2]}")).process
        assert process is not None
        return process.pid


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image, as a file."""
    folder = tmp_path_factory.mktemp("image")
    if ready := os.environ.get("FAULTLINE_IMAGE_ARCHIVE"):
        yield Path(ready)
        return
    image.build(folder / "root")
    file = folder / "image.tar"
    image.pack(folder / "root", NAME, file, ["/opt/faultline/bin/faultline"])
    shutil.rmtree(folder / "root")
    yield file
    file.unlink()


@pytest.fixture(scope="session")
def space(archive: Path) -> Generator[str]:
    """A namespace with a pod that answers HTTP and one beside it; the image is on the node."""
    name = f"fldeploy-{uuid.uuid4().hex[:6]}"  # there are several: who imports it has its own
    kubectl("create", "namespace", name)
    web = pod("web", name, "app")
    web["spec"]["containers"][0]["command"] = ["httpd", "-f", "-p", "8080"]
    try:
        for each in (web, pod("peer", name, "app")):
            kubectl("create", "-f", "-", given=each)
        for each in ("web", "peer"):
            kubectl("wait", "-n", name, "--for=condition=Ready", "--timeout=90s", f"pod/{each}")
        tool = containers.find_in_pod(f"{name}/web").tool
        done = subprocess.run(
            [*tool, "images", "import", str(archive)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield name
        subprocess.run([*tool, "images", "rm", NAME], check=False, capture_output=True)
    finally:
        kubectl("delete", "namespace", name)


def uninstall(*more: str) -> str:
    """As people do it."""
    words = [sys.executable, "-m", "faultline.cli.main", "kube", "uninstall", "--yes", *more]
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_of(state: Path) -> Path:
    """Where its sockets lie."""
    return memory_folder() / run_folder_key(state)


@contextmanager
def installed(space: str, folder: Path, **values: Any) -> Generator[Installed]:
    """Faultline with these values for the block; whatever is left of it is removed behind it."""
    # Not below /tmp, which a pod has for itself.
    state = Path(f"/var/lib/faultline-{folder.name}-{os.getpid()}")
    agent = {"lease": "8s", "renew": "2s", "extraArgs": ["--no-doctor"],
             "stateFolder": str(state), **values.pop("agent", {})}  # fmt: skip
    settings = chosen({"image": "faultline", "tag": "test", "agent": agent, **values})
    with ExitStack() as stack:
        client = stack.enter_context(closing(Client(connect())))
        stack.callback(shutil.rmtree, state, ignore_errors=True)
        stack.callback(shutil.rmtree, run_of(state), ignore_errors=True)
        stack.callback(uninstall)
        apply(client, objects(settings, AT))
        made = Installed(client, settings, space)
        try:
            ready(client, AT, agents=settings.profile != "api-only")
        except Exception:
            print(made.said())
            raise
        yield made


def left_on_the_node(state: Path) -> list[str]:
    """Whatever a fault would leave there: keepers, workers, marks."""
    from faultline.injection.recovery import Recovery
    from faultline.kernel import procfs

    found = [
        f"{each.pid} {' '.join(each.cmdline)[:200]}"
        for each in procfs.processes()
        if each.name.startswith("fl-keeper") and str(state) in each.cmdline
    ]
    with Recovery(state) as recovery:
        found += [f"{uid}: open" for uid in (r.uid for r in recovery.journal.open_records())]
        found += list(recovery.unknown_marks())
    return found


__all__ = ["AGENT", "Installed", "archive", "installed", "left_on_the_node", "space"]
