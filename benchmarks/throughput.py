"""What TCP makes of a delay of 10 ms and of 50 ms, by every engine that the kernel allows.

    python -m benchmarks.throughput

One connection over loopback and one over a cable (veth, MTU 1500) between two network namespaces.
The packets of the sender are delayed, the acknowledgements are not. The yardstick is netem as the
root queue of the device, which is how other tools do it; ours never touches a root queue.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.figure import Figure, Measured, Missing, NotHere, alone
from benchmarks.packets import MS, engine, netem, tcp, world
from faultline.kernel import link, shaping, tc
from faultline.kernel.netlink import Netlink
from faultline.kernel.shaping import Netem

SECOND_KERNEL = True
SECONDS = 2.0
DELAYS = (10, 50)  # ms


@contextmanager
def root_netem(nl: Netlink, device: str, delay: int) -> Generator[None]:
    """netem as the root queue of the device itself."""
    found = link.get(nl, device)
    shaping.add(nl, found.index, Netem(delay=delay), found.mtu)
    try:
        yield
    finally:
        tc.delete_qdisc(nl, found.index)


def _speed(name: str, fault: AbstractContextManager[object], run: Callable[[], float]) -> Measured:
    try:
        with fault:
            yield Figure(name, run(), "MB/s")
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV)
        why = "this kernel has no netem" if missing else f"{error.strerror or error}"
        yield Missing(name, why)
    except (ValueError, KeyError):
        yield Missing(name, "the worker of the packet engine did not start: no tun device")


def measure() -> Measured:
    """Megabytes per second, the first second left out."""
    if os.geteuid() != 0:
        raise NotHere("throughput is measured as root")
    with world() as (near, far, nl):
        for device, address, end in (("lo", "127.0.0.1", near), ("va", "10.77.0.2", far)):
            where = "loopback" if device == "lo" else "cable, MTU 1500"

            def run(end: int = end, address: str = address) -> float:
                return tcp(near, end, address, SECONDS)

            yield Figure(f"tcp, {where}: no fault", run(), "MB/s")
            for delay in DELAYS:
                name, asked = f"tcp, {where}, {delay} ms", delay * MS
                yield from _speed(f"{name}: packets engine", engine(nl, near, device, asked), run)
                yield from _speed(f"{name}: netem engine", netem(nl, device, asked), run)
                yield from _speed(f"{name}: netem at the root", root_netem(nl, device, asked), run)


if __name__ == "__main__":
    sys.exit(alone(measure))
