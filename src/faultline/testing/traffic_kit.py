"""The conformance kit for drivers of traffic of somebody else.

A driver only sends; pace, counting and percentiles are ours. What it can still get wrong is tried
on a target that answers, one that stands still, and one that has gone: latency counts from when a
request was meant to leave, counts add up, it stops on time, failures have names, and what it does
not accept is refused by name.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

from faultline.api.traffic import PluginTraffic, TrafficFigures, TrafficStatus
from faultline.errors import ApplyFailed, FaultlineError
from faultline.kernel import procfs
from faultline.testing import conformance
from faultline.traffic.driver import CLASS, CannotBegin, Driver, accepted
from faultline.traffic.model import SECOND, Load
from faultline.traffic.plugin import TrafficPlugin
from faultline.traffic.run import TrafficRun

RATE = 50
"""Turns per second of every trial."""
STALL = 1.5
"""Seconds for which the target is stopped."""
TIMEOUT = 4.0
_SLACK = 1.5  # seconds: a machine may be busy
_LONGEST_KIND = 40
_MOST_KINDS = 5


@dataclass(frozen=True, slots=True)
class Target:
    """Something that a driver sends to: parameters that lead there, and its processes."""

    params: Mapping[str, Any]
    pids: Sequence[int] = ()
    secrets: Mapping[str, str] | None = None

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def check_traffic(
    driver: Callable[[Load], Driver], target: Target | None = None
) -> dict[str, list[str]]:
    """What was checked of a driver's class, with its complaints; all empty if it conforms.

    Without a `target` the class has a stand-in (`TrafficPlugin.target`). A given one has to be for
    this check alone: its processes are stopped, and killed at the end.
    """
    with _reachable(), _standing(driver, target) as (there, why):
        if there is None:
            return {"target": [why]}
        trial = _Trial(driver, there)
        told = {"parameters": trial.wrong_parameters()}
        if told["parameters"]:
            return told
        for name, check in (
            ("counts", trial.counts),
            ("latency from the intended time", trial.stall),
            ("stops on time", trial.stop),
            ("a target that has gone", trial.gone),
        ):
            try:
                told[name] = check()
            except FaultlineError as error:
                told[name] = [error.message]
            if told[name]:
                break
        return told


@contextmanager
def _reachable() -> Generator[None]:
    """Other interpreters find what this one found."""
    path = os.pathsep.join(each for each in sys.path if each)
    with mock.patch.dict(os.environ, {"PYTHONPATH": path}):
        yield


@contextmanager
def _standing(
    driver: Callable[[Load], Driver], target: Target | None
) -> Generator[tuple[Target | None, str]]:
    if target is not None:
        yield target, ""
        return
    if not isinstance(driver, type) or not hasattr(driver, "target"):
        yield None, "it has no stand-in: give a target, or derive it from TrafficPlugin"
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "faultline.testing.traffic_target", _path(driver)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        params: dict[str, Any] = json.loads(line) if line else {}
        if params:
            example: dict[str, Any] = getattr(driver, "example", {})
            pids = [each.pid for each in procfs.descendants(process.pid)]
            yield Target({**example, **params}, pids), ""
        else:
            yield None, "its stand-in does not run, or yields no parameters"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _path(driver: Any) -> str:
    return f"{driver.__module__}:{driver.__name__}"


class _Trial:
    """One driver and what it is tried on."""

    def __init__(self, driver: Callable[[Load], Driver], target: Target) -> None:
        self.driver, self.target = driver, target

    def load(self, params: Mapping[str, Any], seconds: float = 60.0) -> Load:
        return Load(
            driver=f"{CLASS}{_path(self.driver)}",
            options={"params": dict(params), "secrets": dict(self.target.secrets or {})},
            duration=int(seconds * SECOND),
            rate=float(RATE),
            timeout=int(TIMEOUT * SECOND),
        )

    @contextmanager
    def sending(self, seconds: float = 60.0) -> Generator[TrafficRun]:
        spec = PluginTraffic.model_validate(
            {"name": "trial", "type": "plugin", "plugin": "trial", "rate": float(RATE),
             "warmup": "0s", "timeout": f"{TIMEOUT}s"}
        )  # fmt: skip
        with TrafficRun(spec, load=self.load(self.target.params, seconds)) as run:
            yield run

    # ------------------------------------------------------------------ parameters

    def wrong_parameters(self) -> list[str]:
        """Complaints about good parameters that are refused, and bad ones that are not, or not by
        name.
        """
        good = dict(self.target.params)
        if said := self._refusal(good):
            return [f"what it should accept is refused: {said}"]
        complaints = [
            f"{name}={value!r} {how}"
            for name, value in self._bad(good)
            if (how := self._not_by_name(name, {**good, name: value}))
        ]
        for name in good:
            said = self._refusal({key: each for key, each in good.items() if key != name})
            if said and name not in said:
                complaints.append(f"without {name} it is refused without that name: {said}")
        return complaints

    def _bad(self, good: Mapping[str, Any]) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = [("no_such_parameter", "1")]
        found += [(name, {"what": "nobody takes"}) for name in good]
        if isinstance(self.driver, type) and issubclass(self.driver, TrafficPlugin):
            model: Any = self.driver.params_type()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            found += [
                (name, value)
                for name, info in model.model_fields.items()
                for value in conformance.bad_values(info)
            ]
        return found

    def _not_by_name(self, name: str, params: Mapping[str, Any]) -> str:
        said = self._refusal(params)
        if not said:
            return "was accepted"
        return "" if name in said else f"is refused without its name: {said}"

    def _refusal(self, params: Mapping[str, Any]) -> str:
        try:
            accepted(self.driver, self.load(params), "trial")
        except CannotBegin as error:
            return str(error)
        return ""

    # ------------------------------------------------------------------ what is counted

    def counts(self) -> list[str]:
        """As many as were due leave, each is answered, and all sums agree."""
        with self.sending(2.0) as run:
            run.wait(2.0 + TIMEOUT + _SLACK)
            status = run.stop()
        complaints = _failed(status, run.failure)
        totals = status.totals or TrafficFigures()
        if totals.errors:
            complaints.append(f"{totals.errors} requests failed: {totals.kinds}")
        if totals.sent != totals.ok + totals.errors:
            complaints.append(f"{totals.sent} left, {totals.ok} and {totals.errors} came back")
        if totals.sent < 2 * RATE:
            complaints.append(
                f"{2 * RATE} turns were due and {totals.sent} requests left: each turn asks at "
                "least once"
            )
        if totals.sent and totals.late > totals.sent / 2:
            complaints.append(
                f"{totals.late} of {totals.sent} requests left late: what takes time belongs into "
                "the work that `turn.ask` is given"
            )
        sums = {name: sum(getattr(s, name) for s in status.seconds) for name in ("sent", "ok")}
        for name, count in sums.items():
            if count > getattr(totals, name):
                complaints.append(f"the seconds have {count} {name}, the totals fewer")
        for part in totals.parts:
            if part.sent != part.ok + part.errors:
                complaints.append(f"of {part.name} {part.sent} left, {part.ok + part.errors} came")
        return complaints

    def stall(self) -> list[str]:
        """A target that stands still for a while is seen by all who were meant to ask then."""
        with self.sending() as run:
            time.sleep(1.0)
            self.target.signal(signal.SIGSTOP)
            try:
                time.sleep(STALL)
            finally:
                self.target.signal(signal.SIGCONT)
            time.sleep(1.5)
            status = run.finish(TIMEOUT + _SLACK)
        complaints = _failed(status, run.failure)
        totals = status.totals or TrafficFigures()
        # Who was meant to ask in the first half of it waits for longer than the other half.
        slow = _longer(totals, STALL / 2)
        expected = RATE * STALL / 2
        if slow < 0.6 * expected:
            complaints.append(
                f"its target stood still for {STALL:g} s, and {slow} requests took longer than "
                f"{STALL / 2:g} s where about {expected:.0f} were meant to leave early enough: "
                "it does not wait for the answer, or does not ask meanwhile"
            )
        if totals.sent < 0.9 * RATE * (2.5 + STALL):
            complaints.append(
                f"{totals.sent} requests left where {RATE * (2.5 + STALL):.0f} were due"
            )
        return complaints

    def stop(self) -> list[str]:
        """Asked to end while its target stands still, it ends when all have timed out."""
        with self.sending() as run:
            pids = run.pids
            time.sleep(0.5)
            self.target.signal(signal.SIGSTOP)
            try:
                time.sleep(0.5)
                began = time.monotonic()
                status = run.finish(TIMEOUT + _SLACK)
                took = time.monotonic() - began
            finally:
                self.target.signal(signal.SIGCONT)
        complaints: list[str] = []
        if took >= TIMEOUT + _SLACK:
            complaints.append(
                f"it went on for {took:.1f} s after it was to end; requests time out after "
                f"{TIMEOUT:g} s and may not be held beyond that"
            )
        elif not any("timeout" in kind for kind in (status.totals or TrafficFigures()).kinds):
            complaints.append("no request timed out while its target stood still")
        complaints += [f"process {pid} is left" for pid in pids if _alive(pid)]
        return complaints + (_failed(status, run.failure) if not complaints else [])

    def gone(self) -> list[str]:
        """Requests to a target that has gone fail, by a short name, and nothing else does."""
        self.target.signal(signal.SIGKILL)
        time.sleep(0.2)
        try:
            with self.sending(1.0) as run:
                run.wait(1.0 + TIMEOUT + _SLACK)
                status = run.stop()
        except ApplyFailed as error:
            return [f"it cannot begin when its target is not there: {error.message}"]
        complaints = _failed(status, run.failure)
        totals = status.totals or TrafficFigures()
        if totals.ok or not totals.errors:
            complaints.append(
                f"its target has gone, and {totals.ok} requests were good, {totals.errors} bad"
            )
        long = [kind for kind in totals.kinds if len(kind) > _LONGEST_KIND]
        if long or len(totals.kinds) > _MOST_KINDS:
            complaints.append(f"failures need few short names: {list(totals.kinds)[:8]}")
        return complaints


def _failed(status: TrafficStatus, failure: str) -> list[str]:
    if failure:
        return [f"its generator failed, an exception that is not in `errors` perhaps: {failure}"]
    return [status.text] if status.text else []


def _longer(totals: TrafficFigures, seconds: float) -> int:
    """How many took longer than that."""
    from faultline.traffic.histogram import Histogram

    found = Histogram().add(totals.histogram)
    low, high = 0.0, 100.0
    for _ in range(30):  # the share below it, by halving
        middle = (low + high) / 2
        value = found.percentiles([middle]).get(middle, 0.0)
        low, high = (middle, high) if value < seconds else (low, middle)
    return round(found.count * (1 - low / 100))


def _alive(pid: int) -> bool:
    try:
        return procfs.process(pid).state not in "ZX"
    except ProcessLookupError:
        return False
