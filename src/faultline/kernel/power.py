"""Ending the machine: the kernel's own trigger, or reboot(2).

Source: the kernel's admin-guide/sysrq; reboot(2), linux/reboot.h.
"""

from __future__ import annotations

import os
from typing import Final

from faultline.kernel import syscalls

TRIGGER: Final = "/proc/sysrq-trigger"
_INITIAL_PIDS: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO, linux/proc_ns.h
_COMMANDS: Final = {"reboot": 0x01234567, "poweroff": 0x4321FEDC}
_LETTERS: Final = {"panic": b"c", "reboot": b"b", "poweroff": b"o", "sync": b"s"}


def owns_machine() -> bool:
    """Whether this process is outside of every container: in one, reboot(2) ends only that."""
    return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PIDS


def open_trigger() -> int:
    """The kernel's trigger, open for writing; FileNotFoundError where the kernel has none."""
    return os.open(TRIGGER, os.O_WRONLY | os.O_CLOEXEC)


def pull(trigger: int, what: str) -> None:
    """Have the kernel 'sync', 'panic', 'reboot' or 'poweroff' at once; the last three end us."""
    os.write(trigger, _LETTERS[what])


def call(what: str) -> None:
    """'reboot' or 'poweroff' by reboot(2), at once: no program is asked and nothing written out."""
    syscalls.reboot(_COMMANDS[what])
