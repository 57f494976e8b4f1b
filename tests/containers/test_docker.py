"""Containers of Docker, in a daemon of the test's own."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.containers.everywhere import Everywhere, order, said, standing
from tests.containers.grounds import Docker, Runtime, until

from faultline.changes.model import End
from faultline.errors import Protected, Unsupported
from faultline.injection.injector import Injector
from faultline.injection.reading import Effect
from faultline.kernel import procfs
from faultline.places import containers

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_docker]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    yield from standing(Docker)


@pytest.fixture
def hung(runtime: Runtime) -> Iterator[None]:
    """Docker's daemon and its containerd stand still."""
    assert isinstance(runtime, Docker)
    daemons = procfs.descendants(runtime.process.pid)
    for each in daemons:
        each.id.send(signal.SIGSTOP)
    yield
    for each in daemons:
        each.id.send(signal.SIGCONT)


class TestDocker(Everywhere):
    """Everything that holds everywhere."""

    def test_what_it_writes_is_kept_with_a_run(self, runtime: Runtime) -> None:
        with self.own(runtime, "box") as name:
            found = said(name, "hello from inside password=hunter2")
            assert [line.text for line in found.lines] == ["hello from inside password=***"]
            assert found.lines[0].stream == "stdout"
        with self.own(runtime, "box", "--log-driver", "none") as name:
            assert "log driver is none" in said(name, "lost").text

    def test_what_needs_no_daemon_works_while_it_hangs(
        self, runtime: Runtime, hung: None, injector: Injector
    ) -> None:
        assert containers.find("shop=standing-box") == containers.find("standing-box")
        record = injector.inject(order("container.pause", "standing-box"))
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert injector.recover(record.uid).end is End.RECOVERED
        with pytest.raises(Unsupported, match="answers within"):
            injector.inject(order("container.stop", "standing-box"))

    def test_a_daemon_that_hangs_at_the_end_is_asked_again(
        self, runtime: Runtime, injector: Injector
    ) -> None:
        with self.own(runtime, "one") as name:
            record = injector.inject(order("container.stop", name, "3s", grace="0s"))
            assert isinstance(runtime, Docker)
            daemon = procfs.process(runtime.process.pid).id
            daemon.send(signal.SIGSTOP)
            try:
                until(lambda: injector.get(record.uid).end is End.PERSON, 40.0)
                outcome = injector.get(record.uid).steps[0].outcome
                assert outcome is not None
                assert outcome.commands[0][0] == "docker"
                assert outcome.commands[0][-2] == "start"
            finally:
                daemon.send(signal.SIGCONT)
            until(lambda: injector.get(record.uid).end is End.RECOVERED, 40.0)
            assert runtime.state(name) == "running"

    def test_what_docker_removes_when_it_ends_is_not_stopped(
        self, runtime: Runtime, injector: Injector
    ) -> None:
        with self.own(runtime, "one", "--rm") as name:
            with pytest.raises(Protected, match="could not come back"):
                injector.inject(order("container.stop", name))
            assert runtime.state(name) == "running"
