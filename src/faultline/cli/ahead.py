"""What is done before a command is loaded, so that it is there sooner.

Most of the time of `faultline inject` goes into loading: parameter models here, the undo code in
each keeper. They do it side by side. Keepers that get nothing to keep end by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from faultline.changes.store import default_state, open_store
from faultline.errors import FaultlineError

HELP = frozenset({"-h", "--help"})
_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


def keepers(state: str | None, words: list[str]) -> None:
    """Have both keepers come up, if `words` behind `inject` name a fault to be injected.

    Whatever is wrong is told where they are needed.
    """
    if len(words) < 2 or words[0].startswith("-") or HELP & set(words):
        return
    folder = Path(state) if state else default_state()
    if not folder.is_dir():
        return  # the first fault of all: whether it may be made is not for us to find out
    with suppress(FaultlineError, OSError):
        from faultline.changes import keepers, launch

        store = open_store(folder)
        missing = [role for role in launch.ROLES if not keepers.is_there(store, role)]
        launch.begin(store, *missing)


@contextmanager
def no_plugins() -> Generator[None]:
    """While models are loaded in the block, pydantic looks for no plug-ins of its own, for which it
    reads about every package that is installed. Taken back, since the programs that we start
    inherit it.
    """
    if _PLUGINS in os.environ:
        yield
        return
    os.environ[_PLUGINS] = "__all__"
    try:
        yield
    finally:
        del os.environ[_PLUGINS]
