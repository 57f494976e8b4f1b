"""The change that writes a value into a file of the kernel: a sysctl, a file of a control group.

What is there is ours only while it reads as what was written; it is put back then, and left alone
when somebody else has written something meanwhile. A value cannot carry a mark, so a note lies in
the store's run folder. Sysctls below /proc/sys/net belong to the network namespace of whoever opens
them, so keepers open theirs before the fault by a thread that enters it.
Source: the kernel's admin-guide/sysctl; proc_sys(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import ClassVar, Final

from faultline.changes import leftover, marks, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import ApplyFailed, InvalidParameter, Refused, TargetGone, Unsupported
from faultline.kernel import netns
from faultline.kernel.netlink import Netlink

_NETWORK: Final = "/proc/sys/net/"
_LIMIT: Final = 65536
_GONE: Final = (errno.ENOENT, errno.ENODEV)  # the file of a namespace or group that is no more


def words(text: str) -> str:
    """A value as it is compared: the kernel separates by tabs what people separate by blanks."""
    return " ".join(text.split())


def read(fd: int) -> str:
    """What an open file of the kernel says now."""
    return words(os.pread(fd, _LIMIT, 0).decode(errors="replace"))


class KernelValue(Kind):
    """spec: {path, value, what: the name that people know it by}.

    Where a step before this one makes the file: `initially`, what it reads then. `watch` is a list
    of other files whose content is remembered, for who measures what has changed since.
    """

    name: ClassVar[str] = "kernel_value"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        where = f" in network {prior['cookie']}" if prior.get("cookie") else ""
        return frozenset({f"the value of {spec['path']}{where}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        seen = {path: _seen(path) for path in spec.get("watch", ())}
        if _is_to_come(spec):
            return {"value": words(spec["initially"]), "cookie": 0, "seen": seen}
        fd = _open(spec["path"], ctx.netlink, os.O_RDWR)
        try:
            found = read(fd)
        except OSError as error:
            raise Unsupported(f"{spec['what']} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        return {"value": found, "cookie": _cookie(spec, ctx), "seen": seen}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [] if _is_to_come(spec) else [_open(spec["path"], ctx.netlink, os.O_RDWR)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        fd = _open(spec["path"], ctx.netlink, os.O_RDWR)
        try:
            _write(fd, spec)
            found = read(fd)
            if found != words(spec["value"]):
                # Not what was asked for, so undo could not tell it from somebody else's value.
                os.pwrite(fd, prior["value"].encode(), 0)
                raise ApplyFailed(f"{spec['what']}: the kernel made {found!r} of {spec['value']!r}")
        finally:
            os.close(fd)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        try:
            fd, ours = _reach(spec, prior, ctx)
        except TargetGone:
            return Presence.GONE
        try:
            return _look(fd, spec, prior)
        finally:
            if ours:
                os.close(fd)

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        outcome = self._undo(spec, prior, ctx)
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def _undo(self, spec: Data, prior: Data, ctx: Context) -> Outcome:
        try:
            fd, ours = _reach(spec, prior, ctx)
        except TargetGone as error:
            return Outcome(Undone.GONE, error.message)
        try:
            here = _look(fd, spec, prior)
            if here is Presence.GONE:
                return Outcome(Undone.GONE, f"{spec['what']} is gone")
            if here is Presence.ABSENT:
                return Outcome(Undone.ABSENT, f"{spec['what']} is {prior['value']}")
            if here is Presence.FOREIGN:
                detail = f"somebody else has set {spec['what']} to {read(fd)!r}: that is left"
                return Outcome(Undone.KEPT, detail)
            os.pwrite(fd, prior["value"].encode() or b"\n", 0)
            found = read(fd)
        finally:
            if ours:
                os.close(fd)
        if found != prior["value"]:
            return Outcome(Undone.FAILED, f"{spec['what']} reads {found!r}, not {prior['value']!r}")
        return Outcome(Undone.UNDONE, f"{spec['what']} is {prior['value']} again")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"set {spec['what']} to {spec['value']}",
            f"put back what {spec['what']} was, if nobody else has changed it",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return (("sh", "-c", f"echo '{prior['value']}' > {spec['path']}"),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


def _open(path: str, netlink: Netlink | None, flags: int) -> int:
    """The file as it is in the network namespace of the route socket; to be closed."""
    try:
        if netlink is None or not path.startswith(_NETWORK):
            return os.open(path, flags | os.O_CLOEXEC)
        there = netns.of_socket(netlink.fileno())
        try:
            with netns.entered(there):
                return os.open(path, flags | os.O_CLOEXEC)
        finally:
            os.close(there)
    except FileNotFoundError:
        raise TargetGone(f"there is no {path}") from None
    except (PermissionError, OSError) as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise Unsupported(
            f"{path} cannot be written here: {error.strerror}",
            hint="some values belong to the whole machine and can be set on the host only",
        ) from error


def _is_to_come(spec: Data) -> bool:
    """Whether the file is not there before a step of the same fault has made it."""
    return "initially" in spec and not os.path.exists(spec["path"])


def _seen(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(_LIMIT)
    except OSError:  # this version of the kernel has no such counters
        return ""


def _write(fd: int, spec: Data) -> None:
    try:
        os.pwrite(fd, f"{spec['value']}\n".encode(), 0)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ERANGE, errno.EDOM):
            expected = f"a value that the kernel takes ({error.strerror})"
            raise InvalidParameter(spec["what"], spec["value"], expected) from error
        if error.errno == errno.EBUSY:
            raise Refused(f"the kernel cannot make {spec['what']} {spec['value']} now") from error
        raise


def _cookie(spec: Data, ctx: Context) -> int:
    """The network that the value belongs to; 0 where it belongs to none."""
    if ctx.netlink is None or not spec["path"].startswith(_NETWORK):
        return 0
    return ctx.netlink.cookie()


def _reach(spec: Data, prior: Data, ctx: Context) -> tuple[int, bool]:
    """A descriptor of the value, and whether it is to be closed; raises TargetGone."""
    if ctx.handed:
        return ctx.handed[0], False
    cookie = prior.get("cookie", 0)
    if not cookie:
        return _open(spec["path"], None, os.O_RDWR), True
    if ctx.netlink is not None and ctx.netlink.cookie() == cookie:
        return _open(spec["path"], ctx.netlink, os.O_RDWR), True
    netlink = leftover.netlink_of(cookie)
    if netlink is None:
        raise TargetGone("the network namespace is gone")
    with netlink:
        return _open(spec["path"], netlink, os.O_RDWR), True


def _look(fd: int, spec: Data, prior: Data) -> Presence:
    try:
        found = read(fd)
    except OSError as error:
        if error.errno in _GONE:
            return Presence.GONE
        raise
    if found == prior["value"]:
        return Presence.ABSENT
    return Presence.OURS if found == words(spec["value"]) else Presence.FOREIGN
