"""The system call itself: `syscall(2)` by name, with the numbers of the architecture."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from faultline.errors import Unsupported

# Numbers that differ come from the table of the architecture (unistd_64.h, asm-generic/unistd.h).
_GENERIC: Final = {
    "timer_create": 107,
    "timer_settime": 110,
    "timer_delete": 111,
    "timerfd_create": 85,
    "timerfd_settime": 86,
    "fallocate": 47,
    "setns": 268,
    "unshare": 97,
    "mlockall": 230,
    "munlockall": 231,
    "prctl": 167,
    "clone": 220,
    "renameat2": 276,
    "statx": 291,
    "reboot": 142,
    "syncfs": 267,
    "ioprio_set": 30,
    "ioprio_get": 31,
    "capset": 91,
    "swapon": 224,
    "swapoff": 225,
    "umount2": 39,
}
_X86_64: Final = {
    "timer_create": 222,
    "timer_settime": 223,
    "timer_delete": 226,
    "timerfd_create": 283,
    "timerfd_settime": 286,
    "fallocate": 285,
    "setns": 308,
    "unshare": 272,
    "mlockall": 151,
    "munlockall": 152,
    "prctl": 157,
    "clone": 56,
    "renameat2": 316,
    "statx": 332,
    "reboot": 169,
    "syncfs": 306,
    "ioprio_set": 251,
    "ioprio_get": 252,
    "capset": 126,
    "swapon": 167,
    "swapoff": 168,
    "umount2": 166,
}
_SAME_EVERYWHERE: Final = {"openat2": 437, "pidfd_getfd": 438}
_NUMBERS: Final = {"x86_64": _X86_64, "aarch64": _GENERIC, "riscv64": _GENERIC}

# PyDLL keeps the interpreter lock: a raw clone must not return in a child that has to take it
# again.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc_unlocked = ctypes.CDLL(None, use_errno=True)


def _number(name: str) -> int:
    if name in _SAME_EVERYWHERE:
        return _SAME_EVERYWHERE[name]
    machine = os.uname().machine
    if machine not in _NUMBERS:
        raise Unsupported(
            f"the system call {name} is not known for the architecture {machine}",
            hint=f"supported: {', '.join(_NUMBERS)}",
        )
    return _NUMBERS[machine][name]


def call(name: str, *args: object, about: str = "", unlocked: bool = False) -> int:
    """Make a system call; integers are passed as 64-bit words, buffers as they are."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    library = _libc_unlocked if unlocked else _libc
    function = library.syscall
    function.restype = ctypes.c_long
    result = int(function(ctypes.c_long(_number(name)), *words))
    if result == -1:
        errno = ctypes.get_errno()
        what = f"{name}: {os.strerror(errno)}"
        raise OSError(errno, what, about) if about else OSError(errno, what)
    return result
