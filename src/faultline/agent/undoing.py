"""Looks into the journal, undoes faults and scans for marks: the standard library only."""

from __future__ import annotations

import sys
from pathlib import Path

from faultline.agent.model import CREATOR, Document
from faultline.agent.worker import Tell, found, serve
from faultline.changes.model import End, Record, State
from faultline.errors import UnknownName
from faultline.injection.recovery import Recovery
from faultline.kernel import machine
from faultline.places import containers, control_plane

THREADS = 8


class Undoing:
    """What can be asked of this process."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def look(self, asked: Document, _tell: Tell) -> Document:
        """Every open fault of agents, and those that were named with those that followed them.

        What is open and kept by nobody is kept again.
        """
        with Recovery(self.state) as recovery:
            recovery.adopt()
            seen = {
                record.uid: record
                for record in recovery.journal.open_records()
                if record.creator.startswith(CREATOR)
            }
            for entry in {*asked["uids"], *(uid.partition(".")[0] for uid in seen)}:
                seen |= {record.uid: record for record in _rounds(recovery, entry)}
            return {"found": [found(record) for record in seen.values()]}

    def recover(self, asked: Document, _tell: Tell) -> Document:
        """Undo one fault and look whether it is gone; by its mark where its record is lost."""
        uid = asked["uid"]
        with Recovery(self.state) as recovery:
            try:
                record = recovery.recover(uid)
            except UnknownName:
                record = recovery.recover_marks(uid)
                record.creator = CREATOR
            left = recovery.residue_of(record)
            if left and record.end is not End.PERSON:
                record.end = End.PERSON
                record.note = "; ".join(left)
            record.state = State.ENDED
            return {"found": [found(record)]}

    def scan(self, _asked: Document, _tell: Tell) -> Document:
        """Marks that no journal knows, and the container runtimes of this host."""
        with Recovery(self.state) as recovery:
            marks = [
                f"{uid}: {'; '.join(dict.fromkeys(one.where for one in each))}"
                for uid, each in recovery.unknown_marks().items()
            ]
        return {
            "unwanted": marks,
            "components": control_plane.components(),
            "runtimes": sorted({each.runtime for each in containers.all_containers()}),
        }


def _rounds(recovery: Recovery, entry: str) -> list[Record]:
    """The fault of an entry, and those of the containers that followed."""
    made: list[Record] = []
    try:
        made.append(recovery.get(entry))
        while True:
            made.append(recovery.get(f"{entry}.{len(made) + 1}"))
    except UnknownName:
        return made


def main() -> None:
    """Entry of the process: its last argument is the state folder."""
    machine.leave()  # keepers that are started again are to outlive a pod that we run in
    undoing = Undoing(Path(sys.argv[-1]))
    serve({"look": undoing.look, "recover": undoing.recover, "scan": undoing.scan}, THREADS)
