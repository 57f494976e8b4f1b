"""Which faults of Kubernetes objects there are: those of the modules beside this one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any, cast

from faultline.errors import Bug, UnknownName, nearest
from faultline.kubefaults.model import ObjectFault

AnyFault = ObjectFault[Any]


@cache
def faults() -> dict[str, AnyFault]:
    """Every fault by its id."""
    package = importlib.import_module("faultline.kubefaults")
    found: dict[str, AnyFault] = {}
    for _, name, _ in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"faultline.kubefaults.{name}")
        for each in vars(module).values():
            if not isinstance(each, type) or each.__module__ != module.__name__:
                continue
            if not hasattr(each, "id"):  # what several faults have in common
                continue
            if issubclass(each, ObjectFault) and not inspect.isabstract(cast(type, each)):
                made = cast("type[AnyFault]", each)()
                if made.id in found:
                    raise Bug(f"two faults are called {made.id}")
                found[made.id] = made
    return dict(sorted(found.items()))


def get(name: str) -> AnyFault:
    """The fault of this id; raises UnknownName."""
    known = faults()
    if name not in known:
        raise UnknownName(f"there is no fault {name!r} of objects", hint=nearest(name, known))
    return known[name]
