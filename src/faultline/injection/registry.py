"""Which faults there are. A family is a module of `faultline.faults`; nobody keeps a list.

A third party adds faults by an entry point in the group `faultline.faults` that names a module.
Families are imported one at a time, so that a command pays only for the family that it uses.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from faultline.errors import Bug, UnknownName, nearest
from faultline.injection.model import Fault
from faultline.places.model import HOST, PROCESS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

GROUP = "faultline.faults"

AnyFault = Fault[Any]
_TRIED = frozenset({HOST, PROCESS})


def entry_points(group: str) -> Iterable[EntryPoint]:
    """Those of all installed packages; what reads them takes 15 ms to load."""
    from importlib import metadata

    return metadata.entry_points(group=group)


@cache
def families() -> dict[str, str]:
    """Family name to the module that holds it: ours first, then those of installed packages."""
    package = importlib.import_module("faultline.faults")
    found = {
        name: f"faultline.faults.{name}" for _, name, _ in pkgutil.iter_modules(package.__path__)
    }
    for point in entry_points(group=GROUP):
        if found.setdefault(point.name, point.value) != point.value:
            raise Bug(
                f"two packages claim the fault family {point.name!r}: "
                f"{found[point.name]}, {point.value}"
            )
    return dict(sorted(found.items()))


def module_of(name: str) -> str:
    """The module of a family; raises UnknownName with the families there are."""
    ours = f"faultline.faults.{name}"
    if name.isidentifier() and find_spec(ours) is not None:
        return ours
    known = families()
    if name not in known:
        raise UnknownName(f"there is no fault family {name!r}", hint=nearest(name, known))
    return known[name]


@cache
def family(name: str) -> dict[str, AnyFault]:
    """The faults of one family by id; raises UnknownName with the families there are."""
    module = importlib.import_module(module_of(name))
    found: dict[str, AnyFault] = {}
    members: dict[str, Any] = vars(module)
    for value in members.values():
        if isinstance(value, type) and issubclass(value, Fault) and "id" in value.__dict__:
            if not value.id.startswith(f"{name}."):
                raise Bug(f"{value.__name__} has the id {value.id!r} but lives in family {name!r}")
            found[value.id] = value()
    return dict(sorted(found.items()))


def get(fault_id: str) -> AnyFault:
    """A fault by its id 'family.fault'; raises UnknownName with what there is instead."""
    name, _, fault = fault_id.partition(".")
    members = family(name)
    if fault_id not in members:
        parts = [each.partition(".")[2] for each in members]
        raise UnknownName(f"there is no fault {fault_id!r}", hint=nearest(fault, parts))
    return members[fault_id]


def everything() -> dict[str, AnyFault]:
    """Every fault there is, by id."""
    return {fault_id: each for name in families() for fault_id, each in family(name).items()}


def triable() -> dict[str, AnyFault]:
    """Every fault that can be tried where it is looked at: without those that end the host, and
    those of containers, of which none is started for a trial.
    """
    found = everything().items()
    return {i: each for i, each in found if not each.lethal and each.places & _TRIED}
