"""The ends of a host: a panic, a restart, the power switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, text
from faultline.changes.host_end import check
from faultline.changes.model import Change, Record
from faultline.injection import guards
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import clock, power
from faultline.places.model import HOST, Place

_LETHAL = "it ends the host"
_HOST_ONLY = frozenset({HOST})
_CANNOT = (
    "Bring back what was in memory. After `delay` it cannot be taken back. Whether the host comes "
    "back is the business of its firmware, of `kernel.panic` and of whoever watches it."
)
_RESTORES = (
    "Nothing: until `delay` is over the fault can be recovered; after the next boot the record is "
    "closed, with the time at which the host was back."
)
_MEASURES = "Looks at the boot id, which differs once the host has come back."


class EndParams(Params):
    """When the host ends, and what is saved."""

    delay: Annotated[Duration, Between("0s", "1h")] = text("1s")
    """How long until then; up to then the fault can be recovered."""
    sync: bool = False
    """Whether what is not yet on disk is written out first; without, as when the power fails."""


def _change(what: str, how: str, params: EndParams) -> Change:
    """The change, after the guard of this name was overridden and the means were looked for."""
    spec: dict[str, Any] = {
        "what": what,
        "how": how,
        "delay": params.delay.seconds,
        "sync": params.sync,
    }
    check(spec)
    guards.current().refuse(f"host-{what}", f"this host and everything on it ends ({what})")
    return Change("host_end", spec)


def _observed(asked: str, record: Record) -> Reading:
    if record.boot_id != clock.boot_id():
        return Reading(Effect.EFFECTIVE, asked, "the host has been started anew", _MEASURES)
    here = "the host is still up: its end is due, or was taken back"
    return Reading.unmeasured(asked, _MEASURES, here)


class PanicParams(EndParams):
    """Parameters of `kernel panic`."""


class KernelPanic(Fault[PanicParams]):
    """Panic the kernel: the host stops where it stands.

    Refused unless `--allow host-panic`. With `kernel.panic` at 0 the host stays down until somebody
    resets it; the plan says so.
    """

    id = "kernel.panic"
    ending = Ending.INSTANT
    lethal = _LETHAL
    does = "Writes `c` to /proc/sysrq-trigger from a process that waits for `delay`."
    cannot = _CANNOT
    measures = _MEASURES
    restores = _RESTORES
    example: ClassVar[dict[str, str]] = {"delay": "5s"}
    places = _HOST_ONLY

    def plan(self, place: Place, params: PanicParams) -> list[Change]:
        change = _change("panic", "sysrq", params)
        seconds = int(Path("/proc/sys/kernel/panic").read_text())
        guards.current().note(
            f"the host restarts {seconds} s after the panic (kernel.panic)"
            if seconds > 0
            else "the host restarts at once after the panic (kernel.panic)"
            if seconds
            else "kernel.panic is 0: the host stays down until somebody resets it"
        )
        return [change]

    def observe(self, place: Place, params: PanicParams, record: Record) -> Reading:
        return _observed("a panic of the kernel", record)


class WayParams(EndParams):
    """By which means the host ends."""

    mode: Literal["auto", "sysrq", "syscall"] = "auto"
    """The kernel's trigger, or reboot(2); `auto` takes the trigger where there is one."""


def _way(params: WayParams) -> str:
    if params.mode != "auto":
        return params.mode
    return "sysrq" if Path(power.TRIGGER).exists() else "syscall"


class RebootParams(WayParams):
    """Parameters of `kernel reboot`."""


class KernelReboot(Fault[RebootParams]):
    """Restart the host at once: no service is stopped, nothing is unmounted.

    Refused unless `--allow host-reboot`. What survives a reboot of the faults on this host is
    recovered at the next boot.
    """

    id = "kernel.reboot"
    ending = Ending.INSTANT
    lethal = _LETHAL
    does = "Writes `b` to /proc/sysrq-trigger or calls reboot(2), after `delay`."
    cannot = _CANNOT
    measures = _MEASURES
    restores = _RESTORES
    example: ClassVar[dict[str, str]] = {"delay": "5s"}
    places = _HOST_ONLY

    def plan(self, place: Place, params: RebootParams) -> list[Change]:
        return [_change("reboot", _way(params), params)]

    def observe(self, place: Place, params: RebootParams, record: Record) -> Reading:
        return _observed("a restart of the host", record)


class PoweroffParams(WayParams):
    """Parameters of `kernel poweroff`."""


class KernelPoweroff(Fault[PoweroffParams]):
    """Switch the host off: it stays off until somebody switches it on.

    Refused unless `--allow host-poweroff`.
    """

    id = "kernel.poweroff"
    ending = Ending.INSTANT
    lethal = _LETHAL
    does = "Writes `o` to /proc/sysrq-trigger or calls reboot(2), after `delay`."
    cannot = _CANNOT
    measures = _MEASURES
    restores = _RESTORES
    example: ClassVar[dict[str, str]] = {"delay": "5s"}
    places = _HOST_ONLY

    def plan(self, place: Place, params: PoweroffParams) -> list[Change]:
        return [_change("poweroff", _way(params), params)]

    def observe(self, place: Place, params: PoweroffParams, record: Record) -> Reading:
        return _observed("the power of the host switched off", record)
