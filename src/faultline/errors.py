"""The errors of Faultline: one small tree.

Every class answers two questions before anything else: *did anything happen* to the target
(`happened`) and *is the same call worth trying again* (`retry`). A third, whose turn it is, gives
the exit status and the HTTP status. The unforeseen is `MAYBE`: it is undone.

    FaultlineError
    |-- UsageError            nothing    the caller can mend it
    |   |-- InvalidParameter  one field, what was given, what is allowed
    |   |-- UnknownName       no fault, kind or record of that name
    |   `-- InvalidDocument   a file or request that is not what it says it is
    |-- Refused               nothing    a guard said no
    |   |-- Protected         the target is on the list of what is never hit
    |   |-- Conflict          another fault holds it; its uid is named
    |   |-- PlanStale         the world moved since the plan was made
    |   |-- Halted            somebody stopped everything
    |   `-- UntrustedStore    others could write what we would execute
    |-- Unsupported           nothing    this kernel, privilege or tool cannot do it
    |-- TargetGone            nothing    there is nothing left to harm
    |-- NotRecorded           nothing    journal or keepers did not accept it, so we did not act
    |-- JournalFailed         maybe      the journal could not be written after something was done
    |-- ApplyFailed           maybe      a change could not be made; it is undone
    |-- ObserveFailed         maybe      the measurement itself failed; never rounded to an answer
    |-- NotEffective          certainly  it is in place, but its effect could not be shown
    |-- RecoveryIncomplete    certainly  somebody must look; the commands are given
    `-- Bug                   maybe      an invariant of ours does not hold
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import ClassVar


class Happened(StrEnum):
    """Whether the operation changed its target."""

    NOTHING = "nothing"
    MAYBE = "maybe"
    CERTAINLY = "certainly"


class FaultlineError(Exception):
    """What happened, why, and (in `hint`) what to do next."""

    code: ClassVar[str] = "error"
    happened: ClassVar[Happened] = Happened.MAYBE
    retry: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, object]:
        """The error as JSON: what the API answers and `--format json` prints."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "happened": str(self.happened),
            "retry": self.retry,
        }


class UsageError(FaultlineError):
    """The request itself is wrong; nothing was done."""

    code = "usage"
    happened = Happened.NOTHING
    exit_code = 2
    http_status = 400


class InvalidParameter(UsageError):
    """One parameter is outside what its type and bounds allow."""

    code = "invalid-parameter"

    def __init__(self, field: str, given: object, expected: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {given!r} is not accepted; expected {expected}", hint=hint)
        self.field = field
        self.given = given
        self.expected = expected

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "field": self.field, "expected": self.expected}


class UnknownName(UsageError):
    """Nothing is registered or recorded under this name."""

    code = "unknown-name"
    http_status = 404


class InvalidDocument(UsageError):
    """A file or body that cannot be read as the resource that it claims to be."""

    code = "invalid-document"

    def __init__(
        self, message: str, *, hint: str = "", problems: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems  # the path of a field, and what is expected there

    def as_dict(self) -> dict[str, object]:
        if not self.problems:
            return super().as_dict()
        told = [{"path": path, "expected": expected} for path, expected in self.problems]
        return {**super().as_dict(), "problems": told}


class Refused(FaultlineError):
    """A guard said no before anything was done."""

    code = "refused"
    happened = Happened.NOTHING
    exit_code = 3
    http_status = 403


class Protected(Refused):
    """The target is one that is never hit unless it is overridden by name."""

    code = "protected"


class Conflict(Refused):
    """Another fault holds what this one needs."""

    code = "conflict"
    http_status = 409

    def __init__(self, message: str, *, holder: str, hint: str = "") -> None:
        super().__init__(message, hint=hint or f"recover it first: faultline recover {holder}")
        self.holder = holder

    def as_dict(self) -> dict[str, object]:
        return {**super().as_dict(), "holder": self.holder}


class PlanStale(Refused):
    """The world moved since the plan was made."""

    code = "plan-stale"
    http_status = 409


class Halted(Refused):
    """Everything is stopped until somebody lifts the halt."""

    code = "halted"


class UntrustedStore(Refused):
    """The journal or its folder could be written by somebody else; its records are instructions."""

    code = "untrusted-store"


class Unsupported(FaultlineError):
    """This kernel, these privileges or these tools cannot do it; says which and what to do."""

    code = "unsupported"
    happened = Happened.NOTHING
    exit_code = 7
    http_status = 422


class TargetGone(FaultlineError):
    """The target, by identity and not by name, does not exist any more."""

    code = "target-gone"
    happened = Happened.NOTHING
    exit_code = 3
    http_status = 410


class NotRecorded(FaultlineError):
    """The journal or the keepers did not take the record, so nothing was touched."""

    code = "not-recorded"
    happened = Happened.NOTHING
    retry = True
    exit_code = 3
    http_status = 503


class JournalFailed(FaultlineError):
    """The journal could not be written after something was done. The keepers hold it still."""

    code = "journal-failed"
    retry = True
    http_status = 503


class ApplyFailed(FaultlineError):
    """A change could not be made. What was made before it is undone."""

    code = "apply-failed"
    happened = Happened.MAYBE


class ObserveFailed(FaultlineError):
    """The measurement could not be made; the answer is `unmeasured`, never a guess."""

    code = "observe-failed"
    happened = Happened.MAYBE
    retry = True
    exit_code = 4


class NotEffective(FaultlineError):
    """A fault is in place, but its effect could not be shown at the target."""

    code = "not-effective"
    happened = Happened.CERTAINLY
    exit_code = 4
    http_status = 422


class RecoveryIncomplete(FaultlineError):
    """Something of a fault is still there and needs a person."""

    code = "recovery-incomplete"
    happened = Happened.CERTAINLY
    retry = True
    exit_code = 6


class Bug(FaultlineError):
    """An invariant of Faultline does not hold. Please report it with the record's uid."""

    code = "bug"


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for an unknown name: what may have been meant, else all that there is."""
    import difflib  # only where a name was wrong

    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there is: {', '.join(names)}" if names else "there is none"


def all_errors() -> list[type[FaultlineError]]:
    """Every class of the tree, parents first."""
    found: list[type[FaultlineError]] = [FaultlineError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return found
