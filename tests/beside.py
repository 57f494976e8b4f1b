"""The whole suite in two lanes side by side.

One changes this machine, a module after the other, and the machine is compared around each of them.
The other one changes nothing of it and waits most of its time: for servers, for clocks. What
measures the machine itself runs when that one has ended.

python -m tests.beside [--again] [OPTION OF PYTEST ...]
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from faultline.testing import residue, sampling

if TYPE_CHECKING:
    import pytest

LANES = MACHINE, BESIDE = "machine", "beside"
OTHER = "FAULTLINE_OTHER_LANE"  # a file that is there as long as the other lane runs
WATCHED = (Path("/dev/shm"), Path("/etc"), Path("/var/tmp"))
CHANGING = (
    "needs_root", "needs_netns", "needs_userns", "needs_second_kernel", "needs_docker",
    "needs_containerd", "needs_podman", "needs_cluster", "both_kernels", "quiet",
)  # fmt: skip
NO_TESTS = 5  # what pytest ends with when there are none


# ---------------------------------------------------------------------------- in the tests' process


def of(lane: str, items: list[pytest.Item]) -> list[pytest.Item]:
    """Those of a lane: modules go as a whole."""
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.location[0], []).append(item)
    meant = {name: (lane == BESIDE) == _changes_nothing(found) for name, found in modules.items()}
    return [item for item in items if meant[item.location[0]]]


def _changes_nothing(module: list[pytest.Item]) -> bool:
    names = {mark.name for item in module for mark in item.iter_markers()}
    return "beside" in names or names.isdisjoint(CHANGING)


def beside_others() -> bool:
    """Whether there is another lane."""
    return OTHER in os.environ


def wait_alone() -> None:
    """Until the other lane has ended; at once if this is it."""
    other = os.environ.get(OTHER)
    while other and other != BESIDE and Path(other).exists():
        time.sleep(0.2)


# ---------------------------------------------------------------------------- around both


def _start(lane: str, other: str, out: int | None, *options: str) -> subprocess.Popen[bytes]:
    words = [
        *(sys.executable, "-m", "pytest", "--durations=15", f"--lane={lane}"),
        *("-o", f"cache_dir=.pytest_cache/{lane}"),
        *(["--no-residue"] if lane == BESIDE else []),
    ]
    env = {**os.environ, OTHER: other}
    return subprocess.Popen([*words, *options], stdout=out, stderr=out, env=env)


@contextlib.contextmanager
def _ended(*running: subprocess.Popen[bytes]) -> Generator[None]:
    """Behind the block none of them runs any more, whatever happens in it."""
    try:
        yield
    finally:
        for each in running:
            if each.poll() is None:
                each.send_signal(signal.SIGINT)
        for each in running:
            each.wait()


def _both(options: list[str]) -> dict[str, int]:
    """Run them side by side; what the other one printed is shown behind the first. Their ends."""
    with tempfile.TemporaryDirectory(prefix="faultline-lanes-") as folder:
        there, said = Path(folder, "runs"), Path(folder, "said")
        there.touch()
        with said.open("wb") as out:
            beside = _start(BESIDE, BESIDE, out.fileno(), *options)
        machine = _start(MACHINE, str(there), None, *options)
        with _ended(machine, beside):
            beside.wait()
            there.unlink()
            machine.wait()
        _say("the lane beside it")
        sys.stdout.write(said.read_text(errors="replace"))
    return {MACHINE: machine.returncode, BESIDE: beside.returncode}


def _say(text: str) -> None:
    print(f"\nlanes: {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Run the suite; the status is that of pytest, or 1 if the machine is not what it was."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    again, options = "--again" in arguments, [each for each in arguments if each != "--again"]
    _say(f"FAULTLINE_SEED={sampling.SEED}")
    before = residue.snapshot(folders=WATCHED)
    ends = _both(options)
    if ends[MACHINE] == NO_TESTS or ends[BESIDE] == NO_TESTS:
        ends = {lane: end for lane, end in ends.items() if end != NO_TESTS} or {MACHINE: NO_TESTS}
    for lane in [lane for lane, end in ends.items() if again and end == 1]:
        # Two cores, and others beside us: what failed is tried once more by itself, and named.
        _say(f"once more, what failed in the lane {lane}")
        last = ("--last-failed", "--last-failed-no-failures=none", "-v")
        with _ended(once := _start(lane, "", None, *options, *last)):
            ends[lane] = once.wait()
    left = residue.wait_clean(before, folders=WATCHED)
    if left := [line for line in left if not line.startswith("- process:")]:
        _say("the machine is not what it was:\n" + "\n".join(left))
        return 1
    return max(ends.values())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
