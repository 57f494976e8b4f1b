"""Which faults of Kubernetes objects there are: those of the modules beside this one, and those of
installed packages.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, cast

from faultline.errors import Bug, UnknownName, nearest
from faultline.kubefaults.model import ObjectFault

AnyFault = ObjectFault[Any]


GROUP = "faultline.kubefaults"
"""The entry points by which packages add faults of objects: each names a module."""


@cache
def faults() -> dict[str, AnyFault]:
    """Every fault by its id: ours, and those of installed packages."""
    package = importlib.import_module("faultline.kubefaults")
    names = [
        f"faultline.kubefaults.{name}" for _, name, _ in pkgutil.iter_modules(package.__path__)
    ]
    found: dict[str, AnyFault] = {}
    for name in (*names, *(point.value for point in entry_points(group=GROUP))):
        for each in of_module(importlib.import_module(name)):
            if each.id in found:
                raise Bug(f"two faults are called {each.id}")
            found[each.id] = each
    return dict(sorted(found.items()))


def of_module(module: ModuleType) -> list[AnyFault]:
    """The faults that a module has of its own; what several have in common has no id."""
    members: dict[str, Any] = vars(module)
    own = [
        cast("type[AnyFault]", each)
        for each in members.values()
        if isinstance(each, type)
        and each.__module__ == module.__name__
        and issubclass(each, ObjectFault)
    ]
    return [each() for each in own if hasattr(each, "id") and not inspect.isabstract(each)]


def get(name: str) -> AnyFault:
    """The fault of this id; raises UnknownName."""
    known = faults()
    if name not in known:
        raise UnknownName(f"there is no fault {name!r} of objects", hint=nearest(name, known))
    return known[name]
