"""A program that is brought back listens where it has listened: in the network of the place."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from faultline.changes import keepers
from faultline.changes.model import State
from faultline.injection import scratch, trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.kernel import procfs, procnet
from faultline.places.find import Target, find
from faultline.units import Duration

PORT = 4377
SERVER = (
    "import socket, sys, time\n"
    "s = socket.create_server(('', int(sys.argv[1])))\n"
    "print(flush=True)\n"
    "time.sleep(60)\n"
)

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels, pytest.mark.slow]


def _listening(pid: int) -> list[procfs.Process]:
    return procnet.find_by_port(PORT, pid=pid)


def _brought_back(folder: Path) -> list[str]:
    root, script = folder / "root", folder / "server.py"
    root.mkdir()
    script.write_text(SERVER)
    again = [sys.executable, str(script), str(PORT)]
    with scratch.capsule(root) as inside, Injector(folder / "store") as injector:
        keepers.wake(injector.store)  # outside of the place
        target = Target(pid=inside.pid)
        with find(target).entered():
            server = subprocess.Popen(again, stdout=subprocess.PIPE)
        assert server.stdout
        server.stdout.readline()
        params = {"port": PORT, "force": True, "restart": again, "patience": "500ms"}
        made = Order("network.occupy", params, Duration.parse("3s"), target=target)
        record = injector.inject(made)
        wrong = [] if server.wait(5) == -9 else ["the server was not ended"]
        server.stdout.close()
        wrong += [] if [p.name for p in _listening(inside.pid)] == ["fl-occupy"] else ["not held"]
        until = time.monotonic() + 15
        while injector.get(record.uid).state is not State.ENDED and time.monotonic() < until:
            time.sleep(0.05)  # the keepers do it
        back = _listening(inside.pid)
        if [each.cmdline[1] for each in back] != [str(script)]:
            wrong.append(f"listening there: {back}")
        if procnet.find_by_port(PORT):
            wrong.append("it listens outside of the place")
        for each in back:
            each.id.send(9)
            each.id.wait(5)
        keepers.retire(injector.store)
    return wrong


def test_a_server_in_a_place_is_brought_back_in_its_network(tmp_path: Path) -> None:
    assert trial.in_child(lambda: _brought_back(tmp_path)) == []
