"""What the last keeper of a store that was thrown away takes with it: the store's folder in memory.

Tests, trials and demonstrations make stores that are gone a moment later.
"""

from __future__ import annotations

import os
from contextlib import suppress

from faultline.changes.lock import held
from faultline.changes.store import Store


def forget_thrown_away(store: Store) -> None:
    """Remove the run folder of a store that does not exist any more.

    Unless a keeper or anybody else holds a lock in it, or it holds notes about changes. Under
    another name first, so that whoever makes the same store anew gets a folder of his own.
    """
    if os.path.lexists(store.state) or any((store.run / "marks").glob("*")):
        return
    if any(map(held, (*store.run.glob("*.lock"), *(store.run / "locks").glob("*")))):
        return
    import shutil  # which a keeper with something to keep does not need

    gone = store.run.with_name(f"{store.run.name}-gone{os.getpid()}")
    with suppress(OSError):
        store.run.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
