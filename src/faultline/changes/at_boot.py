"""What the boot unit runs, from the frozen copy: recover every fault of an earlier boot."""

from __future__ import annotations

import sys
from pathlib import Path

from faultline.changes.journal import Journal
from faultline.changes.leftover import left_over
from faultline.changes.model import End, Record
from faultline.changes.store import Store, open_store
from faultline.errors import FaultlineError, RecoveryIncomplete
from faultline.kernel import clock


def main() -> None:
    """Argv ends with the state folder. Exit status 6 if something needs a person."""
    store = open_store(Path(sys.argv[-1]))
    with Journal(store) as journal:
        old = [r for r in journal.open_records() if r.boot_id != clock.boot_id()]
    status = 0
    for record in old:
        try:
            end = _recovered(store, record)
        except (FaultlineError, OSError) as error:  # the others are recovered all the same
            sys.stdout.write(f"{record.uid}: {error}\n")
            end = End.PERSON
        sys.stdout.write(f"{record.uid}: {end}\n")
        if end is End.PERSON:
            status = RecoveryIncomplete.exit_code
    sys.exit(status)


def _recovered(store: Store, record: Record) -> End | None:
    left_over(store, record)
    with Journal(store) as journal:
        return journal.get(record.uid).end
