"""Network namespaces by descriptor: make one, open sockets inside one.

setns(2) and unshare(2) for the network act on one thread, so both are safe in a threaded program.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

from faultline.kernel import syscalls

_SIOCGSKNS = 0x894C


def current() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def create() -> int:
    """Make a network namespace; it lives as long as the returned descriptor or a socket in it.

    Needs CAP_SYS_ADMIN over the user namespace; OSError EPERM without.
    """
    made: list[int] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            syscalls.unshare(syscalls.Namespace.NET)
            made.append(current())
        except OSError as problem:
            failed.append(problem)

    thread = threading.Thread(target=make, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def of_socket(fd: int) -> int:
    """A descriptor of the network namespace that a socket belongs to.

    OSError EPERM without CAP_NET_ADMIN there. Source: SIOCGSKNS, linux/sockios.h.
    """
    return fcntl.ioctl(fd, _SIOCGSKNS)


@contextmanager
def entered(fd: int) -> Generator[None]:
    """Run the block with the calling thread inside the namespace `fd`; sockets made there stay
    there.
    """
    before = current()
    try:
        syscalls.setns(fd, syscalls.Namespace.NET)
        try:
            yield
        finally:
            syscalls.setns(before, syscalls.Namespace.NET)
    finally:
        os.close(before)
