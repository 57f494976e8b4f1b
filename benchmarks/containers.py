"""How long it takes to get into a container: a fault in it, beside what runtimes need to run a
program that does nothing there.

python -m benchmarks.containers
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.containers.grounds import Docker, NotStarted, prepared

from benchmarks.figure import Figure, Measured, NotHere, alone, median, timed
from benchmarks.ground import Ground, compiled, ground
from faultline.injection.plan import Order
from faultline.places import containers
from faultline.places.find import Target, find
from faultline.units import Duration

TIMES = 15
NAME = "standing-box"
NEEDED = ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "runc", "busybox")
NOTHING = ("/bin/busybox", "true")
WORDS = ("network", "loss", "--interface", "lo", "--percent", "100%")


def measure() -> Measured:
    """Medians of fifteen; the first of each, which fills caches, is left out."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        raise NotHere(f"needs root and {', '.join(NEEDED)}; missing: {', '.join(missing) or '-'}")
    compiled()
    try:
        with prepared(Docker) as runtime, ground() as here:
            assert isinstance(runtime, Docker)
            yield from _all(here, runtime.base, str(runtime.socket))
    except NotStarted as why:
        raise NotHere(str(why)) from None


def _all(here: Ground, base: Path, socket: str) -> Measured:
    target = Target(container=NAME)
    place = find(target)
    yield _several("container: found by its name", lambda: containers.find(NAME))

    def enter() -> None:
        with place.entered():
            pass

    yield _several("container: its network entered and left", enter)
    here.warm()
    params = {"interface": "lo", "percent": "100%"}
    taken: list[float] = []
    for _ in range(TIMES + 1):
        order = Order("network.loss", params, Duration.parse("10m"), target=target)
        taken.append(timed(lambda order=order: here.injector.inject(order)))
        here.injector.recover_all()
    yield median("container: network.loss injected, warm process", taken[1:], "ms", "under 100 ms")
    taken.clear()
    for _ in range(TIMES + 1):
        words = ("inject", *WORDS, "--container", NAME, "--no-observe")
        taken.append(timed(lambda words=words: here.command(*words).check_returncode()))
        here.injector.recover_all()
    yield median("container: network.loss injected, a command", taken[1:], "ms", "under 500 ms")
    runc = ("runc", "--root", str(base / "run" / "runtime-runc" / "moby"), "exec", place.container)
    yield _several("container: a program that does nothing, by runc exec", lambda: _run(*runc))
    docker = ("docker", "-H", f"unix://{socket}", "exec", NAME)
    yield _several("container: a program that does nothing, by docker exec", lambda: _run(*docker))


def _run(*words: str) -> None:
    subprocess.run([*words, *NOTHING], check=True, capture_output=True)


def _several(name: str, act: object) -> Figure:
    assert callable(act)
    act()
    return median(name, [timed(act) for _ in range(TIMES)], "ms")


if __name__ == "__main__":
    sys.exit(alone(measure))
