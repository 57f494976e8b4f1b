"""The process probe: how many run, what memory they hold, how busy they are."""

from __future__ import annotations

import os
import re
from time import monotonic, sleep

from faultline.api.probe import Measurement, ProcessProbe
from faultline.errors import ObserveFailed
from faultline.kernel import memory, procfs
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Figures

_TICKS = os.sysconf("SC_CLK_TCK")
_SHORTEST = 0.2  # seconds; processor time is counted in hundredths
_NAMED = 20  # pids that expressions see


class Prober(prober.Prober[ProcessProbe]):
    """Its value is a number of processes, bytes, or a share of one core."""

    def __init__(self, spec: ProcessProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._at = monotonic()
        self._used = self._times(self._find()) if spec.measure == "cpu" else {}

    def _find(self) -> list[procfs.Process]:
        spec = self.spec
        if spec.pid is not None:
            try:
                found = [procfs.process(spec.pid)]
            except ProcessLookupError:
                return []
        elif spec.process:
            found = procfs.find_by_name(spec.process)
        else:
            found = procfs.find_by_cmdline(re.compile(spec.pattern))
        return [each for each in found if each.state not in "ZX"]

    def look(self, limit: Limit) -> Measurement:
        found = self._find()
        result = {"pids": [each.pid for each in found[:_NAMED]], "count": len(found)}
        if self.spec.measure == "count":
            # Without an expectation a process should be there; with one, its absence may be good.
            good = bool(found) or self.spec.expect is not None
            text = f"{len(found)} running"
            return Measurement(value=float(len(found)), ok=good, text=text, result=result)
        if not found:
            self._used, self._at = {}, monotonic()
            raise NoAnswer("no such process runs")
        if self.spec.measure == "rss":
            held = sum(self._resident(each) for each in found)
            return Measurement(
                value=float(held), ok=True, text=f"{held / 2**20:.1f} MiB", result=result
            )
        share = self._share(found)
        return Measurement(value=share, ok=True, text=f"{share:.1%} of a core", result=result)

    def _resident(self, process: procfs.Process) -> int:
        try:
            return memory.process_memory(process.pid).resident
        except ProcessLookupError:
            return 0  # it ended since it was found
        except PermissionError as error:
            raise ObserveFailed(
                f"the memory of process {process.pid} is not ours to see"
            ) from error

    def _times(self, found: list[procfs.Process]) -> dict[procfs.ProcessId, float]:
        used: dict[procfs.ProcessId, float] = {}
        for each in found:
            try:
                with open(f"/proc/{each.pid}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            used[each.id] = (int(fields[11]) + int(fields[12])) / _TICKS  # proc_pid_stat(5)
        return used

    def _share(self, found: list[procfs.Process]) -> float:
        """Processor time since the measurement before; a process that is new counts in full."""
        sleep(max(0.0, self._at + _SHORTEST - monotonic()))
        used, at = self._times(found), monotonic()
        spent = sum(now - self._used.get(each, 0.0) for each, now in used.items())
        share = spent / max(at - self._at, 1e-9)
        self._used, self._at = used, at
        return share
