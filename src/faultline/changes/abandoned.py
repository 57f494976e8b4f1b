"""Folders for locks and sockets whose store is gone: a test, a trial, a state folder removed.

They lie in memory and cost little, but they are never reused. One is removed only if it says whose
it is, that store does not exist, no keeper and no other process of it lives, it holds no note about
a change that is in place, and nothing on the machine carries a uid that it knows.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faultline.changes.lock import held
from faultline.changes.store import Store, run_folder_key

QUIET = 60.0  # seconds that nobody has touched it
_RUN_LOCK = ".run"  # behind the name of a run, which carries no mark


@dataclass(frozen=True, slots=True)
class Abandoned:
    """One folder, and why it stays; empty if it may go."""

    folder: Path
    state: str
    why: str


def look(store: Store, marked: Callable[[], set[str]]) -> list[Abandoned]:
    """All such folders beside that of `store`. `marked` finds the uids that are on the machine; it
    is asked once, and only if something depends on it.
    """
    found: list[Abandoned] = []
    uids: set[str] | None = None
    for folder in sorted(store.run.parent.iterdir()):
        if folder == store.run or not folder.is_dir() or folder.is_symlink():
            continue
        state, why = _whose(folder)
        why = why or _in_use(folder, state)
        if not why:
            known = _uids(folder)
            if known and uids is None:
                uids = marked()
            if left := known & (uids or set()):
                why = f"something on this machine carries the mark of {min(left)}"
        found.append(Abandoned(folder, state, why))
    return found


def remove(found: Abandoned) -> bool:
    """Remove it, if that is still right; whether it was."""
    if found.why or _in_use(found.folder, found.state):
        return False
    shutil.rmtree(found.folder, ignore_errors=True)
    return not found.folder.exists()


def _whose(folder: Path) -> tuple[str, str]:
    try:
        state = os.fsdecode((folder / "whose").read_bytes())
    except OSError:
        return "", "it does not say whose it is"
    if run_folder_key(Path(state)) != folder.name.partition("-")[0]:
        return state, "it is not the folder of the store that it names"
    return state, ""


def _in_use(folder: Path, state: str) -> str:
    if os.path.lexists(state):
        return "its store exists"
    if any((folder / "marks").glob("*")):
        return "it holds notes about changes"
    if _newest(folder) > time.time() - QUIET:
        return "somebody was here a moment ago"
    if any(map(held, (*folder.glob("*.lock"), *folder.glob("locks/*")))):
        return "a keeper or an engine holds a lock in it"
    if pid := _process_of(state):
        return f"process {pid} runs from its store"
    return ""


def _newest(folder: Path) -> float:
    times = [folder.lstat().st_mtime]
    for above, _, names in os.walk(folder):
        times += [os.lstat(os.path.join(above, name)).st_mtime for name in names]
    return max(times)


def _process_of(state: str) -> int:
    """A process that was started from the frozen code of a store, or for it: 0 if there is none."""
    wanted = os.fsencode(state)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it ended
            continue
        if any(word == wanted or word.startswith(wanted + b"/") for word in words):
            return int(path.parent.name)
    return 0


def _uids(folder: Path) -> set[str]:
    names = {path.name for path in folder.glob("locks/*")}
    return {name for name in names if not name.endswith(_RUN_LOCK)}


def drop_locks(store: Store, names: set[str]) -> int:
    """Remove the locks of what is recorded no more, unless somebody holds one; how many."""
    removed = 0
    for name in names:
        path = store.lock(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed += 1
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    return removed
