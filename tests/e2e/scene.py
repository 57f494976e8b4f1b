"""A network namespace with a real server in it, and programs of ours that run inside."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

import faultline
from faultline.api.run import FaultStatus, Run
from faultline.changes import keepers
from faultline.changes.model import Record, State
from faultline.changes.store import open_store
from faultline.engine.runs import Runs
from faultline.injection.injector import Injector
from faultline.kernel import clock, link, netns, procfs
from faultline.kernel.netlink import Netlink
from faultline.testing import residue

PORT = 8080
SOURCES = str(Path(faultline.__file__).parent.parent)
PATIENCE = 60.0  # seconds after which a program is said to hang
MINE = "FAULTLINE_SCENE"  # in the environment of everything that a scene starts

AREAS = (
    "link",
    "address",
    "route",
    "qdisc",
    "filter",
    "firewall",
    "file",
)  # of this namespace alone

T = TypeVar("T")


@dataclass
class Program:
    """A program of ours inside a scene, with its words as they come."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _new: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as words:
            for line in words:
                self.lines.append(line.rstrip("\n"))
                self._new.put(line)
        self._new.put(None)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, words: str) -> float:
        """Wait until it says this; the moment at which it did."""
        until = time.monotonic() + PATIENCE
        while (left := until - time.monotonic()) > 0:
            line = self._new.get(timeout=left)
            assert line is not None, f"it ended without saying {words!r}:\n{self.text}"
            if words in line:
                return time.monotonic()
        raise AssertionError(f"it did not say {words!r} in time:\n{self.text}")

    def kill(self) -> float:
        """SIGKILL, as the kernel does when memory is short; the moment of its death."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        return time.monotonic()

    def end(self) -> int:
        """Wait until it ends; its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status


class Scene:
    """A scratch namespace, a folder, a store, a server, and what of all this must be left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.fd = netns.create()
        with netns.entered(self.fd), Netlink.open() as route:
            link.set_up(route, "lo")
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([SOURCES, str(folder)]),
            "FAULTLINE_STATE": str(self.state),
            MINE: str(folder),
        }
        self.programs: list[Program] = []
        self.server = self.start("-m", "faultline.demo.service", "--port", str(PORT))
        self.server.until("listening")
        self.before = self._look()

    def start(self, *arguments: str) -> Program:
        """Start Python inside the namespace."""
        process = self.inside(
            lambda: subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        self.programs.append(Program(process))
        return self.programs[-1]

    def command(self, *arguments: str) -> Program:
        """Start `faultline` with these arguments inside."""
        return self.start("-m", "faultline.cli.main", *arguments)

    def script(self, text: str) -> Program:
        """Start a Python script inside."""
        file = self.folder / f"script{len(self.programs)}.py"
        file.write_text(text)
        return self.start("-u", str(file))

    # ------------------------------------------------------------------ experiments

    def experiment(self, **changes: Any) -> str:
        """The demo's experiment with a short fault and parts of its spec replaced, as a file."""
        data = yaml.safe_load(files("faultline.demo").joinpath("experiment.yaml").read_text())
        data["spec"]["faults"][0]["duration"] = "3s"
        data["spec"]["traffic"][0]["rate"] = 20
        data["spec"] |= {"baseline": "1s", "cooldown": "1s", **changes}
        file = self.folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(data))
        return str(file)

    @property
    def run(self) -> Run:
        """The latest run of this scene's store."""
        with Runs(self.state) as runs:
            return runs.list(1)[0]

    @property
    def fault(self) -> FaultStatus:
        """The first fault of the latest run."""
        return self.run.status.faults[0]

    @property
    def records(self) -> list[Record]:
        """What the journal says, newest first."""
        with Injector(self.state) as injector:
            return injector.query()

    # ------------------------------------------------------------------ looking

    def inside(self, act: Callable[[], T]) -> T:
        """Call in here, in the namespace."""
        with netns.entered(self.fd):
            return act()

    def round_trip(self) -> float:
        """Seconds that connecting to the server takes now, measured by the test itself.

        The middle of three: packets pass a packet engine that the machine lets wait too long.
        """
        return sorted(self._connect() for _ in range(3))[1]

    def _connect(self) -> float:
        began = time.monotonic()
        with self.inside(lambda: socket.create_connection(("127.0.0.1", PORT), 10)):
            return time.monotonic() - began

    def _look(self) -> residue.Snapshot:
        seen = self.inside(lambda: residue.snapshot(folders=(self.folder,)))
        here = {area: lines for area, lines in seen.facts.items() if area in AREAS}
        ours = (each for each in self.processes() if not each.name.startswith("fl-keeper"))
        here["process"] = frozenset(f"{each.pid} {' '.join(each.cmdline)[:200]}" for each in ours)
        return residue.Snapshot(here)

    def processes(self) -> list[procfs.Process]:
        """Every process that this scene's programs have started, directly or not."""
        return procfs.find_by_environment(MINE, str(self.folder))

    def left(self) -> list[str]:
        """How the namespace, the folder and our processes differ from the beginning.

        Keepers are left out: they end by themselves. What the whole machine shares is compared by
        the fixture of every module.
        """
        until = time.monotonic() + 5
        while (found := residue.difference(self.before, self._look())) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def generators(self) -> list[procfs.Process]:
        """The processes that send the traffic."""
        return [p for p in self.processes() if "faultline.traffic.generator" in p.cmdline]

    def wait(self, what: Callable[[], object], seconds: float) -> float:
        """Wait until it is true; how long that took. The test fails if it never is."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < seconds, "it did not come true in time"
            time.sleep(0.02)
        return time.monotonic() - began

    def nothing_outlived_its_deadline(self) -> None:
        """Every fault in the journal has ended, and not later than it had to."""
        apart = time.time() - clock.now() / 1e9  # of the two clocks
        for record in self.records:
            assert record.state is State.ENDED, record
            assert record.ended is not None
            assert record.ended - apart <= record.deadline / 1e9 + 2, record

    def close(self) -> None:
        """End what is left, undo what is left, give everything back."""
        for program in self.programs:
            if program.process.poll() is None:
                program.kill()
            program.end()
        self.inside(self._recover)
        os.close(self.fd)

    def _recover(self) -> None:
        with Injector(self.state) as injector:
            injector.recover_all()
        keepers.retire(open_store(self.state))


def told(program: Program) -> Any:
    """The JSON that a program printed as its last line."""
    assert program.end() == 0, program.text
    return json.loads(program.lines[-1])
