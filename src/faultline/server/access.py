"""Where the engine listens, and who may call it.

There are two ways and no third. A Unix socket that only its owner may open, and behind which the
kernel says who calls (SO_PEERCRED, unix(7)). Or loopback, where every user of the machine and every
page in a browser may knock: there a token is asked for, and what browsers send is refused.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import ipaddress
import os
import secrets
import socket
import stat
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faultline.errors import InvalidParameter, Refused, UsageError

HOW = "unix:FILE, or 127.0.0.1:PORT (also [::1]:PORT)"
TOKEN_BYTES = 32
_UNIX = "unix:"
_LONGEST = 107  # bytes of a path that fit into sockaddr_un, unix(7)
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a file, or an address of loopback with a port."""

    file: Path | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.file is not None:
            return f"{_UNIX}{self.file}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def address(text: str) -> Address:
    """Read what --listen names; raises InvalidParameter for all that others could reach."""
    if text.startswith(_UNIX):
        file = Path(text.removeprefix(_UNIX)).absolute()
        if not text.removeprefix(_UNIX) or len(os.fsencode(file)) > _LONGEST:
            raise InvalidParameter("--listen", text, f"unix:FILE with at most {_LONGEST} bytes")
        return Address(file)
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise InvalidParameter(
            "--listen", text, HOW, hint="from other hosts it is reached through ssh -L"
        )
    return Address(None, host, int(port))


# ---------------------------------------------------------------------------------- unix socket


@contextmanager
def unix_socket(file: Path) -> Generator[socket.socket]:
    """A listening socket at `file` that its owner alone may open; it is gone afterwards.

    What a dead engine left there is replaced. Raises Refused for that of a living one and for a
    folder in which others can write.
    """
    _check_folder(file.parent)
    lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with this process
        except OSError as error:
            raise Refused(f"an engine listens at {file} already") from error
        _make_room(file)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
            before = os.umask(0o177)
            try:
                made.bind(str(file))
            finally:
                os.umask(before)
            number = os.lstat(file).st_ino
            made.listen(_BACKLOG)
            try:
                yield made
            finally:
                _remove(file, number)
    finally:
        os.close(lock)


def _check_folder(folder: Path) -> None:
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700)
        info = folder.stat()
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be used: {error.strerror}") from error
    if info.st_uid not in (0, os.geteuid()) or stat.S_IMODE(info.st_mode) & 0o022:
        raise Refused(
            f"others can write in {folder}, and could put a socket of theirs there",
            hint=f"use a folder of your own: chmod 0700 {folder}",
        )


def _make_room(file: Path) -> None:
    try:
        mode = os.lstat(file).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refused(f"{file} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        tried.settimeout(2.0)
        try:
            tried.connect(str(file))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise Refused(f"{file} is in use: {error.strerror or error}") from error
            file.unlink()  # of a dead engine
            return
    raise Refused(f"somebody listens at {file} already")


def _remove(file: Path, number: int) -> None:
    try:
        if os.lstat(file).st_ino == number:
            file.unlink()
    except FileNotFoundError:
        return


def peer(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the kernel says (unix(7), SO_PEERCRED)."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", found)[1]


def welcome(user: int) -> bool:
    """Whether a user may call: root, or who runs the engine."""
    return user in (0, os.geteuid())


# ------------------------------------------------------------------------------------- loopback


@contextmanager
def loopback_socket(host: str, port: int) -> Generator[socket.socket]:
    """A listening socket on loopback; raises UsageError where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
            made.listen(_BACKLOG)
        except OSError as error:
            raise UsageError(f"--listen {host}:{port}: {error.strerror}") from error
        yield made


def token(file: Path) -> str:
    """The token of a file that only its owner may read; made if it is not there.

    Raises Refused for a file that others may read, UsageError for one that holds no such token.
    """
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return _read_token(file)
    except OSError as error:
        raise UsageError(f"the token cannot be written: {file}: {error.strerror}") from error
    made = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(fd, "w") as new:
        os.fchmod(fd, 0o600)
        new.write(made + "\n")
    return made


def _read_token(file: Path) -> str:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"the token cannot be read: {file}: {error.strerror}") from error
    with os.fdopen(fd, "rb") as kept:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid not in (0, os.geteuid()):
            raise Refused(f"the token {file} is no file of ours")
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise Refused(f"others may read the token {file}", hint=f"chmod 0600 {file}")
        found = kept.read(4096).strip()
    if len(found) < TOKEN_BYTES or not found.isascii():
        raise UsageError(
            f"the token in {file} is too short: expected {TOKEN_BYTES} random bytes as text",
            hint="remove the file; the engine makes a new one",
        )
    return found.decode()


def same(given: str, wanted: str) -> bool:
    """Whether two tokens are the same; how long it takes does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def names_loopback(host: str) -> bool:
    """Whether a Host header names loopback. Another name that leads here is an attack by way of
    DNS: a page in a browser that pretends to be of this machine.
    """
    name = host.strip()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
