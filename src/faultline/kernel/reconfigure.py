"""Making a mounted file system read-only, and writable again, from a descriptor of its root.

The new mount calls (fspick(2), fsconfig(2), Linux 5.2) act on the file system itself and not on a
mount of it, so they need no mount namespace to be entered: whoever has it mounted sees it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from faultline.kernel import syscalls

# The same on every architecture (unistd_64.h, asm-generic/unistd.h).
_FSCONFIG: Final = 431
_FSPICK: Final = 433
_CLOEXEC: Final = 1
_EMPTY_PATH: Final = 8
_SET_FLAG: Final = 0
_RECONFIGURE: Final = 7
_MOUNT_ROOT: Final = 0x2000  # of the attributes of statx(2)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, what: str, *args: object) -> int:
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def is_mount_root(fd: int) -> bool:
    """Whether this folder is the root of a mount (Linux 5.8; before it the answer is no)."""
    return bool(syscalls.statx(fd).attributes & _MOUNT_ROOT)


def is_read_only(fd: int) -> bool:
    """Whether nothing can be written through this mount."""
    return bool(os.statvfs(fd).f_flag & os.ST_RDONLY)


def set_read_only(fd: int, read_only: bool) -> None:
    """Set it for the file system whose root `fd` is; EBUSY while files are open for writing."""
    empty = ctypes.create_string_buffer(b"")
    context = _call(_FSPICK, "fspick", fd, empty, _EMPTY_PATH | _CLOEXEC)
    try:
        flag = ctypes.create_string_buffer(b"ro" if read_only else b"rw")
        _call(_FSCONFIG, "fsconfig", context, _SET_FLAG, flag, 0, 0)
        _call(_FSCONFIG, "fsconfig", context, _RECONFIGURE, 0, 0, 0)
    finally:
        os.close(context)
