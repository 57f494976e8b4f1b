"""Runtimes of the tests' own: private daemons, images made of folders, containers with lo alone.

Nothing of a runtime that is installed here is touched; what these leave in the kernel (control
groups, mounts) is taken away when they end.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from pathlib import Path

from faultline.kernel import mounts

SHARED = Path("/run/containerd")  # where shims lay their sockets, whatever the daemon's folders are
ONE = """
#include <signal.h>
#include <unistd.h>
static void leave(int number) { _exit(0); }
int main(void) { signal(SIGTERM, leave); for (;;) pause(); }
"""
NOTES = "as it was\n"
Command = tuple[str, ...]


class NotStarted(Exception):
    """A daemon does not come up on this machine; says what it said."""


def done(*words: object) -> str:
    """Run a command that has to succeed; what it printed."""
    text = list(map(str, words))
    told = subprocess.run(text, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, f"{text} ended with {told.returncode}: {told.stderr}"
    return told.stdout


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def folders(base: Path) -> dict[str, Command]:
    """Root directories by name: one with a shell, one with a single program and nothing else; the
    command that each is started with.
    """
    box, one = base / "box", base / "one"
    (box / "bin").mkdir(parents=True)
    (box / "etc").mkdir()
    shutil.copy(shutil.which("busybox") or "", box / "bin" / "busybox")
    for name in ("sh", "sleep", "cat"):
        (box / "bin" / name).symlink_to("busybox")
    (box / "app").symlink_to("/etc")  # an image that hopes to lead root astray
    (box / "up").symlink_to("../../../../../../../../../etc")
    (box / "proc").mkdir()
    (box / "magic").symlink_to("/proc/1/root/etc")
    (box / "etc" / "shadowed").write_text(NOTES)
    one.mkdir()
    for each in (box, one):
        (each / "notes").write_text(NOTES)
        (each / "notes").chmod(0o644)
    return {"box": ("/bin/sleep", "100000"), "one": _single(one)}


def _single(folder: Path) -> Command:
    """Put one static program there; how it is started."""
    if shutil.which("gcc"):
        source = folder.with_suffix(".c")
        source.write_text(ONE)
        built = subprocess.run(
            ["gcc", "-static", "-O1", "-o", str(folder / "one"), str(source)], check=False
        )
        if built.returncode == 0:
            return ("/one",)
    shutil.copy(shutil.which("busybox") or "", folder / "busybox-one")
    return ("/busybox-one", "sleep", "100000")


def archive(folder: Path, name: str) -> Path:
    """A folder as an image that every runtime can load."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(folder, arcname=".")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    digest = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    config = {
        "architecture": machine, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [{"created": "2020-01-01T00:00:00Z"}], "created": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        for file, content in (
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
            ("layer.tar", layer.getvalue()),
        ):
            info = tarfile.TarInfo(file)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


class Runtime(ABC):
    """A runtime with both images, and two containers that stand until the end."""

    name: str
    group = "fltest"

    def __init__(self, base: Path) -> None:
        self.base = base
        self.commands = folders(base / "images")

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def load(self, image: str) -> None:
        """Load the image of a folder."""

    @abstractmethod
    def run(self, name: str, image: str, *options: str) -> None:
        """Start a container with the label shop=NAME and little memory and processor."""

    @abstractmethod
    def restart(self, name: str) -> None:
        """As somebody would who knows nothing of faults."""

    @abstractmethod
    def remove(self, name: str) -> None: ...

    @abstractmethod
    def state(self, name: str) -> str:
        """What the runtime says of it: `running`, or something else."""

    def reference(self, image: str) -> str:
        return f"docker.io/fltest/{image}:1"

    def standing(self) -> None:
        for image in self.commands:
            self.load(image)
            self.run(f"standing-{image}", image)


def daemon(base: Path, ready: Path, *words: object) -> subprocess.Popen[bytes]:
    """Start a daemon and wait for its socket; raises NotStarted."""
    log = base / "daemon.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(map(str, words)), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, env={**os.environ, "TMPDIR": str(base)},
        )  # fmt: skip
    end = time.monotonic() + 30
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            tail = log.read_text(errors="replace")[-600:]
            raise NotStarted(f"{words[0]} does not start on this machine: {tail}")
        time.sleep(0.05)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Docker(Runtime):
    """A dockerd with its own containerd, folders and socket; no network of its own making."""

    name = "docker"

    def start(self) -> None:
        base, self.socket = self.base, self.base / "docker.sock"
        (base / "daemon.json").write_text("{}")
        self.process = daemon(
            base, self.socket, "dockerd", "--config-file", base / "daemon.json",
            "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
            "--userland-proxy=false", "--storage-driver", "vfs", "--data-root", base / "data",
            "--exec-root", base / "run", "--pidfile", base / "pid", "-H", f"unix://{self.socket}",
            "--exec-opt", "native.cgroupdriver=cgroupfs",
            "--cgroup-parent", f"/{self.group}-docker",
        )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        words = ["docker", "-H", f"unix://{self.socket}", "ps"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def docker(self, *words: object) -> str:
        return done("docker", "-H", f"unix://{self.socket}", *words)

    def stop(self) -> None:
        if self._answers() and (ids := self.docker("ps", "-aq").split()):
            self.docker("rm", "-f", *ids)
        end(self.process)

    def load(self, image: str) -> None:
        file = archive(self.base / "images" / image, f"fltest/{image}:1")
        self.docker("load", "-i", file)

    def run(self, name: str, image: str, *options: str) -> None:
        self.docker(
            "run", "-d", "--name", name, "--label", f"shop={name}", "--network=none", "-m", "96m",
            "--cpus", "0.5", *options, f"fltest/{image}:1", *self.commands[image],
        )  # fmt: skip

    def restart(self, name: str) -> None:
        self.docker("restart", "-t", "0", name)

    def remove(self, name: str) -> None:
        self.docker("rm", "-f", name)

    def state(self, name: str) -> str:
        return self.docker("ps", "-a", "-f", f"name=^{name}$", "--format", "{{.State}}").strip()


class Containerd(Runtime):
    """A containerd with its own folders and socket, used by ctr."""

    name = "containerd"

    def start(self) -> None:
        base, self.socket = self.base, self.base / "sock"
        (base / "config.toml").write_text(
            f'version = 2\nroot = "{base}/root"\nstate = "{base}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.socket}"\n'
        )
        self.process = daemon(base, self.socket, "containerd", "-c", base / "config.toml")
        until(self._answers)

    def _answers(self) -> bool:
        words = [*self._ctr, "version"]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    @property
    def _ctr(self) -> list[str]:
        return ["ctr", "-a", str(self.socket), "-n", self.group]

    def ctr(self, *words: object) -> str:
        return done(*self._ctr, *words)

    def stop(self) -> None:
        for name in self.ctr("containers", "list", "-q").split():
            self.remove(name)
        end(self.process)

    def load(self, image: str) -> None:
        file = archive(self.base / "images" / image, self.reference(image))
        self.ctr("images", "import", "--snapshotter", "native", file)

    def run(self, name: str, image: str, *options: str) -> None:
        self.ctr(
            "run", "-d", "--snapshotter", "native", "--label", f"shop={name}", "--memory-limit",
            96 << 20, "--cpus", "0.5", *options, self.reference(image), name, *self.commands[image],
        )  # fmt: skip

    def restart(self, name: str) -> None:
        self._end(name)
        self.ctr("tasks", "start", "-d", name)

    def _end(self, name: str) -> None:
        def gone() -> bool:
            for words in (("kill", "-s", "KILL"), ("delete",)):
                given = [*self._ctr, "tasks", *words, name]
                subprocess.run(given, capture_output=True, check=False)
            return name not in self.ctr("tasks", "list", "-q").split()

        until(gone)

    def remove(self, name: str) -> None:
        self._end(name)
        self.ctr("containers", "delete", name)

    def state(self, name: str) -> str:
        rows = [line.split() for line in self.ctr("tasks", "list").splitlines()]
        return next((row[2].lower() for row in rows if row[0] == name), "")


class Podman(Runtime):
    """Podman with its own folders; it has no daemon."""

    name = "podman"

    def start(self) -> None:
        """Nothing has to run."""

    @property
    def _podman(self) -> list[str]:
        base = self.base
        return [
            "podman", "--root", f"{base}/root", "--runroot", f"{base}/run", "--tmpdir",
            f"{base}/tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime",
            shutil.which("runc") or "", "--events-backend", "file",
        ]  # fmt: skip

    def podman(self, *words: object) -> str:
        return done(*self._podman, *words)

    def stop(self) -> None:
        self.podman("rm", "-f", "-a", "-t", "0")

    def load(self, image: str) -> None:
        file = archive(self.base / "images" / image, self.reference(image))
        self.podman("load", "-q", "-i", file)

    def run(self, name: str, image: str, *options: str) -> None:
        self.podman(
            "run", "-d", "--name", name, "--label", f"shop={name}", "--network=none", "-m", "96m",
            "--cpus", "0.5", "--cgroup-parent", f"/{self.group}-podman",
            # The usual limits are higher than some hosts may give.
            "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000",
            *options, self.reference(image), *self.commands[image],
        )  # fmt: skip

    def restart(self, name: str) -> None:
        self.podman("restart", "-t", "0", name)

    def remove(self, name: str) -> None:
        self.podman("rm", "-f", "-t", "0", name)

    def state(self, name: str) -> str:
        words = [*self._podman, "inspect", "--format", "{{.State.Status}}", name]
        told = subprocess.run(words, capture_output=True, text=True, check=False)
        return told.stdout.strip().lower()


@contextlib.contextmanager
def prepared(kind: type[Runtime]) -> Generator[Runtime]:
    """A runtime with its standing containers; everything of it is gone afterwards."""
    before = SHARED.exists()
    # Short, since paths of sockets are: 108 bytes at most (unix(7)).
    base = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    runtime = kind(base)
    try:
        runtime.start()
        try:
            runtime.standing()
            yield runtime
        finally:
            runtime.stop()
    finally:
        clean(base)
        if not before:
            shutil.rmtree(SHARED, ignore_errors=True)


def clean(base: Path) -> None:
    """Take away what daemons leave: mounts below their folders, control groups."""
    for mount in reversed(mounts.mounts()):
        if mount.point.startswith(f"{base}/"):
            subprocess.run(["umount", "-l", mount.point], capture_output=True, check=False)
    shutil.rmtree(base, ignore_errors=True)
    trees = [Path(each.point) for each in mounts.mounts() if each.type in ("cgroup", "cgroup2")]
    until_gone = time.monotonic() + 10
    while tops := [top for tree in trees for top in tree.glob(f"{Runtime.group}*")]:
        for top in tops:
            _remove_groups(top)
        if time.monotonic() > until_gone:
            return  # the comparison of the machine names it
        time.sleep(0.1)


def _remove_groups(top: Path) -> None:
    """Remove what is empty; a monitor that still tidies up is waited for by the caller."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
