"""The plain data that everything reversible is made of.

A fault is a list of `Change`s. A `Record` is what the journal keeps of one injected fault: written
before the first change, read by whoever has to undo it, possibly after an upgrade or a reboot. So
these are dataclasses that become JSON and carry a schema version; nothing here does anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from faultline.errors import InvalidDocument

SCHEMA = 1
MARK = "faultline"

type_json = Any  # a value that json.dumps accepts; kept open, since each kind owns its own shape


@dataclass(frozen=True, slots=True)
class Change:
    """One reversible alteration of a place: which kind, and what exactly."""

    kind: str
    spec: dict[str, type_json]


class Presence(StrEnum):
    """What stands where a change was made."""

    OURS = "ours"
    ABSENT = "absent"
    FOREIGN = "foreign"  # somebody else changed it meanwhile
    GONE = "gone"  # the target itself does not exist any more


class Undone(StrEnum):
    """How undoing one change ended."""

    UNDONE = "undone"
    ABSENT = "absent"  # there was nothing of ours
    KEPT = "kept"  # undone, and what others wrote meanwhile was kept and is reported
    LEFT = "left"  # changed by somebody else: left alone, a person decides
    GONE = "gone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer of an undo: how it ended, why, and what a person would type if it did not."""

    end: Undone
    detail: str = ""
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def settled(self) -> bool:
        """Whether nothing of ours is left by this change."""
        return self.end not in (Undone.LEFT, Undone.FAILED)


class StepState(StrEnum):
    """Where one change stands; never moves backwards."""

    PLANNED = "planned"
    APPLYING = "applying"
    APPLIED = "applied"
    UNDONE = "undone"


@dataclass(slots=True)
class Step:
    """One change of a record: what was there before, what was made, how it ended."""

    change: Change
    prior: dict[str, type_json] = field(default_factory=dict[str, type_json])
    made: dict[str, type_json] = field(default_factory=dict[str, type_json])
    state: StepState = StepState.PLANNED
    outcome: Outcome | None = None
    number: int | None = None  # the step in its mark, where a scan did not find those before it


class State(StrEnum):
    """Where a fault stands; never moves backwards."""

    PREPARED = "prepared"  # recorded, nothing touched
    APPLYING = "applying"
    ACTIVE = "active"
    UNDOING = "undoing"
    ENDED = "ended"


class End(StrEnum):
    """How a fault ended: promise 2."""

    RECOVERED = "recovered"
    NOTHING = "nothing to undo"
    GONE = "target gone"
    PERSON = "needs a person"


@dataclass(slots=True)
class Record:
    """One injected fault as the journal keeps it."""

    uid: str
    fault: str
    params: dict[str, type_json]
    place: dict[str, type_json]
    steps: list[Step]
    duration: int  # nanoseconds
    deadline: int  # CLOCK_BOOTTIME, nanoseconds; means something only within `boot_id`
    boot_id: str
    created: float  # wall clock, seconds; for people
    state: State = State.PREPARED
    end: End | None = None
    reading: dict[str, type_json] | None = None
    creator: str = ""
    note: str = ""
    ended: float | None = None
    lease: str = ""  # it ends with this lease too (faultline.changes.lease)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, type_json]:
        made = asdict(self)
        if not self.lease:
            del made["lease"]  # versions that do not know leases read it too
        return made

    @classmethod
    def from_json(cls, data: dict[str, type_json]) -> Record:
        """Read a record back; refuses a schema that is newer than this code."""
        schema = data.get("schema", 0)
        if schema > SCHEMA:
            raise InvalidDocument(
                f"record {data.get('uid')!r} has schema {schema}; this version reads {SCHEMA}",
                hint="recover it with the version that made it, or upgrade",
            )
        steps = [_step(step) for step in data["steps"]]
        end = End(data["end"]) if data.get("end") else None
        fields: dict[str, Any] = {**data, "steps": steps, "state": State(data["state"]), "end": end}
        return cls(**fields)


def _step(data: dict[str, type_json]) -> Step:
    raw = data.get("outcome")
    commands = tuple(tuple(c) for c in raw["commands"]) if raw else ()
    return Step(
        change=Change(data["change"]["kind"], data["change"]["spec"]),
        prior=data["prior"],
        made=data["made"],
        state=StepState(data["state"]),
        outcome=Outcome(Undone(raw["end"]), raw["detail"], commands) if raw else None,
        number=data.get("number"),
    )


def mark(uid: str, index: int) -> str:
    """The mark that everything made for step `index` of fault `uid` carries."""
    return f"{MARK}:{uid}:{index}"


def read_mark(text: str) -> tuple[str, int] | None:
    """The (uid, step) in a mark, or None if the text does not hold one."""
    parts = text.split(":")
    if len(parts) < 3 or parts[0] != MARK or not parts[2].isdigit():
        return None
    return parts[1], int(parts[2])
