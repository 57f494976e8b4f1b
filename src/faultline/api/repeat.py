"""What a run takes over from an earlier one: on what its faults acted, and when things happened."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from faultline.api.model import Model
from faultline.api.quantities import Duration
from faultline.api.selector import Chosen


class FoundTarget(Model):
    """On what a fault acted: what its target was when it was injected."""

    kind: Literal["host", "process", "cgroup", "container", "pod"]
    """What it was."""
    words: str = ""
    """The same for people."""
    pid: int = 0
    """The process that it is known by; 0 for the host."""
    start: int = 0
    """When that process began, in clock ticks since boot: the same pid may be another process."""
    boot_id: str = ""
    """The boot in which pid and start mean something."""
    command: str = ""
    """Its command line, arguments joined by blanks; of a process alone."""
    group: str = ""
    """The control group, as in /proc/PID/cgroup."""
    container: str = ""
    """The whole id of the container."""


class Timing(Model):
    """When something happened in the earlier run; times in which it was paused are left out."""

    begin: Duration | None = None
    """When it began, counted from the beginning of the injection phase. It begins no earlier."""
    length: Duration | None = None
    """How long it lasted: of a fault, from its injection to its undo; of an approval, until
    somebody answered."""
    answer: Literal["", "continue", "refuse"] = ""
    """What a person said to an approval; empty: somebody is asked again."""
    by: str = ""
    """Who said it."""


class Repeat(Model):
    """What a replay takes over besides the experiment, its values and its seed."""

    run: str
    """The earlier run."""
    targets: dict[str, FoundTarget] = Field(default_factory=dict[str, FoundTarget])
    """On what each fault acts, by its name or that of its node; the others find their targets
    anew."""
    choices: dict[str, list[Chosen]] = Field(default_factory=dict[str, list[Chosen]])
    """What the selector of each fault chose, by the fault's name: it is not asked again."""
    timings: dict[str, Timing] = Field(default_factory=dict[str, Timing])
    """When each fault and node begins, and how long it lasts; the others do as is asked."""
    children: dict[str, Repeat] = Field(default_factory=dict[str, "Repeat"])
    """The same of the runs that its nodes carry out, by the name of the node."""
