"""How long the command line takes to start: whole processes, from exec to exit.

python -m benchmarks.start
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.figure import Measured, alone, median, timed
from benchmarks.ground import compiled, faultline_command

TIMES = 15
COMMANDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("query",), "under 100 ms"),
    (("recover", "--all"), "under 100 ms"),
    (("completion", "bash"), ""),
    (("--version",), ""),
    (("--help",), ""),
    (("faults",), ""),
    (("inject", "network", "delay", "--help"), ""),
)


def measure() -> Measured:
    """The median of fifteen starts of each command; the first, which fills caches, is left out."""
    compiled()
    with tempfile.TemporaryDirectory(prefix="faultline-bench-") as folder:
        state = Path(folder)
        for words, aim in COMMANDS:

            def run(words: tuple[str, ...] = words) -> None:
                faultline_command(words, state).check_returncode()

            run()
            taken = [timed(run) for _ in range(TIMES)]
            yield median(f"start: faultline {' '.join(words)}", taken, "ms", aim)


if __name__ == "__main__":
    sys.exit(alone(measure))
