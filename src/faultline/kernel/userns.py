"""User namespaces: which one this is, who we are outside of it, whether another one still lives.

Root of a user namespace is root over what belongs to the namespace and an ordinary user for all
else. A keeper has rights over the network of its own user namespace only, so whoever meets a fault
has to know in which one it was made. Source: user_namespaces(7).
"""

from __future__ import annotations

import os
from pathlib import Path

INITIAL = 0xEFFFFFFD  # the first namespace's number (include/linux/proc_ns.h)


def current() -> int:
    """The number of the user namespace that this process is in; used again once it has gone."""
    return os.stat("/proc/self/ns/user").st_ino


def overflow() -> int:
    """The user that stands for everybody who has no number here."""
    return int(Path("/proc/sys/kernel/overflowuid").read_text())


def outside(user: int) -> int:
    """What a user of this namespace is in the one around it; the overflow user without a number.
    Where there are no such namespaces, that user.
    """
    try:
        told = Path("/proc/self/uid_map").read_text()
    except FileNotFoundError:
        return user
    for line in told.splitlines():
        first, there, count = map(int, line.split())
        if first <= user < first + count:
            return user - first + there
    return overflow()


def living(number: int) -> bool:
    """Whether any process that we may look at is in the user namespace with this number."""
    for path in Path("/proc").glob("[0-9]*/ns/user"):
        try:
            if os.stat(path).st_ino == number:
                return True
        except OSError:  # it ended, or it is not ours to look at
            continue
    return False
