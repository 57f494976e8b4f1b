"""Keeps `inspect` out of the processes that guard and hold faults: 1.2 MiB in each of them.

`dataclasses` imports it for classes without a docstring (before Python 3.13); `ast`, `dis` and
`tokenize` come with it. `importlib.util.LazyLoader` does not serve: an import statement looks at
the module's `__spec__`, which makes it load. To be imported before anything else.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


class _Later(ModuleType):
    """A module that is loaded when something is looked up in it."""

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


sys.modules.setdefault("inspect", _Later("inspect"))
