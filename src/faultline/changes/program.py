"""Calling a program of somebody else: checked, confined, bounded in time and in what it says.

It is opened once and its content compared with the fingerprint that the plan was made with; what
runs is that open file. A call has a session of its own, which is ended with it: a program that is
to stay must leave it by setsid(2).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from faultline.changes import frozen
from faultline.changes.kind import Data
from faultline.changes.store import others_could_change
from faultline.errors import Refused, TargetGone
from faultline.kernel import files, procfs
from faultline.workers.confined import CALL

_SAID: Final = 65536  # bytes of an answer; more is a failure
TAIL: Final = 2000  # characters of output that a record keeps
_ROOM: Final = 32768  # bytes of a message: it fits into a pipe that nobody reads


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: the exit status (None: out of time), and what it wrote."""

    status: int | None
    out: str
    complaint: str

    @property
    def words(self) -> str:
        """What a person is told of a call that failed."""
        how = "did not end in time" if self.status is None else f"ended with {self.status}"
        said = (self.complaint or self.out).strip()[-TAIL:]
        return f"{how}: {said}" if said else how


def fingerprint(path: str) -> str:
    """The digest of a program's content; raises Refused for what is not a plain file."""
    fd = _open(path)
    try:
        return files.digest(fd)
    finally:
        os.close(fd)


def check(path: str, folder: str) -> None:
    """Raise Refused unless only the host's owner decides what lies at `path`, inside of `folder`.

    The folder is one in which the owner allows programs to be run as faults.
    """
    real, inside = os.path.realpath(path), os.path.realpath(folder)
    if not real.startswith(f"{inside}/"):
        raise Refused(
            f"{path} does not lie in {folder}",
            hint="programs are run from there only; FAULTLINE_PLUGINS names another folder",
        )
    if flaw := others_could_change(Path(real)):
        raise Refused(f"{path} is not run: {flaw}", hint="only its owner and root may write there")


def open_checked(path: str, folder: str, digest: str) -> int:
    """The program, open; raises TargetGone if it is gone or another one, Refused as `check`."""
    try:
        check(path, folder)
        fd = _open(path)
    except FileNotFoundError as error:
        raise TargetGone(f"the program {path} is gone") from error
    if not same(fd, digest):
        os.close(fd)
        raise TargetGone(f"the program {path} has changed since the fault was planned")
    return fd


def same(fd: int, digest: str) -> bool:
    """Whether an open program is still what it was."""
    return files.digest(fd) == digest


def _open(path: str) -> int:
    folder = files.open_folder(os.path.dirname(path))
    try:
        return files.open_regular(folder, os.path.basename(path))
    finally:
        os.close(folder)


def call(
    fd: int, argv: list[str], limits: Data, message: Data, environment: dict[str, str]
) -> Answer:
    """Run an open program with JSON on its standard input; its process group ends with the call."""
    data = json.dumps(message).encode() + b"\n"
    if len(data) > _ROOM:
        raise Refused(f"{len(data)} bytes are too much to tell a program")
    order = {"fd": fd, "argv": argv, "parent": os.getpid(), "limits": limits}
    code = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        frozen.command(code, "workers.confined", json.dumps(order)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment},
        pass_fds=(fd,),
        start_new_session=True,
    ) as process:
        try:
            return _exchange(process, data, limits["time"])
        finally:
            if process.returncode is None:
                end_session(process.pid)


def _exchange(process: subprocess.Popen[bytes], data: bytes, patience: float) -> Answer:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        os.write(process.stdin.fileno(), data)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it does not read what it is told: its own affair
    said: dict[int, bytes] = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    until = time.monotonic() + patience
    poller = select.poll()
    for each in said:
        poller.register(each, select.POLLIN)
    waiting, ended = set(said), os.pidfd_open(process.pid)
    poller.register(ended, select.POLLIN)
    status: int | None = None
    try:
        while waiting and (left := until - time.monotonic()) > 0:
            ready = [each for each, _ in poller.poll(left * 1000)]
            for each in (each for each in ready if each in said):
                chunk = os.read(each, 65536)
                said[each] = (said[each] + chunk)[-_SAID - 1 :]
                if not chunk:
                    poller.unregister(each)
                    waiting.discard(each)
            if ended in ready and not set(ready) & waiting:
                break  # what it left running may hold the pipes open
        if select.select([ended], [], [], max(0.0, until - time.monotonic()))[0]:
            end_session(process.pid)  # before it is waited for, so that its number is its own
            status = process.wait()
    finally:
        os.close(ended)
    out, complaint = (each.decode(errors="replace") for each in said.values())
    if len(out) > _SAID:
        return Answer(status or -1, "", f"it said more than {_SAID} bytes")
    return Answer(status, out, complaint)


def end_session(leader: int) -> None:
    """End what is left of a call: everything that has not left its process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return  # nothing is left


def end_calls(mark: str) -> int:
    """End what is still at work in calls with this mark, whose callers were killed."""
    count = 0
    for process in procfs.find_by_environment(CALL):
        named, _, session = procfs.environment(process.pid).get(CALL, "").rpartition(" ")
        try:
            if named == mark and session == str(os.getsid(process.pid)):
                process.id.send(signal.SIGKILL)
                process.id.wait(1.0)
                count += 1
        except ProcessLookupError:
            continue
    return count


def limits_of(**given: Any) -> Data:
    """Limits with what is not given: nobody's rights, the same namespaces, little memory."""
    usual: Data = {
        "user": os.geteuid(), "group": os.getegid(), "capabilities": [], "namespaces": 0,
        "memory": 256 << 20, "time": 10.0, "files": 256,
    }  # fmt: skip
    return {**usual, **given}
