"""A place that wants us to touch the host's files; a place that ends; what then is left of it.

`host` is a folder that only the host can mean: its file must not even be read.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, State, Undone
from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.injection import scratch
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import procfs, syscalls
from faultline.places.find import Target
from faultline.units import Duration

pytestmark = pytest.mark.needs_root
TEXT = "".join(f"line {n}: mode = calm\n" for n in range(50))
CASES: dict[str, dict[str, Any]] = {
    "file.append": {"path": "{}/app.log", "content": "{{now}} ERROR", "interval": "20ms"},
    "file.chmod": {"path": "{}/app.log", "permission": "0000"},
    "file.delete": {"path": "{}/app.log"},
    "file.move": {"path": "{}/app.log", "to": "{}/gone.log"},
    "file.replace": {"path": "{}/app.log", "find": "calm", "replacement": "wild"},
    "file.truncate": {"path": "{}/app.log", "bytes": "10B"},
    "file.add": {"path": "{}/new.conf", "content": "x"},
    "disk.fill": {"folder": "{}", "bytes": "1MiB"},
}


@dataclass(frozen=True, slots=True)
class Ground:
    root: Path  # of the place
    host: Path  # a folder of the host
    pid: int

    def order(self, fault: str, folder: str, duration: str = "60s") -> Order:
        params = {k: v.format(folder) if isinstance(v, str) else v for k, v in CASES[fault].items()}
        return Order(fault, params, Duration.parse(duration), target=Target(pid=self.pid))

    def untouched(self) -> tuple[Any, ...]:
        """Everything that looking at the host's folder would change."""
        found: list[Any] = [sorted(self.host.iterdir())]
        for path in (self.host, self.host / "app.log"):
            info = path.lstat()
            found.append((info.st_mode, info.st_size, info.st_ctime_ns, info.st_atime_ns))
        return tuple(found)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    tmp_path.chmod(0o755)
    root, host = tmp_path / "root", tmp_path / "host"
    for folder in (root / "app", host):
        folder.mkdir(parents=True)
        (folder / "app.log").write_text(TEXT)
        os.utime(folder / "app.log", ns=(0, 0))  # so that a read would move its access time
        os.utime(folder, ns=(0, 0))
    with scratch.capsule(root) as inside:
        yield Ground(root, host, inside.pid)


@pytest.fixture
def injector(tmp_path: Path, ground: Ground) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()
        keepers.retire(found.store)


def until(condition: Any, patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


@pytest.mark.parametrize("fault", CASES)
def test_a_link_that_leads_out_leads_nowhere(injector, ground, fault):
    (ground.root / "out").symlink_to(ground.host)
    (ground.root / "up").symlink_to("../" * 20 + str(ground.host).lstrip("/"))
    (ground.root / "circle").symlink_to("/circle/on")
    (ground.root / "magic").symlink_to(f"/proc/1/root{ground.host}")
    before = ground.untouched()
    for way in ("/out", "/up", "/magic", "/circle", str(ground.host)):
        with pytest.raises((TargetGone, InvalidParameter, Refused)):
            injector.inject(ground.order(fault, way))
    assert ground.untouched() == before


@pytest.mark.parametrize("fault", ["file.truncate", "file.append", "disk.fill"])
def test_a_link_that_leads_out_means_what_it_means_inside(injector, ground, fault):
    decoy = Path(f"{ground.root}{ground.host}")
    decoy.mkdir(parents=True)
    (decoy / "app.log").write_text(TEXT)
    (ground.root / "out").symlink_to(ground.host)
    before = ground.untouched()
    record = injector.inject(ground.order(fault, "/out"))
    until(lambda: list(decoy.glob(".faultline-*")))
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert (decoy / "app.log").read_text() == TEXT
    assert not list(decoy.glob(".faultline-*"))
    assert ground.untouched() == before


@pytest.mark.parametrize("fault", CASES)
def test_a_folder_that_is_swapped_for_a_link_is_still_the_one_that_is_put_back(
    injector, ground, fault
):
    before = ground.untouched()
    record = injector.inject(ground.order(fault, "/app"))
    (ground.root / "app").rename(ground.root / "old")
    (ground.root / "app").symlink_to(ground.host)
    reading = injector.observe(record.uid)
    assert str(ground.host) not in reading.measured
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED, [step.outcome for step in ended.steps]
    assert (ground.root / "old" / "app.log").read_text() == TEXT
    assert [each.name for each in (ground.root / "old").iterdir()] == ["app.log"]
    assert ground.untouched() == before


@pytest.mark.parametrize("role", ["json", "backup", "reserve"])
def test_a_pipe_in_place_of_a_file_of_ours_is_not_opened(injector, ground, role):
    record = injector.inject(ground.order("file.truncate", "/app"))
    ours = next((ground.root / "app").glob(f".faultline-*.{role}"))
    ours.unlink()
    os.mkfifo(ours)
    with open(os.open(ours, os.O_RDONLY | os.O_NONBLOCK)) as reader:
        ended = injector.recover(record.uid)
        assert not reader.read(), "it was written to"
    assert ended.end in (End.PERSON, End.RECOVERED)
    for path in (ground.root / "app").glob(".faultline-*"):
        path.unlink()
    (ground.root / "app" / "app.log").write_text(TEXT)


def _end_place(ground: Ground) -> None:
    process = procfs.ProcessId.of(ground.pid)
    process.send(signal.SIGKILL)
    assert process.wait(5.0)


@pytest.mark.parametrize("fault", ["file.delete", "disk.fill", "file.truncate"])
def test_when_the_place_ends_its_files_are_put_back(injector, ground, fault):
    record = injector.inject(ground.order(fault, "/app"))
    _end_place(ground)
    until(lambda: injector.get(record.uid).state is State.ENDED)
    assert injector.get(record.uid).end is End.GONE
    assert [each.name for each in (ground.root / "app").iterdir()] == ["app.log"]
    assert (ground.root / "app" / "app.log").read_text() == TEXT


def _end_keepers(injector: Injector) -> None:
    text = f"keeper:{injector.store.state}"
    for process in procfs.find_by_cmdline(text, exclude=[os.getpid()]):
        process.id.send(signal.SIGKILL)
        process.id.wait(5.0)


def test_without_keepers_what_the_host_can_reach_is_still_put_back(injector, ground):
    record = injector.inject(ground.order("file.delete", "/app"))
    _end_keepers(injector)
    _end_place(ground)
    ended = injector.recover(record.uid)
    assert ended.end is End.GONE
    assert ended.steps[0].outcome is not None
    assert ended.steps[0].outcome.end is Undone.UNDONE
    assert [each.name for each in (ground.root / "app").iterdir()] == ["app.log"]


@contextmanager
def _private(folder: Path) -> Generator[int]:
    """A process that has a file system in memory there, which nobody else sees."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            syscalls.unshare(syscalls.Namespace.MOUNT)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
            (folder / "app.log").write_text(TEXT)
            os.write(write, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(read, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_went_with_the_place_is_told_as_gone(injector, ground, tmp_path):
    folder = tmp_path / "memory"
    folder.mkdir()
    with _private(folder) as pid:
        inside = Ground(ground.root, ground.host, pid)
        record = injector.inject(inside.order("file.delete", str(folder)))
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert not list(folder.iterdir())  # nothing of it was done on the host
        _end_keepers(injector)
    ended = injector.recover(record.uid)
    assert ended.end is End.GONE
    assert ended.steps[0].outcome is not None
    assert ended.steps[0].outcome.end is Undone.GONE
    assert injector.residue(record.uid) == []


def test_what_is_made_in_a_place_is_nobody_elses_to_read(injector, ground):
    injector.inject(ground.order("file.truncate", "/app"))
    for path in (ground.root / "app").glob(".faultline-*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
