"""Which processes are meant, and what brings them back: shared by faults that hit processes."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, text
from faultline.changes.model import Change
from faultline.errors import InvalidParameter, Refused, TargetGone, UsageError
from faultline.injection import guards
from faultline.kernel import procfs
from faultline.kernel.selection import Selection, check_pattern
from faultline.places.model import Place


def _bounds(value: str) -> str:
    found = re.fullmatch(r"(\d{1,6})(-(\d{1,6})?)?", value)
    low, high = span(value) if found else (0, 0)
    if not found or not 1 <= low <= high:
        raise ValueError("expected how many may fit: 3, 1-10 or 2- for any number from 2")
    return value


def span(value: str) -> tuple[int, int]:
    """The bounds in a text such as 3, 1-10 or 2-."""
    low, dash, high = value.partition("-")
    return int(low), int(high) if high else (10**6 if dash else int(low))


def _arguments(value: Any) -> Any:
    """A command line as people type it, taken apart without any shell; a list as it is."""
    return shlex.split(value) if isinstance(value, str) else value


class ProcessParams(Params):
    """Which processes. Everything that is given must fit; on a place that is not the host, all its
    processes are meant when nothing is given.
    """

    pid: Annotated[int | None, Between(1, 2**22), Flag("p")] = None
    """The process with this pid, as the host numbers it."""
    inner_pid: Annotated[int | None, Between(1, 2**22)] = None
    """The same as a container numbers it."""
    process: Annotated[str | None, Field(min_length=1, max_length=4095), Flag("n", ("name",))] = (
        None
    )
    """Processes of exactly this name."""
    pattern: Annotated[
        str | None, AfterValidator(lambda v: v and check_pattern(v)), Flag("k", ("key",))
    ] = None
    """A regular expression that is found in their command line."""
    port: Annotated[int | None, Between(1, 65535)] = None
    """Those that listen on this TCP port."""
    user: str | None = None
    """Those of this user, by name or number."""
    expected: Annotated[str | None, AfterValidator(lambda v: v and _bounds(v))] = None
    """How many may fit: `3`, `1-10`, `2-`; any other number is refused. Without it up to 10, or any
    number where all processes of a place are meant."""


class RestartParams(Params):
    """What brings a program back when the fault is recovered."""

    restart: Annotated[
        list[str], BeforeValidator(_arguments), Field(max_length=256), Flag("r", ("recover-cmd",))
    ] = Field(default_factory=list[str])
    """A command that brings it back, run once at recovery: an argument list, no shell."""
    patience: Annotated[Duration, Between("0s", "2m")] = text("10s")
    """How long to wait for that command; one that goes on longer is left running."""


def selection(params: ProcessParams, place: Place) -> Selection:
    """The parameters as what a search takes, narrowed to the members of the place.

    Raises InvalidParameter for an unknown user, UsageError where nothing says whom of the host is
    meant.
    """
    tree = (0, 0) if place.is_host or place.group else (place.pid, place.start)
    found = Selection(
        pid=params.pid or 0,
        inner=params.inner_pid or 0,
        name=params.process or "",
        pattern=params.pattern or "",
        port=params.port or 0,
        uid=-1 if params.user is None else user_number(params.user),
        group=place.group,
        tree=tree,
        where="" if place.is_host else place.words,
    )
    if place.is_host:
        if params.inner_pid:
            expected = "a container that it is the number in; on the host it is pid"
            raise InvalidParameter("inner_pid", params.inner_pid, expected)
        if not found.narrows:
            raise UsageError(
                "nothing says which processes of this host are meant",
                hint="expected one of pid, process, pattern, port and user, or another place",
            )
    return found


def bounds(params: ProcessParams, wanted: Selection) -> tuple[int, int]:
    """How few and how many processes may fit."""
    return span(params.expected or ("1-10" if wanted.narrows else "1-"))


def user_number(user: str) -> int:
    """The number of a user by name or number; raises InvalidParameter."""
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise InvalidParameter("user", user, "the name or number of a user of this host") from error


def targets(params: ProcessParams, place: Place) -> list[procfs.Process]:
    """Who is meant now; TargetGone if nobody, Refused if too many or too few, Protected by the
    guards.

    Whoever merely quotes what is searched for, our own command line and its parents, is left out
    unless named by pid; so is what other faults hold in the place. The process that the place is
    known by comes last: the first of a pid namespace takes all others along.
    """
    wanted = selection(params, place)
    quoting = procfs.ourselves() if not params.pid else frozenset[int]()
    found = [each for each in wanted.find() if each.pid not in quoting]
    if not wanted.narrows:
        found = [each for each in found if not guards.is_ours(each)]
    if not found:
        raise TargetGone(f"no process fits {wanted}")
    low, high = bounds(params, wanted)
    if not low <= len(found) <= high:
        names = ", ".join(f"{each.name} ({each.pid})" for each in found[:10])
        raise Refused(
            f"{len(found)} processes fit {wanted}, expected {low}-{high}: {names}",
            hint=f"if you mean them all: --expected {len(found)}",
        )
    guards.protect(found)
    return sorted(found, key=lambda each: each.pid == place.pid)


def restart(params: RestartParams) -> Change:
    """The change that runs the command once, at recovery; InvalidParameter if it is not there."""
    program = shutil.which(params.restart[0])
    if program is None:
        hint = "a program of this host, by its full path or found in PATH"
        raise InvalidParameter("restart", params.restart[0], hint)
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
    }
    # Not resolved: a program may be a link that tells by its name what it is to be.
    command = [str(Path(program).absolute()), *params.restart[1:]]
    wait = params.patience.seconds
    return Change("restart", {"command": command, "wait": wait, "environment": environment})


def identity(process: procfs.Process) -> dict[str, Any]:
    """A process as a change's spec names it."""
    return {"pid": process.id.pid, "start": process.id.start, "name": process.name}
