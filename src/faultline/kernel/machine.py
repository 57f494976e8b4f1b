"""The machine around us, where we run in a container of it: an agent in a pod.

Such a container shares the processes of its machine (hostPID) and shows all its control groups, but
its files are those of an image. FAULTLINE_MACHINE is the pid of a process whose root directory is
the machine's: 1. Nothing of it is mounted into the container, and nobody but us is led there.

Whoever ends the container ends all that is in its control groups (runc does, containerd does, and
so does the kubelet). What has to outlive it, the keepers and the workers, is outside of them.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import Final

# Imported where it is needed, since every command asks for paths and hardly any is in a container.

ENVIRONMENT: Final = "FAULTLINE_MACHINE"
_MASKED: Final = ("/proc/sys", "/proc/sysrq-trigger")
_TMP: Final = "/tmp"  # noqa: S108 - of the container
_DETACH: Final = 2  # MNT_DETACH (umount2(2))


def pid() -> int:
    """The process whose root directory is the machine's; 0 where that is ours."""
    named = os.environ.get(ENVIRONMENT, "")
    if not named.isdigit() or not int(named):
        return 0
    with suppress(OSError):
        return 0 if _ours(int(named)) else int(named)
    from faultline.kernel import procfs

    # Not ours to look at: whoever watches over the container is of the machine too.
    for each in procfs.ancestors():
        with suppress(OSError):
            if not _ours(each):
                return each
    return 0


def _ours(other: int) -> bool:
    return _same(other, "root") and _same(other, "ns/mnt")


def _same(other: int, what: str) -> bool:
    """Whether a process shares it with us; raises OSError."""
    return os.path.samestat(os.stat(f"/proc/{other}/{what}"), os.stat(f"/proc/self/{what}"))


def path(text: str) -> str:
    """An absolute path of the machine, as this process can open it."""
    around = pid()
    return f"/proc/{around}/root{text}" if around else text


def entering() -> tuple[str, ...]:
    """What goes before a command that is a program of the machine, and sees its files."""
    around = pid()
    return ("nsenter", f"--mount=/proc/{around}/ns/mnt", "--") if around else ()


def as_the_machine() -> None:
    """See control groups by the paths that they have on the machine, and write its switches.

    Before any thread is started. A container that is not privileged has a cgroup namespace of its
    own where version 2 is used, and is shown `/proc/sys` as read-only. Raises OSError.
    """
    around = pid()
    if not around:
        return
    from faultline.kernel import syscalls
    from faultline.kernel.mounts import mounts

    if not _same(around, "ns/cgroup"):
        fd = os.open(f"/proc/{around}/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.Namespace.CGROUP)
        finally:
            os.close(fd)
    for mount in mounts():
        if mount.point in _MASKED and "ro" in mount.options:
            syscalls.umount(mount.point, _DETACH)
    if stat.S_IMODE(os.stat(_TMP).st_mode) == 0o777:
        # A volume is made so that everybody may replace what is ours there.
        os.chmod(_TMP, 0o1777)  # noqa: S103


def leave() -> None:
    """Leave the control groups of the container for the topmost ones of the machine.

    Of every hierarchy, also of those without a controller: any one of them may be that by which a
    runtime finds whom to end. There no limit of the pod holds either: a load is as strong as asked.
    """
    if not pid():
        return
    from faultline.kernel.mounts import mounts

    for mount in mounts():
        if mount.type not in ("cgroup", "cgroup2"):
            continue
        file = f"{mount.point}/cgroup.procs"
        try:
            if mount.root != "/":
                raise PermissionError(1, f"only the group {mount.root} is mounted", mount.point)
            fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"0")  # ourselves
            finally:
                os.close(fd)
        except OSError as error:
            sys.stderr.write(f"what is begun here ends with this container: {error}\n")
