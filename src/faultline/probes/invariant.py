"""The invariant probe: what must stay true at every moment, over one system or between two.

Several systems cannot be read at one moment. What looks like a violation is read again: if nothing
has changed, there was a moment at which all of it stood together. Only such a reading can be a
violation; without one until the limit, the answer is that it could not be measured.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faultline.api.probe import InvariantProbe, Measurement, ProbeBase
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Figures, begin
from faultline.units import Percent

_SHORTEST = 0.005  # seconds between two looks at a system that has to come to agree
_LONGEST = 0.1


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one part said."""

    kind: str
    value: float
    text: str
    at: float  # seconds since 1970

    def told(self) -> dict[str, Any]:
        return {"type": self.kind, "value": self.value, "text": self.text, "at": self.at}


class Prober(prober.Prober[InvariantProbe]):
    """Its value is the value that is watched, or the difference of the two systems."""

    def __init__(self, spec: InvariantProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._of = [begin(part, traffic) for part in spec.of]
        self._with = [begin(part, traffic) for part in spec.with_ or ()]
        self._expected = spec.equals  # what it must be, must not fall below, must not rise above
        self._first: dict[str, Any] | None = None
        self._violations = 0
        self._tries = 0

    def close(self) -> None:
        for each in (*self._of, *self._with):
            each.close()

    def look(self, limit: Limit) -> Measurement:
        self._tries = 0
        for each in (*self._of, *self._with):
            each.reach = self.reach
        try:
            of, other, wrong = self._agreement(limit) if self._with else self._alone(limit)
        except (NoAnswer, ObserveFailed) as error:
            # Whatever the systems do: that they could not be compared is no violation.
            text = str(error) if isinstance(error, NoAnswer) else error.message
            if self._tries > 1:
                text = f"nothing stood still while it was read, {self._tries} times; {text}"
            raise ObserveFailed(text) from error
        value = _sum(of) - _sum(other) if other else _sum(of)
        if wrong:
            self._violations += 1
            self._first = self._first or self._evidence(of, other, value, wrong)
        else:
            self._move(_sum(of))
        result = {
            "rule": self.spec.law,
            "expected": _sum(other) if other else self._expected,
            "of": [each.told() for each in of],
            "with": [each.told() for each in other],
            "violation": self._first,
            "violations": self._violations,
        }
        names = ("violation", "violations")
        return Measurement(
            value=value,
            ok=not wrong,
            text=wrong or self._told(of, other),
            result=result,
            keep={"expected": self._expected, **{name: result[name] for name in names}},
        )

    def recall(self, kept: dict[str, Any]) -> None:
        """What it was at first is not what the next engine finds."""
        self._expected = kept["expected"]
        self._first, self._violations = kept["violation"], kept["violations"]

    def _move(self, total: float) -> None:
        """What was found good is what the next one is compared with."""
        law, before = self.spec.law, self._expected
        if law == "agrees":
            return
        if before is None or law == "neverFalls":
            self._expected = max(total, total if before is None else before)
        elif law == "neverRises":
            self._expected = min(total, before)

    def _evidence(
        self, of: list[_Reading], other: list[_Reading], value: float, wrong: str
    ) -> dict[str, Any]:
        """The first violation, kept as it was seen."""
        at = max(each.at for each in (*of, *other))
        return {
            "at": at,
            "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            "rule": self.spec.law,
            "value": value,
            "expected": _sum(other) if other else self._expected,
            "text": wrong,
            "of": [each.told() for each in of],
            "with": [each.told() for each in other],
        }

    def _told(self, of: list[_Reading], other: list[_Reading]) -> str:
        text = f"{_sum(of):.12g}" + (f" and {_sum(other):.12g}" if other else "")
        if self._first is None:
            return text
        return f"{text}; first violated at {self._first['time']}: {self._first['text']}"

    # ------------------------------------------------------------------ one system

    def _alone(self, limit: Limit) -> tuple[list[_Reading], list[_Reading], str]:
        """A sum over several parts is a violation only if it stood like this at one moment."""
        while True:
            self._tries += 1
            readings = _read(self._of, limit)
            wrong = self._wrong(_sum(readings))
            # What is to be compared with later must have stood at one moment, too.
            good = not wrong and self._expected is not None
            if good or len(readings) == 1 or _stands(self._of, readings, limit):
                return readings, [], wrong

    def _wrong(self, total: float) -> str:
        """In what way this sum breaks the rule; nothing if it does not."""
        expected = self._expected
        if expected is None:
            return ""
        off = total - expected
        room = self._room(expected)
        match self.spec.law:
            case "neverFalls":
                broken, verb = off < -room, "fell"
            case "neverRises":
                broken, verb = off > room, "rose"
            case _:
                broken, verb = abs(off) > room, "changed"
        return f"it {verb} from {expected:.12g} to {total:.12g}" if broken else ""

    def _room(self, expected: float) -> float:
        given = self.spec.tolerance
        if isinstance(given, str):
            return abs(expected) * float(Percent.parse(given, "tolerance")) / 100
        return given

    # ------------------------------------------------------------------ two systems

    def _agreement(self, limit: Limit) -> tuple[list[_Reading], list[_Reading], str]:
        """Both sides, and how they disagree; raises ObserveFailed if they never stood still."""
        within = self.spec.within.seconds
        pause = min(_LONGEST, max(_SHORTEST, within / 20))
        of = _read(self._of, limit)
        since = time.monotonic()  # as long as `of` is known to have stood still
        while True:
            self._tries += 1
            other = _read(self._with, limit)
            a, b = _sum(of), _sum(other)
            if abs(a - b) <= self._room(max(abs(a), abs(b))):
                return of, other, ""
            again = _read(self._of, limit)
            if not _same(again, of):
                of, since = again, time.monotonic()
            elif time.monotonic() - since < within:
                time.sleep(min(pause, limit.left()))
            elif _stands([*self._with, *self._of], [*other, *of], limit):
                return of, other, f"{a:.12g} on one side, {b:.12g} on the other"


def _read(probers: list[prober.Prober[ProbeBase]], limit: Limit) -> list[_Reading]:
    """One value of each part, in their order; raises ObserveFailed where there is none."""
    found: list[_Reading] = []
    for each in probers:
        kind = str(getattr(each.spec, "type", ""))
        seen = each.measure_within(limit)
        if not seen.ok or seen.value is None or not math.isfinite(seen.value):
            raise ObserveFailed(f"{kind}: {seen.text or 'no value'}")
        found.append(_Reading(kind, seen.value, seen.text, time.time()))
    return found


def _stands(
    probers: list[prober.Prober[ProbeBase]], readings: list[_Reading], limit: Limit
) -> bool:
    """Whether nothing has changed since it was read: all of it is read twice more, since once could
    meet with what has changed and changed back.
    """
    return all(_same(_read(probers, limit), readings) for _ in range(2))


def _sum(readings: list[_Reading]) -> float:
    return math.fsum(each.value for each in readings)


def _same(one: list[_Reading], other: list[_Reading]) -> bool:
    return [each.value for each in one] == [each.value for each in other]
