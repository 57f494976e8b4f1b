"""Parts of a run: points in time, changes, errors, actions, where it took place."""

from __future__ import annotations

from typing import ClassVar

from faultline.api.model import StatusModel


class Point(StatusModel):
    """Something that happened, and when."""

    entry: ClassVar[bool] = True

    at: float
    """Seconds since 1970; for people, may jump when the clock is set."""
    boot_ns: int
    """CLOCK_BOOTTIME in nanoseconds; for differences."""
    event: str
    """What, in one or two words: `injected`, `effective`, `guard`, `recovered`."""
    node: str = ""
    """Of which node."""
    text: str = ""
    """The same for people."""


class ChangeStatus(StatusModel):
    """One change of a fault: what was made and how its undo ended."""

    describe: str
    """What was changed, for people."""
    undo: str = ""
    """The commands that would undo it by hand."""
    state: str = ""
    """`planned`, `applying`, `applied` or `undone`."""
    outcome: str = ""
    """How its undo ended."""


class Failure(StatusModel):
    """An error of ours, as data."""

    code: str
    message: str
    hint: str = ""
    exit_code: int = 1
    node: str = ""


class ActionStatus(StatusModel):
    """One action of the engine: written before it is carried out, closed with its result."""

    id: str
    kind: str
    node: str = ""
    started_ns: int
    ended_ns: int | None = None
    error: str = ""


class Environment(StatusModel):
    """Where the run took place."""

    hostname: str = ""
    kernel: str = ""
    distribution: str = ""
    python: str = ""
    faultline: str = ""
    cpu: str = ""
    cores: int = 0
    memory: int = 0
    """Bytes."""
    cgroup: str = ""
    """Cgroup mode: `v1`, `v2` or `hybrid`."""
    boot_id: str = ""
    user: str = ""
