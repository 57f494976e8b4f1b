"""Limits of running processes, for faults that lower them: the change, and the measurement."""

from __future__ import annotations

import os
import resource
from itertools import islice
from pathlib import Path

from faultline.changes.model import Change, Record
from faultline.errors import Refused, TargetGone, Unsupported
from faultline.injection import guards
from faultline.injection.process_target import identity
from faultline.injection.reading import Effect, Reading
from faultline.kernel import attributes, procfs
from faultline.kernel.attributes import LIMITS, UNLIMITED

_USED = {"as": "VmSize", "data": "VmData", "memlock": "VmLck", "stack": "VmStk"}  # in kB


def lowest_free(pid: int, more: int = 0) -> int:
    """The number that the next descriptor of a process would get, after `more` others: the limit
    below which it must be.
    """
    taken = procfs.descriptors(pid)
    free = (number for number in range(len(taken) + more + 1) if number not in taken)
    return next(islice(free, more, None))


def limit_change(process: procfs.Process, name: str, value: int | None) -> Change:
    """The change that sets a limit of one process; Refused above its hard limit."""
    who = f"{process.name} (pid {process.pid})"
    try:
        soft, hard = resource.prlimit(process.pid, LIMITS[name])
    except ProcessLookupError:
        raise TargetGone(f"{who} has ended") from None
    except PermissionError as error:
        raise Unsupported(f"{who} is not yours to limit", hint="try as root") from error
    wanted = lowest_free(process.pid) if value is None else value
    if attributes.exceeds(wanted, hard):
        raise Refused(
            f"{name} of {who} may be {hard} at most",
            hint="the hard limit of a process is not changed",
        )
    guards.current().note(f"limit {name} of {who} is {attributes.words(name, [soft])} now")
    spec = {**identity(process), "attribute": f"limit {name}", "value": [wanted]}
    return Change("process_attribute", spec)


def observed_limits(record: Record, name: str, method: str) -> Reading:
    """Asked against what the kernel has, for every process of the record."""
    hit = [step.change.spec for step in record.steps]
    wanted = sorted({spec["value"][0] for spec in hit})
    said = " or ".join(attributes.words(f"limit {name}", [each]) for each in wanted)
    asked = f"{name} at most {said}"
    living = [spec for spec in hit if procfs.ProcessId(spec["pid"], spec["start"]).alive()]
    if not living:
        return Reading.unmeasured(asked, method, "all of them have ended")
    reached, told = 0, list[str]()
    for spec in living:
        soft = resource.prlimit(spec["pid"], LIMITS[name])[0]
        reached += soft == spec["value"][0]
        told.append(_in_use(spec["pid"], name, soft))
    values = {"asked": float(len(living)), "measured": float(reached)}
    measured = f"{reached} of {len(living)} have it" + "".join(sorted(set(filter(None, told)))[:3])
    effect = Effect.EFFECTIVE if reached == len(living) else Effect.INEFFECTIVE
    reason = "" if reached == len(living) else "the others were set to something else"
    return Reading(effect, asked, measured, method, reason, values)


def _in_use(pid: int, name: str, soft: int) -> str:
    """What a process uses of what is limited, in words; '' where it cannot be seen."""
    try:
        if name == "nofile":
            free = lowest_free(pid)
            full = soft != UNLIMITED and free >= soft
            count = len(procfs.descriptors(pid))
            return f"; {count} open, one more {'fails' if full else 'is possible'}"
        found = procfs.status(pid).get(_USED.get(name, ""), "")
        if name == "cpu":
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            user, system = text.rpartition(")")[2].split()[11:13]
            found = f"{(int(user) + int(system)) / os.sysconf('SC_CLK_TCK'):.1f} s"
    except FileNotFoundError:
        return ""
    return f"; {found} in use" if found else ""
