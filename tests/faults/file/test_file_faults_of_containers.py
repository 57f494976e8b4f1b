"""Files as they are in a container: layers of an image, a volume, single files that are mounted."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, Undone
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import procfs, syscalls
from faultline.places.find import Target
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]
TEXT = "".join(f"line {n}: mode = calm\n" for n in range(50))
HOSTS = "127.0.0.1\tlocalhost\n198.51.100.7 db.example.test\n"
_DETACH = 2  # MNT_DETACH (umount2(2))


@dataclass(frozen=True, slots=True)
class Container:
    pid: int
    merged: Path  # its root, as the host sees it
    volume: Path
    hosts: Path

    def order(self, fault: str, **params: Any) -> Order:
        return Order(fault, params, Duration.parse("60s"), target=Target(pid=self.pid))

    def end(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            return  # it has ended already


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """A process in a mount namespace with layers as its root, and nothing in them but files."""
    base = Path("/dev/shm") / f"faultline-test-{os.getpid()}"  # an overlay cannot lie on another
    lower, merged, volume = base / "lower", base / "merged", tmp_path / "volume"
    for path in (lower / "app", lower / "etc", lower / "data", lower / "old", volume, merged):
        path.mkdir(parents=True)
    for path in (base / "upper", base / "work"):
        path.mkdir()
    for path in (lower / "app" / "app.log", volume / "app.log"):
        path.write_text(TEXT)
    (lower / "etc" / "hosts").touch()
    (tmp_path / "hosts").write_text(HOSTS)
    layers = f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work"
    command = ["mount", "-t", "overlay", "-o", layers, "overlay", str(merged)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        shutil.rmtree(base)
        pytest.skip("no overlay file system here")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _enter(merged, {volume: "data", tmp_path / "hosts": "etc/hosts"})
            os.write(write, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    found = Container(child, merged, volume, tmp_path / "hosts")
    try:
        assert os.read(read, 1) == b"x"
        yield found
    finally:
        found.end()
        subprocess.run(["umount", "--lazy", str(merged)], check=True)
        shutil.rmtree(base)


def _enter(merged: Path, mounts: dict[Path, str]) -> None:
    syscalls.unshare(syscalls.Namespace.MOUNT)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(merged), str(merged)], check=True)
    for source, point in mounts.items():
        subprocess.run(["mount", "--bind", str(source), str(merged / point)], check=True)
    subprocess.run(["pivot_root", str(merged), str(merged / "old")], check=True)
    os.chdir("/")
    assert ctypes.CDLL(None).umount2(b"/old", _DETACH) == 0


@pytest.fixture
def injector(tmp_path: Path, container: Container) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


CASES: dict[str, dict[str, Any]] = {
    "file.append": {"path": "/app/app.log", "content": "{now} ERROR", "interval": "20ms"},
    "file.chmod": {"path": "/app/app.log", "permission": "0000"},
    "file.delete": {"path": "/app/app.log"},
    "file.move": {"path": "/app/app.log", "to": "/app/gone.log"},
    "file.replace": {"path": "/app/app.log", "find": "calm", "replacement": "wild"},
    "file.truncate": {"path": "/app/app.log", "bytes": "10B"},
}


@pytest.mark.parametrize("fault", CASES)
def test_a_file_of_an_image_is_hurt_and_healed(injector, container, fault):
    record = injector.inject(container.order(fault, **CASES[fault]))
    reading = injector.observe(record.uid)
    assert reading.effect in (Effect.EFFECTIVE, Effect.INEFFECTIVE)  # a line may be late
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED, [step.outcome for step in ended.steps]
    file = container.merged / "app" / "app.log"
    assert file.read_text() == TEXT
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [each.name for each in (container.merged / "app").iterdir()] == ["app.log"]


def test_the_table_of_host_names_that_is_mounted_alone_is_changed_in_place(injector, container):
    order = container.order("dns.record", host="db.example.test", address="192.0.2.9")
    record = injector.inject(order)
    assert "192.0.2.9\tdb.example.test" in container.hosts.read_text()
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert container.hosts.read_text() == HOSTS
    assert [each.name for each in (container.merged / "etc").iterdir()] == ["hosts"]


@pytest.mark.parametrize("path", ["/data/app.log", "/app/app.log"])
def test_what_is_left_of_a_container_that_ended_is_put_back_through_the_host(
    injector, container, path
):
    """Also with no keeper: the host has the file systems of volumes and layers mounted too."""
    record = injector.inject(container.order("file.delete", path=path))
    text = f"keeper:{injector.store.state}"
    for process in procfs.find_by_cmdline(text, exclude=[os.getpid()]):
        process.id.send(signal.SIGKILL)
        process.id.wait(5.0)
    container.end()
    ended = injector.recover(record.uid)
    assert ended.end is End.GONE
    assert ended.steps[0].outcome is not None
    assert ended.steps[0].outcome.end is Undone.UNDONE, ended.steps[0].outcome
    folder = container.volume if "data" in path else container.merged / "app"
    assert [each.name for each in folder.iterdir()] == ["app.log"]


def test_a_full_disk_is_that_of_the_volume(injector, container):
    record = injector.inject(container.order("disk.fill", folder="/data", bytes="1MiB"))
    assert [each.stat().st_size for each in container.volume.glob(".faultline-*")] == [1 << 20]
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert not list(container.volume.glob(".faultline-*"))
