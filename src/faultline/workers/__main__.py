"""The process that forks workers, and how each of them starts.

Called as `python -I -S -c BOOT ... PLACEHOLDER` with a SOCK_SEQPACKET unix(7) socket as standard
input. A packet on it is a request, {module, mark}: with three descriptors (a socket, a pipe, a
network namespace) a worker is forked, without any the module is loaded and no more. It ends when
the other end of the socket is closed, or when nothing was asked for a while.

A worker writes its mark over the placeholder, which is what undo finds it by, says so by a line on
its socket and reads a JSON order from it, which it does not get if its spawner died meanwhile. One
line of JSON is the answer: `{"ready": ...}` once the effect is there, or `{"error": ...}`. The
kernel's own timer sends SIGKILL at the deadline (timer_create(2) on CLOCK_BOOTTIME), also to a
stopped or hung worker. An order that names a `target`, {pid, start}, ends with that process.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import socket
import sys
from contextlib import suppress
from typing import Any

from faultline.errors import FaultlineError
from faultline.kernel import syscalls
from faultline.workers import lifetime

IDLE = 60.0  # seconds without a request after which the helper ends
_LONGEST = 1 << 16  # bytes of a request


def main() -> None:
    """Serve requests; never returns in a worker."""
    if os.fork():
        os._exit(0)  # the helper is a child of nobody, who would have to wait for its end
    os.setsid()
    os.chdir("/")
    line = socket.socket(fileno=0)
    while select.select((line,), (), (), IDLE)[0]:
        said, fds, _, _ = socket.recv_fds(line, _LONGEST, 3, socket.MSG_CMSG_CLOEXEC)
        if not said:
            return
        request: dict[str, str] = json.loads(said)
        with suppress(ImportError):  # the worker complains
            importlib.import_module(f"faultline.workers.{request['module']}")
        if fds and _is_worker():
            _become(request, *fds)
        for fd in fds:
            os.close(fd)


def _is_worker() -> bool:
    """Fork; True in the worker, which is a child of nobody of ours."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return False
    if os.fork():
        os._exit(0)
    os.setsid()
    return True


def _become(request: dict[str, str], talk: int, complaints: int, network: int) -> None:
    """Take the order and carry it out; never returns."""
    if not os.path.samestat(os.fstat(network), os.stat("/proc/self/ns/net")):
        syscalls.setns(network, syscalls.Namespace.NET)
    for fd, number in ((talk, 0), (talk, 1), (complaints, 2)):
        os.dup2(fd, number)
    for fd in (talk, complaints, network):
        os.close(fd)
    syscalls.set_last_argument(request["mark"])
    os.write(1, b"{}\n")
    said = b""
    while chunk := os.read(0, 1 << 16):
        said += chunk
    if not said:
        os._exit(0)  # whoever asked has changed its mind, or died
    _work(request["module"], json.loads(said))


def _work(name: str, order: dict[str, Any]) -> None:
    syscalls.arm_kill_timer(order["deadline"])
    module = importlib.import_module(f"faultline.workers.{name}")
    syscalls.set_name(f"fl-{name}")
    try:
        lifetime.tie(order.get("target"))
        status = module.main(order["spec"], _ready)
    except (FaultlineError, OSError) as error:
        _say({"error": f"{type(error).__name__}: {error}"})
        status = 1
    sys.stdout.flush()
    os._exit(status)


def _ready(status: dict[str, Any]) -> None:
    """Tell the spawner that the effect is there, and let go of its socket."""
    _say({"ready": status})
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)


def _say(message: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(message).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return  # the spawner is gone; the keepers will end us


if __name__ == "__main__":
    main()
