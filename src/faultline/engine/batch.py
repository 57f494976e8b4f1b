"""One experiment over a list of applications: a run for each row of values, one after the other or
several at once. Each run is kept as any other; what is made of all of them is one table.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from faultline.api.experiment import Experiment
from faultline.api.run import Point, Run
from faultline.engine import runs as engine
from faultline.engine.driver import Driver, Listener
from faultline.engine.interrupt import stopping
from faultline.engine.runs import Runs
from faultline.errors import FaultlineError, InvalidParameter, UsageError

MOST_ROWS = 1000
Row = Mapping[str, str]
Teller = Callable[[Row, Point], None]
_GRAVEST = (130, 6, 1, 3, 7, 2, 8, 5, 4)  # exit codes; the first that occurs is that of all


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row: a run, or why there is none."""

    row: Row
    run: Run | None = None
    error: FaultlineError | None = None

    @property
    def exit_code(self) -> int:
        if self.error is not None:
            return self.error.exit_code
        return engine.exit_code(self.run) if self.run else 130


def rows_of(text: str) -> list[Row]:
    """`NAME=A,B,C`, or a file of rows: CSV with the names in its first line, or a list in YAML.

    Raises InvalidParameter, UsageError.
    """
    name, equals, listed = text.partition("=")
    if equals and name and "/" not in name:
        rows: list[Row] = [{name: value.strip()} for value in listed.split(",") if value.strip()]
    else:
        rows = _read(Path(text))
    if not rows or len(rows) > MOST_ROWS:
        raise InvalidParameter("--for-each", text, f"1 to {MOST_ROWS} rows")
    if len({tuple(row.items()) for row in rows}) < len(rows):
        raise InvalidParameter("--for-each", text, "no row twice")
    return rows


def _read(path: Path) -> list[Row]:
    try:
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                return [_row(path, row) for row in csv.DictReader(file)]
        data: object = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, csv.Error) as error:
        raise UsageError(
            f"{path} cannot be read: {error}",
            hint="give NAME=A,B,C, a .csv file with the names in its first line, or a list in YAML",
        ) from error
    if not isinstance(data, list):
        raise InvalidParameter("--for-each", path, "a file with a list of rows")
    return [_row(path, row) for row in cast("list[object]", data)]


def _row(path: Path, row: object) -> Row:
    if not isinstance(row, dict):
        raise InvalidParameter("--for-each", path, "rows of NAME: VALUE")
    pairs = cast("dict[object, object]", row)
    if any(name is None or value is None for name, value in pairs.items()):
        raise InvalidParameter("--for-each", path, "as many values in each row as there are names")
    return {str(name): str(value) for name, value in pairs.items()}


class Batch:
    """The runs of one experiment, one per row."""

    def __init__(
        self,
        open_runs: Callable[[], Runs],
        file: Path,
        values: Mapping[str, Any],
        rows: Sequence[Row],
        at_once: int = 1,
    ) -> None:
        """Read the document with the values of every row; raises InvalidDocument, UsageError."""
        self._open = open_runs
        self._values = values
        with open_runs() as kept:
            self._todo: list[tuple[Row, Experiment]] = [
                (row, kept.named(file, {**values, **row})[0]) for row in rows
            ]
        self._at_once = at_once
        self._driving: set[Driver] = set()
        self._lock = threading.Lock()
        self._stopped = ""

    def stop(self, why: str) -> None:
        """Abort the runs under way and begin no other one."""
        self._stopped = self._stopped or why
        for driver in list(self._driving):
            driver.stop(why)

    def drive(
        self, teller: Teller | None = None, creator: str = "", seed: int | None = None
    ) -> list[Outcome]:
        """Carry them out, all with the same seed if one is given; the outcomes in the order of the
        rows.
        """
        with stopping(self.stop), ThreadPoolExecutor(self._at_once, "faultline row") as pool:
            futures: list[Future[Outcome]] = [
                pool.submit(self._one, row, experiment, teller, (creator, seed))
                for row, experiment in self._todo
            ]
            return [future.result() for future in futures]

    def _one(
        self, row: Row, experiment: Experiment, teller: Teller | None, by: tuple[str, int | None]
    ) -> Outcome:
        if self._stopped:
            return Outcome(row)
        with self._open() as kept:
            try:
                creator, seed = by
                made = kept.create(experiment, {**self._values, **row}, creator, seed=seed)
                driver = kept.driver(made.metadata.name, _listener(row, teller))
                with self._lock:
                    self._driving.add(driver)
                if self._stopped:
                    driver.stop(self._stopped)
                try:
                    return Outcome(row, driver.drive())
                finally:
                    with self._lock:
                        self._driving.discard(driver)
            except FaultlineError as error:
                return Outcome(row, error=error)


def _listener(row: Row, teller: Teller | None) -> Listener | None:
    if teller is None:
        return None

    def listen(_run: Run, point: Point) -> None:
        teller(row, point)

    return listen


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """That of the gravest outcome; 0 if all held."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in _GRAVEST if code in codes), max(codes, default=0))
