"""Where the journal lies, and whether it may be trusted.

Undo records are instructions that root executes: a record 'restore this file' is a root shell. So a
store is used only if nobody else could have written it, whatever the environment variable says.
"""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faultline.errors import UntrustedStore, UsageError
from faultline.kernel import userns

ENVIRONMENT = "FAULTLINE_STATE"


@dataclass(frozen=True, slots=True)
class Store:
    """The folders of one store: `state` survives a reboot, `run` need not."""

    state: Path
    run: Path

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    @property
    def halt(self) -> Path:
        """Exists while everything is halted."""
        return self.state / "halt"

    def socket(self, role: str) -> Path:
        return self.run / f"keeper.{role}.sock"

    def lock(self, uid: str) -> Path:
        return self.run / "locks" / uid

    @property
    def whose(self) -> Path:
        """In the run folder: the state folder that it belongs to."""
        return self.run / "whose"

    def stats(self, uid: str, index: int) -> Path:
        """Where the worker of a step publishes what it measures."""
        return self.run / "stats" / f"{uid}-{index}"


def default_state() -> Path:
    """$FAULTLINE_STATE, else /var/lib/faultline as root, else the XDG state folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    if real_user() == 0:
        return Path("/var/lib/faultline")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(base) / "faultline"


def open_store(state: Path | None = None) -> Store:
    """Make the folders if they are missing and refuse them if others could write there."""
    path = Path(os.path.abspath(state or default_state()))
    store = Store(path, _run_folder(path))
    for folder in (store.state, store.run, store.run / "locks", store.run / "stats"):
        _make(folder)
        check_trust(folder)
    _note_whose(store)
    for file in store.state.glob("journal.db*"):
        check_trust(file)
    _forget_gone(store.run)
    return store


def _note_whose(store: Store) -> None:
    """The name of a run folder does not tell whose it is; this does, once its store is gone."""
    if not store.whose.exists():
        # A disk that is full or a store that is just removed must not stop a command.
        with suppress(OSError):
            store.whose.write_bytes(os.fsencode(store.state))


def _forget_gone(run: Path) -> None:
    """Remove what keepers of this store left in user namespaces that have gone since; from outside,
    where all of them can be seen.
    """
    if userns.current() != userns.INITIAL:
        return
    key = run.name.partition("-")[0]
    for other in run.parent.glob(f"{key}-*"):
        number = other.name.partition("-")[2]
        if other != run and number.isdigit() and not userns.living(int(number)):
            import shutil

            shutil.rmtree(other, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        make_private(folder)
    except OSError as error:
        raise UsageError(
            f"the folder {folder} cannot be made: {error.strerror}",
            hint=f"name another state folder: --state FOLDER or {ENVIRONMENT}",
        ) from error


def kept(state: Path, namespace: int) -> bool:
    """Whether keepers of this state run in the user namespace with this number: each holds a lock.

    From inside of one namespace the processes of another cannot be seen.
    """
    from faultline.changes.lock import held

    return any(map(held, _run_folder(state, namespace).glob("keeper.*.lock")))


def run_folder_key(state: Path) -> str:
    """What the name of a store's run folder begins with."""
    name = os.fsencode(state)
    # Short, since a socket's path is; a checksum, since hashlib costs a keeper 4 MiB.
    return f"{zlib.crc32(name):08x}{zlib.adler32(name):08x}"


def _run_folder(state: Path, namespace: int = 0) -> Path:
    """A memory-backed folder, so that locks and sockets work while the disk is full or hung."""
    namespace = namespace or userns.current()
    key = run_folder_key(state)
    if namespace != userns.INITIAL:
        # Keepers have no rights in another user namespace: each has its own.
        key += f"-{namespace}"
    return memory_folder() / key


def memory_folder() -> Path:
    """Where what a reboot may lose lies, of all stores of this user; `check_trust` before use."""
    if real_user() == 0:
        return Path("/run/faultline")
    private = os.environ.get("XDG_RUNTIME_DIR")
    if private and os.access(private, os.W_OK):
        return Path(private) / "faultline"
    shared = Path("/dev/shm")  # noqa: S108 - see above
    if not shared.is_dir():  # no Linux: only what asks a cluster works there
        import tempfile

        shared = Path(tempfile.gettempdir())
    return shared / f"faultline-{real_user()}"


def real_user() -> int:
    """Our user as the namespace outside sees it: root of a user namespace is not root."""
    return userns.outside(os.geteuid())


def trusted_users() -> set[int]:
    """Who may own the folders above a store, and a halt of it.

    In a user namespace the real root shows as the overflow user, as does everybody else; the store
    itself has to be ours all the same.
    """
    ours = {0, os.geteuid()}
    return ours if userns.current() == userns.INITIAL else {*ours, userns.overflow()}


def make_private(folder: Path) -> None:
    """Make a folder and what is missing above it; only we may enter, whatever the umask."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def check_trust(path: Path) -> None:
    """Raise UntrustedStore if anybody but us or root can change `path` or replace it."""
    if flaw := others_could_change(path):
        raise UntrustedStore(
            f"the store {path} is not trusted: {flaw}",
            hint=f"its records are executed; name one that only you can write: {ENVIRONMENT}",
        )


def others_could_change(path: Path) -> str:
    """Why somebody but us or root can change `path` or replace it; empty if nobody can.

    Looked at are the folders above it by name and, where a link leads elsewhere, those in which it
    really lies.
    """
    ours = trusted_users()
    real = Path(os.path.realpath(path))
    for part in dict.fromkeys((path, *path.parents, real, *real.parents)):
        info = os.lstat(part)
        link = stat.S_ISLNK(info.st_mode)
        owners = {0, os.geteuid()} if part in (path, real) else ours
        who = f"owned by user {info.st_uid}" if info.st_uid not in owners else ""
        if link and part == path:
            who = "a symbolic link"
        # Others may add files to a sticky folder such as /tmp, but not replace ours in it. The
        # store itself may not be one: they could be first with a file of a name that we use.
        sticky = info.st_mode & stat.S_ISVTX and part not in (path, real)
        if info.st_mode & 0o022 and not sticky and not link:
            who = f"writable by others (mode {info.st_mode & 0o7777:04o})"
        if who:
            return f"{part} is {who}"
    return ""
