"""Our mark on kernel objects: it says whose they are without any journal.

A filter carries it as its name (TCA_BPF_NAME, at most 256 bytes), a link as its alias. The text is
`faultline:<uid>:<step>[:flag,...]`. Flags: `made` says that we made the clsact below the filter;
`lo<ar>` says that the loopback device had accept_local=a and route_localnet=r before the first of
ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

PREFIX = "faultline"
_PART = re.compile(r"[A-Za-z0-9._-]{1,100}")
_LOOPBACK = re.compile(r"lo([01])([01])")


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose an object is. `loopback` is what (accept_local, route_localnet) were before us."""

    uid: str
    step: str
    made: bool = False
    loopback: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for part in (self.uid, self.step):
            if not _PART.fullmatch(part):
                raise ValueError(f"{part!r} cannot be part of a mark: letters, digits, . _ - only")

    def __str__(self) -> str:
        flags = ["made"] if self.made else []
        if self.loopback is not None:
            flags.append(f"lo{self.loopback[0]}{self.loopback[1]}")
        tail = f":{','.join(flags)}" if flags else ""
        return f"{PREFIX}:{self.uid}:{self.step}{tail}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The mark in a name or alias; None when it is somebody else's."""
        parts = text.split(":")
        if len(parts) not in (3, 4) or parts[0] != PREFIX:
            return None
        if not (_PART.fullmatch(parts[1]) and _PART.fullmatch(parts[2])):
            return None
        flags = parts[3].split(",") if len(parts) == 4 else []
        loopback = next((found for flag in flags if (found := _LOOPBACK.fullmatch(flag))), None)
        before = (int(loopback[1]), int(loopback[2])) if loopback else None
        return cls(parts[1], parts[2], "made" in flags, before)

    def same(self, other: Mark | None) -> bool:
        """Whether both belong to the same step of the same fault, whatever their flags."""
        return other is not None and (self.uid, self.step) == (other.uid, other.step)
