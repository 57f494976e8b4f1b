"""Where the benchmarks of faults run: a child with a network namespace, a store and a folder."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faultline
from benchmarks.figure import Figure, Measured, Missing, NotHere
from faultline.changes import keepers
from faultline.changes.model import Record
from faultline.errors import FaultlineError
from faultline.injection import trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.units import Duration

PATIENCE = 900.0  # seconds for one benchmark
SOURCE = Path(faultline.__file__).parent


@dataclass
class Ground:
    """A store of its own, with a folder for files."""

    injector: Injector
    folder: Path

    @property
    def state(self) -> Path:
        return self.injector.store.state

    def order(self, fault: str, **params: Any) -> Order:
        """An order of ten minutes: long enough for any benchmark."""
        return Order(fault, params, Duration.parse("10m"))

    @contextmanager
    def injected(self, fault: str, **params: Any) -> Generator[Record]:
        """A fault for the length of the block."""
        record = self.injector.inject(self.order(fault, **params))
        try:
            yield record
        finally:
            self.injector.recover(record.uid)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command line as a process of its own, on this store."""
        return faultline_command(words, self.state)

    def warm(self) -> None:
        """Have both keepers running."""
        keepers.wake(self.injector.store)

    def cold(self) -> None:
        """Have no keeper running."""
        until = time.monotonic() + 10
        while any(keepers.connect(self.injector.store, role) for role in ("a", "b")):
            keepers.dismiss(self.injector.store)
            time.sleep(0.02)
            if time.monotonic() > until:
                raise NotHere("the keepers do not end")


def faultline_command(words: tuple[str, ...], state: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line; its byte code has been compiled by `compiled`."""
    environment = {**os.environ, "FAULTLINE_STATE": str(state), "PYTHONPATH": str(SOURCE.parent)}
    argv = [sys.executable, "-m", "faultline.cli.main", *words]
    return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)


def compiled() -> None:
    """Compile the byte code, as installing does; else each start would."""
    compileall.compile_dir(str(SOURCE), quiet=2)


@contextmanager
def ground() -> Generator[Ground]:
    """A ground whose faults and keepers are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="faultline-bench-") as state,
        tempfile.TemporaryDirectory(prefix="faultline-bench-files-") as folder,
        Injector(Path(state)) as injector,
    ):
        try:
            yield Ground(injector, Path(folder))
        finally:
            injector.recover_all()
            keepers.dismiss(injector.store)


def tried(name: str, act: Callable[[], Measured]) -> Measured:
    """The figures of one fault; where it cannot be injected here, that is said."""
    try:
        yield from act()
    except FaultlineError as error:
        yield Missing(name, f"{error.message}; {error.hint}".removesuffix("; "))


def isolated(act: Callable[[Ground], Measured]) -> Measured:
    """The figures that `act` measures in a child with a network namespace of its own."""
    if os.geteuid() != 0:
        raise NotHere("faults are measured as root")
    compiled()

    def work() -> list[tuple[str, dict[str, Any]]]:
        with ground() as there:
            figures = tried("the rest", lambda: act(there))
            return [(type(one).__name__, asdict(one)) for one in figures]

    found = trial.in_child(work, PATIENCE)
    if found is None:
        raise NotHere("the benchmark did not come to an end; its words are above")
    for kind, fields in found:
        yield Figure(**fields) if kind == "Figure" else Missing(**fields)
