"""What a keeper does for itself before any fault: stay in memory, stay alive, speak up."""

from __future__ import annotations

import os
import sys

from faultline.changes.store import real_user
from faultline.kernel import syscalls


def settle() -> None:
    """Give back what starting took, and keep the rest in memory whatever happens to the disk."""
    import ctypes
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
    _lock_memory()


def _lock_memory() -> None:
    """Lock what is loaded; without CAP_IPC_LOCK only as far as RLIMIT_MEMLOCK lets an ordinary
    user.

    Their later pages stay unlocked: with them locked, growing would fail once the limit is reached.
    """
    now = syscalls.MlockAll.CURRENT | syscalls.MlockAll.ONFAULT
    try:
        syscalls.mlockall(now | syscalls.MlockAll.FUTURE if real_user() == 0 else now)
    except OSError as error:
        say(f"memory is not locked: {error.strerror}")


def spare_from_oom() -> None:
    """Ask the kernel to end anybody else first; it refuses without CAP_SYS_RESOURCE."""
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    try:
        os.write(fd, b"-1000")
    except OSError:
        say("oom_score_adj could not be lowered")
    finally:
        os.close(fd)


def say(text: str) -> None:
    """A line in the keeper's log, which lies in memory."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
