"""Which processes are meant: by pid, name, command line, listening port or user, all at once.

Plain data, so that a worker that selects again and again means the same as the plan did.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Self

from faultline.kernel import procfs, procnet


@dataclass(frozen=True, slots=True)
class Selection:
    """Every criterion that is given must fit; one that is not given has its empty value.

    With `group` or `tree` nobody else is meant: whoever is in that control group or below it now,
    or that process and what it started, as long as it is the same process.
    """

    pid: int = 0
    start: int = 0  # of that pid, in clock ticks; 0: whoever has it now
    inner: int = 0  # the pid in the process's own pid namespace
    name: str = ""
    pattern: str = ""
    port: int = 0
    uid: int = -1  # effective user
    group: str = ""  # a control group, as in /proc/PID/cgroup
    tree: tuple[int, int] = (0, 0)  # pid and start time
    where: str = ""  # the same in words

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        fields: dict[str, Any] = {**data, "tree": tuple(data.get("tree", (0, 0)))}
        return cls(**fields)

    def __str__(self) -> str:
        parts = {
            "pid": self.pid or "",
            "inner pid": self.inner or "",
            "name": self.name,
            "pattern": self.pattern,
            "port": self.port or "",
            "user id": self.uid if self.uid >= 0 else "",
        }
        told = " and ".join(f"{name} {value}" for name, value in parts.items() if value != "")
        return " in ".join(filter(None, (told or "everything", self.where))).strip()

    @property
    def narrows(self) -> bool:
        """Whether anything beyond the place is asked for."""
        return any((self.pid, self.inner, self.name, self.pattern, self.port, self.uid >= 0))

    def find(self) -> list[procfs.Process]:
        """The processes that fit now, by pid; zombies and kernel threads never do."""
        sets: list[dict[procfs.ProcessId, procfs.Process]] = []
        if self.pid:
            sets.append(_by_id(_with_pid(self.pid, self.start)))
        if self.name:
            sets.append(_by_id(procfs.find_by_name(self.name)))
        if self.pattern:
            sets.append(_by_id(procfs.find_by_cmdline(self.pattern)))
        if self.port:
            sets.append(_by_id(procnet.find_by_port(self.port)))
        if self.uid >= 0:
            sets.append(_by_id([each for each in procfs.processes() if each.uid == self.uid]))
        if self.group or self.tree[0]:
            sets.append(_by_id(self._members()))
        if self.inner and sets:
            sets.append(_by_id(_inside(list(sets[-1].values()), self.inner)))
        if not sets:
            return []
        common = set(sets[0]).intersection(*sets[1:])
        found = [sets[0][each] for each in common]
        living = [each for each in found if each.state not in "ZX" and each.cmdline]
        return sorted(living, key=lambda each: each.pid)

    def _members(self) -> list[procfs.Process]:
        """Whoever is in the place that is meant now."""
        if self.group:
            return [each for each in procfs.processes() if procfs.in_group(each.pid, self.group)]
        top = procfs.ProcessId(*self.tree)
        return procfs.descendants(top.pid) if top.alive() else []


def _inside(found: list[procfs.Process], inner: int) -> list[procfs.Process]:
    """Those that have this pid in their own pid namespace (NSpid of proc_pid_status(5))."""
    return [each for each in found if procfs.inner_pid(each.pid) == inner]


def _with_pid(pid: int, start: int) -> list[procfs.Process]:
    try:
        found = procfs.process(pid)
    except ProcessLookupError:
        return []
    return [found] if start in (0, found.id.start) else []


def _by_id(found: Collection[procfs.Process]) -> dict[procfs.ProcessId, procfs.Process]:
    return {each.id: each for each in found}


@dataclass(frozen=True, slots=True)
class Spared:
    """Who is never hit, however well they fit: for a worker that selects without asking anybody."""

    programs: frozenset[str]
    processes: frozenset[tuple[int, int]]  # pid and start time
    marks: tuple[str, ...]  # first words of an argument
    first: bool = True  # process 1 too

    def covers(self, process: procfs.Process) -> bool:
        """Whether this process is spared."""
        if process.pid == os.getpid() or (self.first and process.pid == 1):
            return True
        if (process.pid, process.id.start) in self.processes:
            return True
        if any(argument.startswith(self.marks) for argument in process.cmdline):
            return True
        return not self.programs.isdisjoint({process.name, process.program})

    def to_json(self) -> dict[str, Any]:
        return {
            "programs": sorted(self.programs),
            "processes": sorted(self.processes),
            "marks": list(self.marks),
            "first": self.first,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            programs=frozenset(data["programs"]),
            processes=frozenset((pid, start) for pid, start in data["processes"]),
            marks=tuple(data["marks"]),
            first=data["first"],
        )


def check_pattern(pattern: str) -> str:
    """The pattern, if it is a regular expression; raises ValueError with the reason."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern
