"""An agent in a container as a DaemonSet makes it, without a cluster around it: what it injects
outlives the container.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.containers.grounds import Containerd, clean
from tests.kube.agent.conftest import Crew, entry, keepers, prepared, state_of, until, victim
from tests.kube.apiserver import Server
from tests.kube.deploy.conftest import NAME, archive, run_of

from faultline.changes.keepers import dismiss
from faultline.injection.recovery import Recovery

__all__ = ["archive", "prepared", "victim"]  # fixtures
pytestmark = [
    pytest.mark.needs_apiserver, pytest.mark.needs_containerd, pytest.mark.slow,
    pytest.mark.timeout(300),
]  # fmt: skip


class Contained(Crew):
    """A host whose agent runs in a container with what a pod of the DaemonSet has."""

    def __init__(self, server: Server, folder: Path, runtime: Containerd) -> None:
        super().__init__(server, folder)
        self.state = Path(f"/var/lib/faultline-{self.node}")
        self.state.mkdir(mode=0o755)
        self.log.touch()  # its words are those of the runtime
        self.runtime, self.container = runtime, f"agent-{self.node}"

    def start(self, *more: str) -> None:
        config = self.server.kubeconfig()
        run = Path("/run/faultline")
        run.mkdir(exist_ok=True)
        shared = (self.state, run, Path("/sys/fs/cgroup"), self.server.folder)
        mounts = [f"--mount=type=bind,src={each},dst={each},options=rbind:rw" for each in shared]
        env = [f"--env=FAULTLINE_STATE={self.state}", "--env=FAULTLINE_MACHINE=1"]
        self.runtime.ctr(
            "run", "-d", "--privileged", "--net-host",
            "--with-ns", f"pid:/proc/{os.getpid()}/ns/pid", *mounts, *env, NAME, self.container,
            "/opt/faultline/bin/faultline", "agent", "--node", self.node, "--no-doctor",
            "--kubeconfig", config, *more,
        )  # fmt: skip

    def pid(self) -> int:
        rows = [line.split() for line in self.runtime.ctr("tasks", "list").splitlines()]
        return next(int(row[1]) for row in rows if row[0] == self.container)

    def remove(self) -> None:
        """End everything in its control groups, and let its files go: as a kubelet does."""
        self.runtime.remove(self.container)


@pytest.fixture
def crew(prepared: Server, archive: Path, tmp_path: Path) -> Generator[Contained]:
    base = Path(f"/tmp/flc-{uuid.uuid4().hex[:6]}")
    base.mkdir()
    runtime = Containerd(base)
    runtime.start()
    runtime.ctr("images", "import", archive)
    made = Contained(prepared, tmp_path, runtime)
    try:
        yield made
    finally:
        runtime.stop()
        with Recovery(made.state) as recovery:
            recovery.recover_all()
            dismiss(recovery.store)
        until(lambda: not keepers(made.state), words="keepers did not end")
        made.client.close()
        for each in (run_of(made.state), made.state):
            shutil.rmtree(each, ignore_errors=True)
        clean(base)


def groups(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {line.split(":", 2)[2] for line in lines}


def test_keepers_outlive_the_container_and_end_its_faults_with_the_lease(
    crew: Contained, victim: int
) -> None:
    crew.start("--lease", "6s", "--renew", "2s")
    crew.want(entry("stop-1", "process.stop", pid=victim))
    crew.measured("stop-1")
    kept = keepers(crew.state)
    assert len(kept) == 2
    assert groups(crew.pid()) != {"/"}
    assert all(groups(each) == {"/"} for each in kept)
    os.kill(crew.pid(), signal.SIGKILL)
    crew.remove()
    assert state_of(victim) == "T"
    assert all(Path(f"/proc/{each}").exists() for each in kept)
    until(lambda: state_of(victim) != "T", 40, "nobody undid it")
    assert str(crew.records()["stop-1"].end) == "recovered"


def test_the_next_container_goes_on_with_what_is_wanted(crew: Contained, victim: int) -> None:
    crew.start()
    crew.want(entry("stop-2", "process.stop", pid=victim))
    crew.measured("stop-2")
    crew.remove()
    crew.start()
    until(lambda: crew.actual("stop-2").get("stage") == "active", 40)
    assert state_of(victim) == "T"
    crew.want()
    assert crew.stage("stop-2", "ended")["end"] == "recovered"
    assert state_of(victim) != "T"


def test_files_of_the_host_are_those_of_the_machine(crew: Contained, tmp_path: Path) -> None:
    file = tmp_path / "settings.conf"
    file.write_text("mode = calm\n")
    crew.start()
    crew.want(entry("move-1", "file.move", path=str(file), to=f"{file}.away"))
    crew.measured("move-1")
    assert not file.exists()
    crew.want()
    assert crew.stage("move-1", "ended")["end"] == "recovered"
    assert file.read_text() == "mode = calm\n"
