"""Scenarios that an ordinary user carries out in namespaces of his own: `inside.py NAME OPTIONS`.

Prints one line of JSON. `tun: false` among the options hides /dev/net/tun, as on a machine where it
is closed to ordinary users.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from faultline.changes import keepers
from faultline.changes.model import Record
from faultline.injection import trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.kernel import link, procfs, syscalls, tc
from faultline.kernel.netlink import Netlink
from faultline.units import Duration

DELAY = {"interface": "lo", "latency": "50ms"}


def _hide_tun() -> None:
    syscalls.unshare(syscalls.Namespace.MOUNT)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/dev/net", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount a folder over /dev/net")


def _state() -> dict[str, Any]:
    """What a fault may have changed in this network namespace."""
    with Netlink.open() as nl:
        lo = link.get(nl, "lo")
        return {
            "devices": [one.name for one in link.links(nl)],
            "clsact": tc.ingress_kind(nl, lo.index),
            "settings": [
                lo.setting4(each) for each in (link.CONF_ACCEPT_LOCAL, link.CONF_ROUTE_LOCALNET)
            ],
        }


def _port() -> str:
    """What the worker has for its packets: `tun`, `veth`, or nothing."""
    with Netlink.open() as nl:
        return next((one.kind for one in link.marked(nl, "faultline:")), "")


@contextlib.contextmanager
def _injected(
    fault: str, params: dict[str, Any], duration: str = "1m"
) -> Iterator[tuple[Injector, Record]]:
    with Injector() as injector:
        try:
            record = injector.inject(Order(fault, params, Duration.parse(duration)))
            yield injector, record
        finally:
            injector.recover_all()
            keepers.dismiss(injector.store)


def _pair(address: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    sender = socket.socket(family, socket.SOCK_DGRAM)
    receiver.bind((address, 0))
    sender.connect(receiver.getsockname()[:2])
    receiver.settimeout(2)
    return receiver, sender


def life(fault: str, params: dict[str, Any]) -> dict[str, Any]:
    """Inject, measure, recover, look."""
    before = _state()
    with _injected(fault, params) as (injector, record):
        port = _port()
        reading = injector.observe(record.uid)
        ended = injector.recover(record.uid)
        left = injector.residue(record.uid)
        after = _state()
    return {
        "kinds": [step.change.kind for step in record.steps],
        "port": port,
        "effect": reading.effect,
        "told": f"{reading.measured} {reading.reason}",
        "end": ended.end,
        "left": left,
        "same": before == after,
        "workers": len(procfs.find_marked(f"faultline:{record.uid}")),
    }


def copies() -> dict[str, Any]:
    """How often a datagram that goes through the worker is received, and what the pair sends."""
    with _injected("network.delay", {"interface": "lo", "latency": "1ms"}):
        found: dict[str, Any] = {}
        for address in ("127.0.0.1", "::1", "127.255.255.255"):
            receiver, sender = _pair("" if "255" in address else address)
            if "255" in address:
                sender.close()
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.connect((address, receiver.getsockname()[1]))
            receiver.settimeout(0.05)
            count = 0
            for size in (10, 1500, 60_000):
                for _ in range(20):
                    sender.send(bytes(size))
                    with contextlib.suppress(TimeoutError):
                        while receiver.recv(65536):
                            count += 1
            found[address] = count
        with Netlink.open() as nl:
            near = next(link.marked(nl, "faultline:"))
            found["sent by the pair"] = link.counters(nl, near.index)["rx_packets"]
    return found


def transfer(size: int) -> dict[str, Any]:
    """A TCP transfer under a fault that looks at every packet and hits none of these."""
    with _injected("network.delay", {**DELAY, "destination_port": "9"}) as _:
        server = socket.create_server(("127.0.0.1", 0))
        block = os.urandom(1 << 20)
        sent = 0

        def give() -> None:
            nonlocal sent
            with socket.create_connection(server.getsockname()) as way:
                while sent < size:
                    way.sendall(block)
                    sent += len(block)

        giver = threading.Thread(target=give)
        giver.start()
        taker, _ = server.accept()
        wrong = taken = 0
        while data := taker.recv(1 << 20):
            at = taken % len(block)
            wrong += data != (block * 2)[at : at + len(data)]
            taken += len(data)
        giver.join()
    return {"taken": taken, "sent": sent, "wrong": wrong}


def _gap(until: Callable[[], bool], patience: float) -> float:
    """The longest time without an arrival among datagrams sent every 5 ms, until `until`."""
    receiver, sender = _pair()
    receiver.setblocking(False)
    began = last = time.monotonic()
    longest = 0.0
    while time.monotonic() - began < patience and not until():
        sender.send(b"x")
        time.sleep(0.005)
        with contextlib.suppress(BlockingIOError):
            while receiver.recv(16):
                now = time.monotonic()
                longest, last = max(longest, now - last), now
    return max(longest, time.monotonic() - last)


def lost_worker(how: str) -> dict[str, Any]:
    """The worker is ended or stopped: how long does no packet pass, and what is left?"""
    before = _state()
    with _injected("network.delay", DELAY) as (injector, record):
        workers = procfs.find_marked(f"faultline:{record.uid}:0")
        for each in workers:
            each.id.send(getattr(signal, how))
        began = time.monotonic()
        receiver, sender = _pair()
        receiver.settimeout(0.02)
        while time.monotonic() - began < 10:
            sender.send(b"x")
            with contextlib.suppress(TimeoutError):
                receiver.recv(16)
                break
        silent = time.monotonic() - began
        until = time.monotonic() + 10
        while injector.get(record.uid).end is None and time.monotonic() < until:
            time.sleep(0.02)
        told = [step.outcome.detail for step in injector.get(record.uid).steps if step.outcome]
        return {
            "workers": len(workers),
            "silent": silent,
            "end": injector.get(record.uid).end,
            "told": told,
            "left": injector.residue(record.uid),
            "same": before == _state(),
        }


def busy_worker() -> dict[str, Any]:
    """A worker that stands still for less than the patience of the keepers keeps its fault."""
    with _injected("network.delay", DELAY) as (injector, record):
        for _ in range(3):
            for signum in (signal.SIGSTOP, signal.SIGCONT):
                for each in procfs.find_marked(f"faultline:{record.uid}:0"):
                    each.id.send(signum)
                time.sleep(0.2)
        reading = injector.observe(record.uid)
        return {"effect": reading.effect, "end": injector.get(record.uid).end}


def deadline(latency: str, duration: str) -> dict[str, Any]:
    """The end that nobody asks for: how long does no packet pass around it?"""
    before = _state()
    params = {"interface": "lo", "latency": latency}
    with _injected("network.delay", params, duration) as (injector, record):
        gap = _gap(lambda: injector.get(record.uid).end is not None, 15)
        return {"gap": gap, "end": injector.get(record.uid).end, "same": before == _state()}


def scan(kill: bool) -> dict[str, Any]:
    """A scan without a journal finds the redirection; with `kill` its worker is gone as well."""
    before = _state()
    with Injector() as injector:
        record = injector.inject(Order("network.delay", DELAY, Duration.parse("1m")))
        for role in ("a", "b"):
            held = keepers.connect(injector.store, role)
            assert held is not None
            with held:
                os.kill(keepers.ask(held, {"op": "status"})["pid"], signal.SIGSTOP)
        stopped = [each for each in procfs.processes() if each.name.startswith("fl-keeper")]
        stopped = [each for each in stopped if str(injector.store.state) in each.cmdline]
        for each in stopped:
            each.id.send(signal.SIGKILL)
        if kill:
            for each in procfs.find_marked(f"faultline:{record.uid}"):
                each.id.send(signal.SIGKILL)
                each.id.wait(2)
            time.sleep(0.3)  # the kernel takes the worker's device down
    for file in injector.store.state.glob("journal.db*"):
        file.unlink()
    with Injector() as fresh:
        ends = [str(each.end) for each in fresh.recover_scan()]
        keepers.dismiss(fresh.store)
    return {"keepers": len(stopped), "ends": ends, "same": before == _state()}


def twice() -> dict[str, Any]:
    """Only one fault may lead the packets of a device away; another network has its own."""
    from faultline.errors import Conflict

    with _injected("network.delay", DELAY) as (injector, record):
        try:
            injector.inject(
                Order("network.loss", {"interface": "lo", "percent": "5%"}, record_time)
            )
        except Conflict as error:
            refused = error.holder == record.uid
        else:
            refused = False
        elsewhere = trial.in_child(lambda: _elsewhere(record.uid))
    return {"refused": refused, "elsewhere": elsewhere}


record_time = Duration.parse("10s")


def _elsewhere(other: str) -> dict[str, Any]:
    with Injector() as injector:
        record = injector.inject(Order("network.delay", DELAY, record_time))
        reading = injector.observe(record.uid)
        ended = injector.recover(record.uid)
        still = injector.get(other).end is None
    return {"effect": reading.effect, "end": ended.end, "other is still there": still}


def main() -> None:
    options = json.loads(sys.argv[2])
    tun = options.pop("tun", True)
    trial.isolate()
    if not tun:
        _hide_tun()
    print(json.dumps(globals()[sys.argv[1]](**options)))


if __name__ == "__main__":
    main()
