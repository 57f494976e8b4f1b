"""What holds for a container of every runtime, whatever is in its image."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Cli
from tests.containers.chosen import Chosen
from tests.containers.grounds import NOTES, NotStarted, Runtime, prepared, until
from tests.containers.looking import began, ended, hit_place, inside, killed, took

from faultline.api.watching import LogSpec
from faultline.changes.model import End
from faultline.errors import Protected, Refused, TargetGone
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.kernel import freezer, procfs
from faultline.places import containers
from faultline.places.find import Target, find
from faultline.testing import crash
from faultline.units import Duration
from faultline.watching import logs
from faultline.watching.logs import Window
from faultline.watching.watcher import Watcher

IMAGES = pytest.mark.parametrize("image", ["box", "one"])
LOSS: dict[str, Any] = {"interface": "lo", "percent": "100%"}
RESOURCES: list[tuple[str, dict[str, Any]]] = [
    ("cpu.burn", {"percent": "20%"}),
    ("memory.fill", {"bytes": "24MiB"}),
    ("file.append", {"path": "/notes", "content": "written by a fault"}),
    ("disk.fill", {"folder": "/", "bytes": "4MiB"}),
]


def standing(kind: type[Runtime]) -> Iterator[Runtime]:
    """The runtime of a module, which is skipped where it does not start."""
    try:
        with prepared(kind) as made:
            yield made
    except NotStarted as why:
        pytest.skip(str(why))


def order(
    fault: str, name: str, duration: str = "30s", allow: tuple[str, ...] = (), **params: Any
) -> Order:
    target = Target(container=name)
    return Order(fault, params, Duration.parse(duration), allow=frozenset(allow), target=target)


def said(name: str, text: str) -> logs.LogStatus:
    """What is kept of a container that writes a line to its standard output."""
    spec = LogSpec(name="own", container=name)
    begun = logs.begin(spec)
    pid = containers.find(name).process.pid
    before = time.time()
    Path(f"/proc/{pid}/fd/1").write_text(f"{text}\n")  # the pipe to whoever keeps it
    deadline = time.monotonic() + 20
    while True:
        found = logs.end(spec, begun, Window(before, time.time()))
        if found.lines or time.monotonic() > deadline or not begun.begin:
            return found
        time.sleep(0.1)


class Everywhere(Chosen):
    """The tests; each module names its runtime by the fixture `runtime`."""

    @contextlib.contextmanager
    def own(self, runtime: Runtime, image: str, *options: str) -> Generator[str]:
        """A container of the test's own, which it may end."""
        name = f"own-{image}-{os.urandom(3).hex()}"
        runtime.run(name, image, *options)
        try:
            yield name
        finally:
            if runtime.state(name):
                runtime.remove(name)

    # -------------------------------------------------------------------------- watched

    def test_its_curve_goes_on_when_it_is_started_anew(self, runtime: Runtime) -> None:
        with self.own(runtime, "box") as name:
            watcher = Watcher(every=0.2)
            try:
                watcher.start("web", {"container": name})
                until(lambda: len(watcher.seconds("web")) >= 2)
                status = watcher.status("web")
                assert status is not None
                assert (status.kind, status.cores, status.memory_limit) == (
                    "container",
                    0.5,
                    96 << 20,
                )
                second = watcher.seconds("web")[-1]
                assert None not in (second.cpu, second.memory, second.processes, second.received)
                runtime.restart(name)
                until(lambda: any(each.restarts for each in watcher.seconds("web")), 30)
            finally:
                watcher.stop()

    # -------------------------------------------------------------------------- found

    @IMAGES
    def test_it_is_found_by_what_people_call_it(self, runtime: Runtime, image: str) -> None:
        name = f"standing-{image}"
        found = containers.find(name)
        assert found.runtime == runtime.name
        assert found.process.alive()
        assert found.group
        assert procfs.in_group(found.process.pid, found.group)
        assert not procfs.in_group(os.getpid(), found.group)
        assert containers.find(found.id) == found
        assert containers.find(f"shop={name}") == found
        # An id of containerd is what its owner calls it; others are random.
        assert containers.find(found.id[:12]) == found
        assert found.short in found.words

    def test_what_fits_several_is_refused_and_they_are_named(self, runtime: Runtime) -> None:
        with self.own(runtime, "one") as one, self.own(runtime, "one") as two:
            first, second = containers.find(one), containers.find(two)
            if first.id == one:  # where ids are names they begin alike
                with pytest.raises(Refused, match="2 containers fit") as refused:
                    containers.find("own-one-")
                assert one in refused.value.message
                assert second.id in refused.value.message
            with pytest.raises(TargetGone) as gone:
                containers.find(f"{one}x")
            assert one in gone.value.hint

    @IMAGES
    def test_the_place_is_the_container(self, runtime: Runtime, image: str) -> None:
        place = find(Target(container=f"standing-{image}"))
        assert place.own_network
        assert place.rooted
        assert place.runtime == runtime.name
        assert {each.pid for each in place.processes()} == {place.pid}
        assert inside(place, "/notes") == NOTES

    # -------------------------------------------------------------------------- faults in it

    @IMAGES
    def test_its_network_is_hit_and_nobody_elses(
        self, runtime: Runtime, image: str, injector: Injector
    ) -> None:
        place = find(Target(container=f"standing-{image}"))
        other = find(Target(container="standing-box" if image == "one" else "standing-one"))
        record = injector.inject(order("network.loss", f"standing-{image}", **LOSS))
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert took(place) is None
        assert took(other) is not None
        assert injector.recover(record.uid).end is End.RECOVERED
        record = injector.inject(
            order("network.delay", f"standing-{image}", interface="lo", latency="60ms")
        )
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        waited = took(place)
        assert waited is not None
        assert waited > 0.055
        assert injector.recover(record.uid).end is End.RECOVERED
        assert injector.residue(record.uid) == []
        assert took(place) is not None

    @IMAGES
    @pytest.mark.parametrize(("fault", "params"), RESOURCES, ids=[each for each, _ in RESOURCES])
    def test_what_it_may_use_is_taken(
        self, runtime: Runtime, image: str, fault: str, params: dict[str, Any], injector: Injector
    ) -> None:
        place = find(Target(container=f"standing-{image}"))
        record = injector.inject(order(fault, f"standing-{image}", **params))
        reading = injector.observe(record.uid)
        if fault == "cpu.burn":  # on a machine full of tests it may get less than it asks for
            assert reading.values["measured"] > 0, reading
        else:
            assert reading.effect is Effect.EFFECTIVE, reading
        if fault == "file.append":
            assert "written by a fault" in inside(place, "/notes")
        assert injector.recover(record.uid).end is End.RECOVERED
        assert injector.residue(record.uid) == []
        assert inside(place, "/notes") == NOTES

    @IMAGES
    def test_its_processes_are_stopped_and_killed(
        self, runtime: Runtime, image: str, injector: Injector
    ) -> None:
        with self.own(runtime, image) as name:
            record = injector.inject(order("process.stop", name))
            assert injector.observe(record.uid).effect is Effect.EFFECTIVE
            assert injector.recover(record.uid).end is End.RECOVERED
            record = injector.inject(order("process.kill", name))
            assert injector.observe(record.uid).effect is Effect.EFFECTIVE
            until(lambda: runtime.state(name) != "running")

    @pytest.mark.parametrize("path", ["/app/shadowed", "/up/shadowed"])
    def test_an_image_does_not_lead_root_to_the_hosts_files(
        self, runtime: Runtime, path: str, injector: Injector
    ) -> None:
        place = find(Target(container="standing-box"))
        record = injector.inject(order("file.append", "standing-box", path=path, content="x"))
        until(lambda: inside(place, "/etc/shadowed") != NOTES)
        assert not Path("/etc/shadowed").exists()
        assert injector.recover(record.uid).end is End.RECOVERED
        assert inside(place, "/etc/shadowed") == NOTES

    @pytest.mark.parametrize("path", ["/app/passwd", "/up/passwd", "/magic/passwd"])
    def test_a_file_that_only_the_host_has_is_not_there(
        self, runtime: Runtime, path: str, injector: Injector
    ) -> None:
        before = Path("/etc/passwd").read_bytes()
        with pytest.raises((TargetGone, Refused)):
            injector.inject(order("file.append", "standing-box", path=path, content="x"))
        assert Path("/etc/passwd").read_bytes() == before

    # -------------------------------------------------------------------------- the whole of it

    @IMAGES
    def test_it_is_paused_and_goes_on(
        self, runtime: Runtime, image: str, injector: Injector
    ) -> None:
        record = injector.inject(order("container.pause", f"standing-{image}"))
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        with pytest.raises(Refused, match="still"):
            injector.inject(order("container.pause", f"standing-{image}"))
        assert injector.recover(record.uid).end is End.RECOVERED
        group = freezer.group_for(containers.find(f"standing-{image}").group)
        opened = freezer.Freezer.open(str(group.folder), group.version)
        assert not opened.still()
        opened.close()

    @pytest.mark.parametrize("keepers", ["alive", "killed"])
    def test_a_pause_ends_at_its_deadline(
        self, runtime: Runtime, keepers: str, injector: Injector
    ) -> None:
        record = injector.inject(order("container.pause", "standing-box", "1s"))
        if keepers == "killed":
            killed(injector)
            time.sleep(1.0)
            injector.adopt()
        assert ended(injector, record.uid).end is End.RECOVERED
        assert injector.residue(record.uid) == []

    @IMAGES
    def test_it_is_stopped_and_started_again(
        self, runtime: Runtime, image: str, injector: Injector
    ) -> None:
        with self.own(runtime, image) as name:
            before = containers.find(name)
            record = injector.inject(order("container.stop", name, grace="0s"))
            found = injector.observe(record.uid)
            assert found.effect is Effect.EFFECTIVE, found
            assert not before.process.alive()
            assert runtime.state(name) != "running"
            assert injector.recover(record.uid).end is End.RECOVERED
            assert containers.find(name).process != before.process
            assert runtime.state(name) == "running"

    def test_a_stop_ends_at_its_deadline_by_a_keeper(
        self, runtime: Runtime, injector: Injector
    ) -> None:
        with self.own(runtime, "one") as name:
            record = injector.inject(order("container.stop", name, "1500ms", grace="0s"))
            assert ended(injector, record.uid).end is End.RECOVERED
            until(lambda: runtime.state(name) == "running")

    @pytest.mark.slow
    @pytest.mark.parametrize("fault", ["container.stop", "container.pause"])
    def test_it_runs_again_when_the_injector_was_killed(
        self, runtime: Runtime, fault: str, injector: Injector
    ) -> None:
        params = {"grace": "0s"} if fault == "container.stop" else {}
        state = injector.store.state
        with self.own(runtime, "one") as name:
            names = crash.points(order(fault, name, **params), state)
            injector.recover_all()
            applied = [number for number, what in enumerate(names) if " apply " in what]
            for point in (*applied, len(names) - 1):
                assert crash.injected_until(order(fault, name, **params), state, point)
                injector.recover_all()
                assert runtime.state(name) == "running", names[point]
                assert took(find(Target(container=name))) is not None

    @pytest.mark.slow
    def test_whoever_waits_for_its_end_is_killed(self, runtime: Runtime, store: Path) -> None:
        """A runtime that was asked ends it all the same; a keeper waits for that, and starts it."""
        cli = Cli(store, -1)
        with self.own(runtime, "box") as name:
            before = containers.find(name)
            waiting = cli.start("inject", "container", "stop", "--container", name, "--grace", "3s")
            until(lambda: (store / "journal.db").exists() and began(store, name))
            time.sleep(1.0)  # it has been asked to end, and has three seconds for it
            waiting.kill()
            waiting.communicate()

            def again() -> bool:
                found = [each for each in containers.all_containers() if each.id == before.id]
                return bool(found) and found[0].process != before.process

            if runtime.name != "containerd":  # there nobody is asked: it was the injector's signal
                until(again, 30.0)
            with Injector(store) as injector:
                mine = [each for each in injector.query() if name in each.place["name"]]
                assert ended(injector, mine[0].uid).end is End.RECOVERED
            until(lambda: runtime.state(name) == "running")

    def test_somebody_else_has_started_it_meanwhile(
        self, runtime: Runtime, injector: Injector
    ) -> None:
        with self.own(runtime, "one") as name:
            record = injector.inject(order("container.stop", name, grace="0s"))
            runtime.restart(name)
            started = containers.find(name).process
            assert injector.recover(record.uid).end is End.RECOVERED
            assert containers.find(name).process == started

    def test_it_is_removed_meanwhile(self, runtime: Runtime, injector: Injector) -> None:
        with self.own(runtime, "one") as name:
            record = injector.inject(order("container.stop", name, grace="0s"))
            runtime.remove(name)
            assert injector.recover(record.uid).end is End.GONE

    @IMAGES
    def test_it_is_restarted(self, runtime: Runtime, image: str, injector: Injector) -> None:
        with self.own(runtime, image) as name:
            before = containers.find(name)
            record = injector.inject(order("container.restart", name, grace="0s"))
            assert injector.observe(record.uid).effect is Effect.EFFECTIVE
            now = containers.find(name)
            assert now.id == before.id
            assert now.process != before.process
            assert injector.recover(record.uid).end is End.RECOVERED
            assert containers.find(name).process == now.process

    def test_it_is_killed(self, runtime: Runtime, injector: Injector) -> None:
        with self.own(runtime, "box") as name:
            record = injector.inject(order("container.kill", name, signal="HUP"))
            assert injector.observe(record.uid).effect is Effect.INEFFECTIVE  # process 1
            record = injector.inject(order("container.kill", name))
            assert injector.observe(record.uid).effect is Effect.EFFECTIVE
            until(lambda: runtime.state(name) != "running")

    def test_it_is_removed_only_if_that_is_allowed(
        self, runtime: Runtime, injector: Injector
    ) -> None:
        with self.own(runtime, "one") as name:
            with pytest.raises(Protected, match="is lost"):
                injector.inject(order("container.remove", name))
            assert runtime.state(name) == "running"
            record = injector.inject(order("container.remove", name, allow=("remove",)))
            assert injector.observe(record.uid).effect is Effect.EFFECTIVE
            assert runtime.state(name) == ""
            assert injector.recover(record.uid).end is End.NOTHING

    # -------------------------------------------------------------------------- started anew

    @pytest.mark.parametrize("keepers", ["alive", "killed"])
    def test_a_fault_is_gone_when_its_target_is_started_anew(
        self, runtime: Runtime, keepers: str, injector: Injector
    ) -> None:
        with self.own(runtime, "one") as name:
            record = injector.inject(order("network.loss", name, **LOSS))
            if keepers == "killed":
                killed(injector)
            runtime.restart(name)
            if keepers == "killed":
                injector.adopt()
            assert ended(injector, record.uid).end is End.GONE
            assert injector.residue(record.uid) == []
            assert took(find(Target(container=name))) is not None

    def test_it_is_followed(self, runtime: Runtime, store: Path) -> None:
        cli = Cli(store, -1)
        words = ("inject", "network", "loss", "--interface", "lo", "--percent", "100%")
        with self.own(runtime, "box") as name:
            follow = cli.start(
                *words, "--container", name, "-t", "60s", "--uid", f"follow-{name}", "--follow"
            )
            try:
                place = hit_place(name)
                runtime.restart(name)
                assert not place.process or not place.process.alive()
                hit_place(name)
                follow.send_signal(signal.SIGINT)
                out, err = follow.communicate(timeout=30)
            finally:
                follow.kill()
                follow.wait()
            assert follow.returncode == 130, (out, err)
            assert "target gone" in err
            assert took(find(Target(container=name))) is not None
