"""A Python that has nothing of Linux: run with a program as its argument, as on another system.

What only Linux has is taken out of the standard library, and nothing of /proc and /sys is found.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import runpy
import select
import signal
import socket
import sys
import sysconfig
import time
from types import ModuleType

ABSENT: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "O_PATH", "O_TMPFILE", "O_DIRECT", "O_LARGEFILE", "O_NOATIME", "O_RSYNC", "setns",
        "unshare", "memfd_create", "MFD_", "eventfd", "EFD_", "pidfd_open", "sched_getaffinity",
        "sched_setaffinity", "sched_setscheduler", "sched_getscheduler", "sched_rr_get_interval",
        "SCHED_", "getrandom", "GRND_", "copy_file_range", "posix_fadvise", "POSIX_FADV_",
        "posix_fallocate", "splice", "SPLICE_", "getxattr", "setxattr", "listxattr", "removexattr",
        "XATTR_", "P_PIDFD", "pipe2", "RWF_", "CLONE_", "TFD_", "timerfd_", "setresuid",
        "setresgid", "getresuid", "getresgid", "preadv2", "ST_",
    ),
    socket: (
        "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_CAN", "AF_ALG", "AF_TIPC", "AF_QIPCRTR",
        "SO_MARK", "SO_BINDTODEVICE", "SO_PEERCRED", "SO_PASSCRED", "SO_INCOMING_CPU",
        "SO_PROTOCOL", "SO_DOMAIN", "SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_KEEPIDLE",
        "TCP_USER_TIMEOUT", "TCP_INFO", "TCP_CORK", "TCP_QUICKACK", "TCP_DEFER_ACCEPT",
        "PACKET_", "NETLINK_", "CAN_", "ALG_", "TIPC_", "VMADDR_", "SCM_CREDENTIALS",
        "IPPROTO_UDPLITE", "IPPROTO_MPTCP", "IP_TRANSPARENT", "IP_BIND_ADDRESS_NO_PORT",
    ),
    select: ("epoll", "EPOLL"),
    signal: (
        "pidfd_send_signal", "SIGSTKFLT", "SIGPWR", "SIGPOLL", "SIGCLD", "SIGRTMIN", "SIGRTMAX",
        "sigwaitinfo", "sigtimedwait",
    ),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI"),
    resource: (
        "prlimit", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
        "RLIMIT_SIGPENDING", "RLIMIT_OFILE",
    ),
    fcntl: (
        "F_OFD_", "F_ADD_SEALS", "F_GET_SEALS", "F_SEAL_", "F_SETPIPE_SZ", "F_GETPIPE_SZ",
        "F_SETLEASE", "F_GETLEASE", "F_NOTIFY", "DN_", "F_SETSIG", "F_GETSIG",
    ),
}  # fmt: skip
FUNCTIONS = ("setns", "unshare", "mount", "umount2", "prctl", "timerfd_create", "timerfd_settime",
             "epoll_create1", "inotify_init1", "pidfd_open", "memfd_create", "ptrace", "signalfd",
             "fanotify_init", "eventfd", "clone", "pivot_root", "swapon", "sched_setaffinity",
             "process_vm_readv", "gettid", "tgkill", "accept4")  # fmt: skip
FOLDERS = ("/proc/", "/sys/")


def take_away() -> None:
    sysconfig.get_config_vars()  # of the Python that this is
    for module, names in ABSENT.items():
        for name in dir(module):
            if any(name == each or (each.endswith("_") and name.startswith(each))
                   or (each == "EPOLL" and name.startswith(each)) for each in names):  # fmt: skip
                delattr(module, name)
    sys.platform = "darwin"
    proxies = ModuleType("_scproxy")
    proxies._get_proxies = proxies._get_proxy_settings = dict  # type: ignore[attr-defined]
    sys.modules["_scproxy"] = proxies
    found = ctypes.CDLL.__getattr__

    def attribute(self: ctypes.CDLL, name: str) -> object:
        if name in FUNCTIONS:
            raise AttributeError(f"dlsym: symbol not found: {name}")
        return found(self, name)

    ctypes.CDLL.__getattr__ = attribute  # type: ignore[method-assign]
    sys.addaudithook(refuse)


def refuse(event: str, told: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and str(told[0]).startswith(FOLDERS):
        raise FileNotFoundError(2, "No such file or directory", str(told[0]))


if __name__ == "__main__":
    take_away()
    sys.argv = sys.argv[1:]
    sys.path[0] = ""
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
