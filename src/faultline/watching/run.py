"""The targets and the logs of one run, as the engine uses them."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from faultline.api.watching import LogSpec, LogStatus, TargetSecond, TargetStatus
from faultline.errors import FaultlineError
from faultline.places import containers
from faultline.places.find import Target, find
from faultline.watching import files, logs
from faultline.watching.logs import Window
from faultline.watching.watcher import Watcher

_OUTPUTS = (1, 2)  # standard output and standard error


class Watched:
    """Curves from one watcher, and logs that are marked at the start and read at the end."""

    def __init__(self) -> None:
        self._watcher = Watcher()

    def start(self, name: str, target: Mapping[str, Any]) -> None:
        """Begin to look at a target; harmless twice."""
        self._watcher.start(name, dict(target))

    def seconds(self, name: str, after: float) -> list[TargetSecond]:
        """Its seconds that began later than `after` (unix time), oldest first."""
        return self._watcher.seconds(name, after)

    def status(self, name: str) -> TargetStatus | None:
        """What is known of a target, without its seconds."""
        return self._watcher.status(name)

    def begin(
        self, specs: Sequence[LogSpec], targets: Mapping[str, Mapping[str, Any]]
    ) -> list[LogStatus]:
        """Note where the asked logs and those of the targets stand now."""
        found = [logs.begin(spec) for spec in specs]
        asked = {each.begin.get("path") for each in found}
        for name, target in targets.items():
            own = own_logs(name, target)
            found += [each for each in own if each.begin.get("path") not in asked]
        self.follow(found)
        return found

    def follow(self, marked: Sequence[LogStatus]) -> None:
        """Look from now on when the marked files grow; after a restart of the engine as well."""
        for each in marked:
            if each.begin.get("form") == logs.FILE:
                self._watcher.follow(str(each.begin["path"]))

    def end(
        self, specs: Sequence[LogSpec], marked: Sequence[LogStatus], window: Window
    ) -> list[LogStatus]:
        """Stop looking, and read what was logged meanwhile."""
        self._watcher.stop()
        known = {spec.name: spec for spec in specs}
        return [self._end(known.get(each.name), each, window) for each in marked]

    def _end(self, spec: LogSpec | None, status: LogStatus, window: Window) -> LogStatus:
        path = str(status.begin.get("path", ""))
        asked = spec or LogSpec(name="own", container=status.name)
        return logs.end(asked, status, window, self._watcher.growth(path))

    def stop(self) -> None:
        """Look no more. Idempotent."""
        self._watcher.stop()


def own_logs(name: str, target: Mapping[str, Any]) -> list[LogStatus]:
    """The logs that a target has by itself: what its runtime keeps of a container, and the files
    that the output of a process goes to. None of them is missed if it is not there.
    """
    asked = {key: value for key, value in target.items() if value}
    try:
        if "container" in asked:
            return _kept(name, str(asked["container"]))
        if "pod" in asked:
            return _kept(name, containers.find_in_pod(str(asked["pod"])).id)
        if "pid" in asked or "process" in asked:
            return _outputs(name, find(Target(**asked)).pid)
    except (FaultlineError, OSError):
        return []
    return []


def _kept(name: str, container: str) -> list[LogStatus]:
    status = logs.begin(LogSpec(name="own", container=container))
    return [status.model_copy(update={"name": name})] if status.begin else []


def _outputs(name: str, pid: int) -> list[LogStatus]:
    """Output that goes to regular files, each once."""
    found: dict[str, LogStatus] = {}
    for number in _OUTPUTS:
        link = Path(f"/proc/{pid}/fd/{number}")
        try:
            path = str(link.readlink())
            info, told = link.stat(), Path(path).stat()
        except OSError:
            continue
        same = (info.st_dev, info.st_ino) == (told.st_dev, told.st_ino)  # seen from our own root
        if same and stat.S_ISREG(info.st_mode) and path not in found:
            begin = {**files.mark(path), "form": logs.FILE}
            label = name if not found else f"{name}-errors"
            found[path] = LogStatus(name=label, source=f"file {path}", begin=begin)
    return list(found.values())


def name_of(target: Mapping[str, Any]) -> str:
    """What a target is called in a run: `host`, `container web`, `pid 12`."""
    for kind in ("container", "pod", "pid", "process", "cgroup"):
        if target.get(kind):
            text = re.sub(r"\s+", " ", str(target[kind]))
            return f"{kind} {text}"[:120]
    return "host"
