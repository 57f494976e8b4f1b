"""Places by what the kernel says of them: found, entered, left, and gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.changes.model import End, State
from faultline.errors import InvalidParameter, Refused, TargetGone, Unsupported
from faultline.injection import registry, scratch
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.scratch import Capsule
from faultline.kernel import files, procfs
from faultline.places.find import Target, find
from faultline.places.model import Place, host
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    (made / "etc" / "hostname").write_text("inside\n")
    (made / "out").symlink_to("/etc")
    (made / "up").symlink_to("../../../../../../../../etc")
    return made


@pytest.fixture
def inside(root: Path) -> Iterator[Capsule]:
    with scratch.capsule(root) as capsule:
        yield capsule


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "state") as made:
        yield made
        made.recover_all()
        keepers.retire(made.store)


def loss(target: Target, uid: str = "", duration: str = "30s") -> Order:
    params = {"interface": "lo", "percent": "100%"}
    return Order("network.loss", params, Duration.parse(duration), uid, target=target)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def answers() -> bool:
    """Whether a datagram comes through on lo of the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 0))
        here.settimeout(0.2)
        here.sendto(b"x", here.getsockname())
        try:
            return here.recv(1) == b"x"
        except TimeoutError:
            return False


def test_the_host_is_where_we_are() -> None:
    place = find(Target())
    assert place == host()
    assert place.is_host
    with place.root() as fd:
        assert fd is None


def test_a_process_with_everything_of_its_own(inside: Capsule) -> None:
    place = find(Target(pid=inside.pid))
    assert place.kind == "process"
    assert place.own_network
    assert place.rooted
    assert place.netns_cookie != host().netns_cookie
    assert {inside.pid, inside.sleeper} <= {each.pid for each in place.processes()}
    assert Place.from_json(place.to_json()) == place


def test_a_process_like_us_shares_everything() -> None:
    place = find(Target(pid=os.getpid()))
    assert not place.own_network
    assert not place.rooted


def test_one_thread_enters_and_comes_back(inside: Capsule) -> None:
    place = find(Target(pid=inside.pid))
    before = Path("/proc/thread-self/ns/net").readlink()
    with place.entered():
        assert Path("/proc/thread-self/ns/net").readlink() != before
    assert Path("/proc/thread-self/ns/net").readlink() == before


@pytest.mark.parametrize("path", ["/out/hostname", "/up/hostname", "/etc/hostname"])
def test_no_path_leads_out_of_a_root(inside: Capsule, path: str) -> None:
    with find(Target(pid=inside.pid)).root() as fd:
        folder, name = files.locate(path, fd)
        try:
            opened = files.open_regular(folder, name)
        finally:
            os.close(folder)
    with os.fdopen(opened) as file:
        assert file.read() == "inside\n"


def test_a_fault_hits_the_place_and_not_the_host(inside: Capsule, injector: Injector) -> None:
    record = injector.inject(loss(Target(pid=inside.pid)))
    place = Place.from_json(record.place)
    with place.entered():
        assert not answers()
    assert answers()
    assert injector.observe(record.uid).effect == "effective"
    assert injector.recover(record.uid).end is End.RECOVERED
    with place.entered():
        assert answers()


@pytest.mark.parametrize("keepers_killed", [False, True])
def test_it_is_gone_with_its_target(
    inside: Capsule, injector: Injector, keepers_killed: bool
) -> None:
    record = injector.inject(loss(Target(pid=inside.pid), duration="60s"))
    if keepers_killed:
        found = procfs.find_by_cmdline(f"keeper:{injector.store.state}", exclude=[os.getpid()])
        for signum in (signal.SIGSTOP, signal.SIGKILL):  # or one starts the other again
            for each in found:
                each.id.send(signum)
    target = Place.from_json(record.place).process
    os.kill(inside.pid, signal.SIGKILL)
    if keepers_killed:
        until(lambda: target is None or not target.alive())
        injector.recover(record.uid)
    until(lambda: injector.get(record.uid).state is State.ENDED)
    assert injector.get(record.uid).end is End.GONE
    assert injector.residue(record.uid) == []


def test_a_fault_of_the_host_does_not_end_with_a_process(
    inside: Capsule, injector: Injector
) -> None:
    record = injector.inject(Order("cpu.load", {"count": 1}))
    os.kill(inside.pid, signal.SIGKILL)
    time.sleep(0.5)
    assert injector.get(record.uid).state is State.ACTIVE
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_plan_for_another_process_is_refused(inside: Capsule, injector: Injector) -> None:
    plan = injector.plan(loss(Target(pid=inside.pid)))
    assert plan.place.pid == inside.pid
    os.kill(inside.pid, signal.SIGKILL)
    until(lambda: not procfs.ProcessId(inside.pid, plan.place.start).alive())
    with pytest.raises(TargetGone):
        injector.apply(plan)


def test_a_control_group_is_known_by_path_and_by_folder(inside: Capsule) -> None:
    text = Path(f"/proc/{inside.pid}/cgroup").read_text()
    path = next(line.split(":", 2)[2] for line in text.splitlines() if "trial-" in line)
    place = find(Target(cgroup=path))
    assert place.group == path
    assert {each.pid for each in place.processes()} == {inside.pid, inside.sleeper}


def test_what_is_not_there_and_what_is_not_clear() -> None:
    with pytest.raises(TargetGone, match="no process 4194300"):
        find(Target(pid=4194300))
    with pytest.raises(TargetGone, match="no process has"):
        find(Target(process="surely-nobody-is-called-this"))
    with pytest.raises(TargetGone, match="no process is in the control group"):
        find(Target(cgroup="/surely/not/there"))
    with pytest.raises(InvalidParameter, match="cgroup"):
        find(Target(cgroup="/"))
    with pytest.raises(InvalidParameter, match="nothing beside"):
        Target(pid=1, container="web")


def test_two_that_fit_are_refused() -> None:
    words = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", "a-twin-of-places"]
    twins = [subprocess.Popen(words) for _ in range(2)]
    try:
        with pytest.raises(Refused, match="2 processes"):
            find(Target(process="a-twin-of-places"))
        twins[0].kill()
        twins[0].wait()
        assert find(Target(process="a-twin-of-places")).pid == twins[1].pid
    finally:
        for twin in twins:
            twin.kill()
            twin.wait()


def test_a_fault_says_where_it_cannot_act(
    inside: Capsule, injector: Injector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(registry.get("cpu.load")), "places", frozenset({"host"}))
    with pytest.raises(Unsupported, match="does not act on a process"):
        injector.plan(Order("cpu.load", {}, target=Target(pid=inside.pid)))
