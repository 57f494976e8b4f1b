"""Faults that outlived whoever kept them: both keepers killed, or the host rebooted.

After a reboot only what lies on disk is left; within one boot the target's network namespace is
found again by its cookie, since inode numbers are reused at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from faultline.changes import frozen, undo
from faultline.changes.journal import Journal
from faultline.changes.lock import FaultLock
from faultline.changes.model import Outcome, Record, StepState, Undone
from faultline.changes.store import Store, kept
from faultline.kernel import clock, netns, userns
from faultline.kernel.netlink import Netlink


def elsewhere(store: Store, record: Record) -> bool:
    """Whether a fault belongs to another user namespace that still lives: only its keepers can undo
    it. Once that is gone its network is too, and what it did to files is anybody's to undo.
    """
    where = record.place.get("user_namespace", 0)
    if where in (0, userns.current()):
        return False
    return where == userns.INITIAL or userns.living(where) or kept(store.state, where)


def left_over(store: Store, record: Record) -> Netlink | None:
    """What a record that was found open needs first.

    Of an earlier boot: it is recovered here and now, and None comes back. Of this boot: a route
    socket in the namespace that it acts in, or None if that namespace is gone or out of reach.
    """
    if record.boot_id == clock.boot_id():
        return netlink_of(record.place.get("netns_cookie", 0))
    _recover_after_reboot(store, record)
    return None


def _recover_after_reboot(store: Store, record: Record) -> None:
    code = str(frozen.code_folder(store))
    made_with = undo.contexts(record, None, str(store.run), code)
    lasting = set(undo.survivors(record))
    with FaultLock(store.lock(record.uid), undo.patience(record)):
        for step, ctx in reversed(list(zip(record.steps, made_with, strict=True))):
            if ctx.index in lasting:
                step.outcome = undo.undo_step(step, ctx)
            else:
                step.outcome = Outcome(Undone.ABSENT, "the reboot ended it")
            if step.outcome.settled:
                step.state = StepState.UNDONE
        undo.release(made_with)
        record.ended = None
        with Journal(store) as journal:
            journal.end(record.uid, undo.end_of(record), record)


def netlink_of(cookie: int) -> Netlink | None:
    """A route socket in the network namespace with this cookie: our own, a named one, or a
    process's.
    """
    here = Netlink.open()
    if cookie in (0, here.cookie()):
        return here
    here.close()
    seen: set[int] = set()
    for path in (*Path("/run/netns").glob("*"), *Path("/proc").glob("[0-9]*/ns/net")):
        found = _try(path, cookie, seen)
        if found is not None:
            return found
    return None


def _try(path: Path, cookie: int, seen: set[int]) -> Netlink | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it ended, or it is not ours to look at
        return None
    try:
        inode = os.fstat(fd).st_ino
        if inode in seen:
            return None
        seen.add(inode)
        with netns.entered(fd):
            netlink = Netlink.open()
    except OSError:  # not a network namespace, or not ours to enter
        return None
    finally:
        os.close(fd)
    if netlink.cookie() == cookie:
        return netlink
    netlink.close()
    return None
