"""Notes about what cannot carry a mark itself, such as a stopped process.

They lie in the store's folder for what a reboot may lose, since what they tell is lost with it.
"""

from __future__ import annotations

import glob
import os

from faultline.changes.kind import Context
from faultline.changes.sidecar import Folder, own_name, remove
from faultline.errors import ApplyFailed


def folder(ctx: Context) -> Folder:
    """The open folder of notes; made when it is missing."""
    if not ctx.run:
        raise ApplyFailed("no store is open: there is no folder for the note of this change")
    path = os.path.join(ctx.run, "marks")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return Folder.open(path)


def noted(ctx: Context) -> list[str]:
    """The folders of notes that hold the note of this step: ours, or for a scan another store's."""
    own = [os.path.join(ctx.run, "marks")] if ctx.run else []
    names = [own_name(ctx, role) for role in ("json", "part")]
    return [
        path
        for path in dict.fromkeys((*own, *folders()))
        if any(os.path.lexists(os.path.join(path, name)) for name in names)
    ]


def forget(ctx: Context) -> None:
    """Remove the note of this step, wherever it lies."""
    for path in noted(ctx):
        with Folder.open(path) as found:
            remove(found, ctx)


def folders() -> tuple[str, ...]:
    """The folders of notes of every store that this user can have."""
    bases = ["/run/faultline", f"/dev/shm/faultline-{os.geteuid()}"]  # noqa: S108 - as in `store`
    private = os.environ.get("XDG_RUNTIME_DIR")
    if private:
        bases.append(os.path.join(private, "faultline"))
    found = [path for base in bases for path in glob.glob(f"{glob.escape(base)}/*/marks")]
    return tuple(sorted(found))
