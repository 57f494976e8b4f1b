"""`inject --follow`: the same fault again when its container has been started anew.

A fault ends with its target. Whoever wants to see what a service makes of a slow network over
several restarts would have to watch for them; this command does, in the foreground, and what is
left of the duration is what each further fault lasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from faultline.changes.model import End, Record, State
from faultline.cli import output, records
from faultline.errors import ApplyFailed, Refused, TargetGone, UsageError
from faultline.injection.plan import SHORTEST, Order, Plan
from faultline.kernel import clock
from faultline.places.find import Target, find
from faultline.places.model import CONTAINER, POD, Place
from faultline.units import Duration

if TYPE_CHECKING:
    from faultline.injection.injector import Injector
    from faultline.injection.model import Fault

EXIT_INTERRUPTED = 130
_EVERY = 0.1  # seconds between two looks
_LATE = 10.0  # seconds after the deadline until a fault that has not ended is left to the keepers


def options_for(fault: type[Fault[Any]] | Fault[Any]) -> list[click.Parameter]:
    """The option, for faults that end with a container."""
    if fault.outlives_target or not {CONTAINER, POD} & fault.places:
        return []
    return [
        click.Option(
            ["--follow", "follow"],
            is_flag=True,
            help="Stay, and inject again for what is left of the duration when the container has "
            "been started anew. Ctrl-C undoes it.",
        )
    ]


def check(order: Order) -> None:
    """Raise UsageError where there is no container that could be started anew."""
    if not (order.target.container or order.target.pod):
        raise UsageError(
            "--follow needs a container that can be started anew",
            hint="name it: --container or --pod",
        )


def same_name(place: Place, target: Target) -> Target:
    """What the container is found by after it was replaced: its name, or its name in its pod."""
    from faultline.places import containers

    for each in containers.all_containers():
        if each.process == place.process:
            if each.pod:
                return Target(pod=f"{each.pod}/{each.in_pod}".rstrip("/"))
            return Target(container=each.name or each.id)
    return target


def follow(injector: Injector, order: Order, first: Plan, act: Callable[[Plan], int]) -> int:
    """Wait for the end of the fault of `first`; inject it again by `act` as often as its target has
    gone and is there again. The exit status.
    """
    target = same_name(first.place, order.target)
    deadline = injector.get(first.uid).deadline
    record, rounds = injector.get(first.uid), 1
    try:
        while True:
            record = _ended(injector, record.uid, deadline)
            if record.state is not State.ENDED or record.end is not End.GONE:
                break
            click.echo(
                f"{record.uid}: {output.coloured(str(record.end))}; waiting for it", err=True
            )
            rounds += 1
            again = replace(order, target=target, uid=f"{first.uid[:58]}.{rounds}")
            made = _injected(injector, again, record, deadline, act)
            if made is None:
                break
            record = injector.get(made.uid)
    except KeyboardInterrupt:
        click.echo("interrupted: undoing", err=True)
        record = injector.recover(record.uid)
        click.echo(f"{record.uid}: {output.coloured(str(record.end))}", err=True)
        return records.EXIT_INCOMPLETE if record.end is End.PERSON else EXIT_INTERRUPTED
    click.echo(f"{record.uid}: {output.coloured(str(record.end or record.state))}", err=True)
    return records.EXIT_INCOMPLETE if record.end is End.PERSON else 0


def _ended(injector: Injector, uid: str, deadline: int) -> Record:
    """The fault when it has ended, or some time after its deadline."""
    while True:
        record = injector.get(uid)
        if record.state is State.ENDED or clock.now() > deadline + _LATE * 1e9:
            return record
        time.sleep(_EVERY)


def _injected(
    injector: Injector, order: Order, before: Record, deadline: int, act: Callable[[Plan], int]
) -> Plan | None:
    """The plan that was carried out once the target was there again; None when the time is over."""
    while (left := deadline - clock.now()) >= int(SHORTEST):
        try:
            place = find(order.target)
            if (place.pid, place.start) != (before.place["pid"], before.place["start"]):
                plan = injector.plan(replace(order, duration=Duration(left)))
                act(plan)
                return plan
        except (TargetGone, Refused, ApplyFailed):
            pass  # not there yet, or gone again meanwhile
        time.sleep(_EVERY)
    return None
