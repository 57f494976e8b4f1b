"""Halt: everything is undone and nothing new begins until somebody lifts it.

It is a file, and that it is there is all that counts: it needs no store, no daemon and no network,
works on a full disk, and `touch` and `rm` will do. There is one for the faults and runs of one
state folder, kept in memory too, and one for the whole host. What it says is for people: the
reason, and in a line `by: NAME` who wanted it.

Only a file of root or of ourselves counts, so that nobody else can stop what is ours.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faultline.changes.store import Store, trusted_users
from faultline.errors import Halted, UsageError
from faultline.kernel import machine

HOST = (Path(machine.path("/etc/faultline/halt")), Path("/run/faultline/halt"))
"""For every user of the host: the first where it can be written; the second is gone with a reboot,
and ordinary users see it only if they may enter its folder."""
_LONGEST = 1000  # characters of a reason that are read
_BY = "by: "


@dataclass(frozen=True, slots=True)
class Halt:
    """One halt that stands."""

    path: Path
    why: str
    by: str
    at: float  # seconds since 1970

    @property
    def host(self) -> bool:
        """Whether it is for the whole host."""
        return self.path in HOST

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        return f"{self.why or 'no reason given'} ({self.by}, {when}, {self.path})"

    @property
    def how_to_lift(self) -> str:
        return f"lift it: faultline halt --lift{' --host' if self.host else ''}"


def paths(store: Store) -> tuple[Path, ...]:
    """Where a halt of this store may stand, the lasting one of its own first."""
    return (store.halt, store.run / store.halt.name, *HOST)


def standing(store: Store) -> list[Halt]:
    """Every halt that counts here; empty while nothing is halted."""
    found = (_look(path) for path in paths(store))
    return [each for each in found if isinstance(each, Halt)]


def lasting(store: Store) -> bool:
    """Whether a halt that counts here still stands after a reboot."""
    passing = {store.run / store.halt.name, HOST[1]}
    return any(each.path not in passing for each in standing(store))


def current(store: Store) -> Halt | None:
    """The halt that counts here, if there is one."""
    return next(iter(standing(store)), None)


def ignored(store: Store) -> list[str]:
    """Files that look like a halt and do not count, with the reason."""
    return [each for each in map(_look, paths(store)) if isinstance(each, str)]


def check(store: Store) -> None:
    """Raise Halted, naming who, when, why and how to lift it."""
    halt = current(store)
    if halt is not None:
        raise Halted(f"everything is halted: {halt}", hint=halt.how_to_lift)


def _look(path: Path) -> Halt | str | None:
    """The halt at a path, why it does not count, or None if there is none that we can see."""
    try:
        info = os.lstat(path)
    except OSError:  # not there, or in a folder that is closed to us
        return None
    if info.st_uid not in trusted_users():
        return f"{path} is owned by user {info.st_uid}"
    why, by = "", ""
    for line in _read(path):
        if line.startswith(_BY):
            by = line.removeprefix(_BY)
        else:
            why = why or line
    return Halt(path, why, by or _name(info.st_uid), info.st_mtime)


def _read(path: Path) -> Iterable[str]:
    """What it says, without what could steer a terminal; nothing if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        text = os.read(fd, _LONGEST).decode(errors="replace")
    except OSError:
        return ()
    finally:
        os.close(fd)
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.splitlines())
    return tuple(line.strip() for line in lines if line.strip())


def _name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


# ---------------------------------------------------------------------------- halting and lifting


def at_once(store: Store, why: str, by: str = "") -> Path:
    """Halt this store in memory: also while its disk is full or hung. Before anything is undone."""
    path = store.run / store.halt.name
    try:
        return _write(path, why, by, 0o600)
    except OSError:  # no memory left for it, say
        return for_good(store, why, by)


def for_good(store: Store, why: str, by: str = "") -> Path:
    """Halt this store so that it stays halted after a reboot; raises OSError."""
    return _write(store.halt, why, by, 0o600)


def host(why: str, by: str = "") -> Path:
    """Halt every store of this host; raises UsageError if we may not."""
    failed: OSError | None = None
    for path in HOST:
        try:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            made = _write(path, why, by, 0o644)
            if path != HOST[0]:
                os.chmod(path.parent, 0o711)  # noqa: S103 (others may find the file, nothing else)
            return made
        except OSError as error:
            failed = failed or error
    raise UsageError(
        f"the host cannot be halted: {failed}", hint="be root, or halt without --host"
    ) from failed


def _write(path: Path, why: str, by: str, mode: int) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    # It is there, which is the halt. What it says needs room, which may be what is missing.
    try:
        with suppress(OSError):
            os.fchmod(fd, mode)  # whatever the umask
            if why or not os.fstat(fd).st_size:
                os.ftruncate(fd, 0)
                text = f"{' '.join(why.split())}\n{_BY}{by or _name(os.geteuid())}\n"
                os.write(fd, text.encode(errors="replace"))
                os.utime(fd)
    finally:
        os.close(fd)
    return path


def lift(store: Store, *, whole_host: bool = False) -> list[Path]:
    """Remove the halt of this store, or that of the host; what was removed. Raises UsageError."""
    removed: list[Path] = []
    for path in HOST if whole_host else paths(store)[: -len(HOST)]:
        try:
            path.unlink()
            removed.append(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if _look(path) is not None:
                raise UsageError(
                    f"the halt {path} cannot be lifted: {error.strerror}",
                    hint="be its owner or root",
                ) from error
    return removed


def engines(store: Store) -> list[str]:
    """The runs that an engine of this host carries out now: each holds a lock."""
    found: list[str] = []
    for lock in sorted(store.run.glob("locks/*.run")):
        try:
            fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(lock.name.removesuffix(".run"))
        finally:
            os.close(fd)
    return found


def still_carried_out(store: Store, running: list[str], patience: float) -> list[str]:
    """Those of these runs that engines have not let go of when patience ends, in seconds."""
    until = time.monotonic() + patience
    while running and time.monotonic() < until:
        time.sleep(0.02)
        alive = set(engines(store))
        running = [name for name in running if name in alive]
    return running
