"""Where a fault shall act, as options of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from faultline.places.find import Target

if TYPE_CHECKING:
    from faultline.injection.model import Fault

_HELP = {
    "container": (
        "container",
        "Act in this container: its name, id, the beginning of its id, or a label KEY=VALUE.",
    ),
    "pod": ("pod", "Act in this pod of this node: NAMESPACE/NAME[/CONTAINER]."),
    "pid": ("process", "Act on this process and what it started."),
    "process": (
        "process",
        "The same by a regular expression found in the command line of exactly one process.",
    ),
    "cgroup": ("cgroup", "Act on this control group: its path, or its folder in /sys/fs/cgroup."),
}


def options_for(fault: type[Fault[Any]] | Fault[Any]) -> list[click.Parameter]:
    """The options by which this fault's place is named.

    A fault of processes says by parameters of its own which of them are meant.
    """
    own = fault.params_type().model_fields
    return [
        click.Option(
            [f"--{name}", f"place_{name}"],
            type=click.IntRange(1, 2**22) if name == "pid" else click.STRING,
            help=text,
        )
        for name, (kind, text) in _HELP.items()
        if kind in fault.places and name not in own
    ]


def taken(values: dict[str, Any]) -> Target:
    """The place that was named; takes its options out of `values`."""
    named = {name: values.pop(f"place_{name}", None) for name in _HELP}
    return Target(**{name: value for name, value in named.items() if value is not None})
