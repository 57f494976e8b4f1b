"""An order, and the plan that it becomes: what would be done, to whom, and how it is undone."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from faultline.changes.model import SCHEMA, Change
from faultline.errors import InvalidDocument, InvalidParameter
from faultline.places.find import Target
from faultline.places.model import Place
from faultline.units import Duration

DEFAULT_DURATION = Duration.parse("10m")
LONGEST = Duration.parse("7d")
SHORTEST = Duration.parse("100ms")
HOST = Target()
UID = "2 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit"


def new_uid(fault: str) -> str:
    """A uid that sorts by time and cannot collide in practice."""
    when = time.strftime("%m%d%H%M%S", time.gmtime())
    return f"{fault.replace('.', '-')}-{when}-{secrets.token_hex(3)}"


def check_uid(uid: str) -> str:
    """A uid is part of file names, marks and command lines: a narrow alphabet."""
    rest = uid.replace("-", "").replace("_", "").replace(".", "")
    plain = rest.isascii() and rest.isalnum() and uid[:1].isalnum()
    if not (plain and 2 <= len(uid) <= 63 and ".." not in uid):
        raise InvalidParameter("uid", uid, UID)
    return uid


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for."""

    fault: str
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    duration: Duration = DEFAULT_DURATION
    uid: str = ""
    allow: frozenset[str] = frozenset()  # guards overridden by name
    creator: str = ""
    target: Target = HOST
    seed: int | None = None  # what its choices are drawn from; without it, from one of its own


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One change in words."""

    kind: str
    does: str
    undo: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What `apply` will do, exactly; saved as JSON and refused if the world has moved."""

    uid: str
    fault: str
    params: dict[str, Any]
    duration: Duration
    place: Place
    changes: tuple[Change, ...]
    steps: tuple[PlannedStep, ...]
    ending: str
    allow: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    engine: str = ""  # how it is carried out, where there are several ways
    others: dict[str, str] = field(default_factory=dict[str, str])  # the other ways: why not
    exempt: tuple[str, ...] | None = None  # what is never hit; None for faults that cut nobody off
    creator: str = ""
    target: Target = HOST  # how the place was named
    made: float = 0.0
    seed: int = 0  # what its choices are drawn from
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "duration": str(self.duration), "place": self.place.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Read a saved plan; raises InvalidDocument when it is not one."""
        try:
            if data["schema"] > SCHEMA:
                raise InvalidDocument(
                    f"the plan has schema {data['schema']}, this version reads {SCHEMA}"
                )
            fields: dict[str, Any] = {
                **data,
                "uid": check_uid(data["uid"]),
                "duration": check_duration(Duration.parse(data["duration"], "duration")),
                "place": Place.from_json(data["place"]),
                "target": Target(**data["target"]),
                "changes": tuple(Change(c["kind"], c["spec"]) for c in data["changes"]),
                "steps": tuple(PlannedStep(**step) for step in data["steps"]),
                "allow": tuple(data["allow"]),
                "notes": tuple(data["notes"]),
                "exempt": None if data["exempt"] is None else tuple(data["exempt"]),
            }
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise InvalidDocument(f"this is not a saved plan: {error}") from error


def differences(then: Any, now: Any, path: str = "") -> list[str]:
    """Where two pieces of JSON differ, as 'path: then, now'."""
    if isinstance(then, dict) and isinstance(now, dict):
        left, right = cast("dict[str, Any]", then), cast("dict[str, Any]", now)
        names = dict.fromkeys((*left, *right))
        return [d for n in names for d in differences(left.get(n), right.get(n), f"{path}.{n}")]
    if isinstance(then, list) and isinstance(now, list):
        one, two = cast("list[Any]", then), cast("list[Any]", now)
        if len(one) == len(two):
            pairs = enumerate(zip(one, two, strict=True), 1)
            return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}.{i}")]
    return [] if then == now else [f"{path.strip('.')} was {then}, is {now}"]


def check_duration(duration: Duration) -> Duration:
    """Every fault has an end; raises InvalidParameter outside the bounds."""
    if not SHORTEST <= duration <= LONGEST:
        raise InvalidParameter("duration", str(duration), f"{SHORTEST} to {LONGEST}")
    return duration
