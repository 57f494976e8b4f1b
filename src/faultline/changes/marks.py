"""Notes about what cannot carry a mark itself, such as a stopped process.

They lie in the store's folder for what a reboot may lose, since what they tell is lost with it.
"""

from __future__ import annotations

import glob
import os

from faultline.changes.kind import Context
from faultline.changes.sidecar import Folder
from faultline.errors import ApplyFailed


def folder(ctx: Context) -> Folder:
    """The open folder of notes; made when it is missing."""
    if not ctx.run:
        raise ApplyFailed("no store is open: there is no folder for the note of this change")
    path = os.path.join(ctx.run, "marks")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return Folder.open(path)


def folders() -> tuple[str, ...]:
    """The folders of notes of every store that this user can have."""
    bases = ["/run/faultline", f"/dev/shm/faultline-{os.geteuid()}"]  # noqa: S108 - as in `store`
    private = os.environ.get("XDG_RUNTIME_DIR")
    if private:
        bases.append(os.path.join(private, "faultline"))
    found = [path for base in bases for path in glob.glob(f"{glob.escape(base)}/*/marks")]
    return tuple(sorted(found))
