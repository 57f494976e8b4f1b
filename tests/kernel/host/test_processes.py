"""Processes by identity, by name, by argument, by port, and what they use."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.errors import InvalidParameter
from faultline.kernel import cpustat, memory, procfs, procnet
from faultline.kernel.procfs import ProcessId
from faultline.kernel.procnet import Connection, Transport

pytestmark = pytest.mark.both_kernels

SLEEP = "import sys, time; print(flush=True); time.sleep(60)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-I", "-S", "-c", SLEEP, "faultline:t-procs:7", "needle in hay"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={"MARK": "here"}) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_an_identity_is_pid_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    one = ProcessId.of(sleeper.pid)
    assert one.alive()
    assert one == ProcessId.of(sleeper.pid)
    assert not ProcessId(one.pid, one.start + 1).alive()
    assert not ProcessId(one.pid, one.start + 1).send(signal.SIGKILL)
    assert one.alive()
    with pytest.raises(ProcessLookupError):
        ProcessId(one.pid, one.start + 1).open()


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    one = ProcessId.of(sleeper.pid)
    assert not one.wait(0)
    assert one.send(signal.SIGTERM)
    assert one.wait(5)
    assert not one.alive()  # it was not waited for: a zombie
    sleeper.wait()
    assert not one.alive()
    assert not one.send(signal.SIGTERM)
    assert one.wait(0)


def test_a_process_is_read_with_its_arguments(sleeper: subprocess.Popen[bytes]) -> None:
    found = procfs.process(sleeper.pid)
    assert found.cmdline[1:] == tuple(sleeper.args[1:])  # type: ignore[index]
    assert (found.ppid, found.uid) == (os.getpid(), os.geteuid())
    assert found.state in "RS"
    assert found.id in [each.id for each in procfs.children(os.getpid())]
    assert os.path.realpath(sys.executable) == procfs.executable(sleeper.pid)


def test_a_name_with_brackets_and_blanks_is_read() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "w") as file:
            file.write("a) R 1 (b")
        os.write(writer, b"x")
        time.sleep(30)
        os._exit(0)
    os.read(reader, 1)
    try:
        assert procfs.process(pid).name == "a) R 1 (b"
        assert [each.pid for each in procfs.find_by_name("a) R 1 (b")] == [pid]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reader)
        os.close(writer)


def test_a_command_line_is_searched_but_not_the_searcher(sleeper: subprocess.Popen[bytes]) -> None:
    assert [each.pid for each in procfs.find_by_cmdline(r"needle in h.y$")] == [sleeper.pid]
    own = " ".join(procfs.process(os.getpid()).cmdline)[-20:]
    assert os.getpid() not in [each.pid for each in procfs.find_by_cmdline(re.escape(own))]
    assert os.getpid() in [each.pid for each in procfs.find_by_cmdline(re.escape(own), exclude=())]


def test_a_mark_is_found_whole(sleeper: subprocess.Popen[bytes]) -> None:
    for text in ("faultline:t-procs:7", "faultline:t-procs", "faultline"):
        assert sleeper.pid in [each.pid for each in procfs.find_marked(text)], text
    for text in ("faultline:t-proc", "faultline:t-procs:70", "t-procs:7"):
        assert sleeper.pid not in [each.pid for each in procfs.find_marked(text)], text


def test_an_environment_is_searched(sleeper: subprocess.Popen[bytes]) -> None:
    assert [each.pid for each in procfs.find_by_environment("MARK", "here")] == [sleeper.pid]
    assert procfs.find_by_environment("MARK", "elsewhere") == []


def test_ancestors_end_at_init(sleeper: subprocess.Popen[bytes]) -> None:
    line = procfs.ancestors(sleeper.pid)
    assert line[0] == os.getpid()
    assert line[-1] == 1
    assert procfs.ourselves() >= {os.getpid(), os.getppid()}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("transport", list(Transport))
def test_who_holds_a_port_is_found(family: socket.AddressFamily, transport: Transport) -> None:
    kind = socket.SOCK_STREAM if transport is Transport.TCP else socket.SOCK_DGRAM
    with socket.socket(family, kind) as held:
        held.bind(("", 0))
        if transport is Transport.TCP:
            held.listen()
        port = held.getsockname()[1]
        assert [each.pid for each in procnet.find_by_port(port, transport)] == [os.getpid()]
        other = Transport.UDP if transport is Transport.TCP else Transport.TCP
        assert procnet.find_by_port(port, other) == []
    assert procnet.find_by_port(port, transport) == []


@pytest.mark.parametrize("variable", [True, False])
def test_the_connection_of_an_ancestor_is_the_callers_session(variable: bool) -> None:
    """An accepted socket of a parent counts, as sshd's does; so does the variable."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        us, them = client.getsockname(), server.getsockname()
        text = f"{us[0]} {us[1]} {them[0]} {them[1]}"
        code = "import time; time.sleep(60)"
        environ = {"SSH_CONNECTION": text} if variable else {}
        if variable:
            accepted.close()
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], env=environ)
        try:
            deadline = time.monotonic() + 10
            while not procfs.process(child.pid).cmdline[1:] and time.monotonic() < deadline:
                time.sleep(0.01)
            found = procnet.caller_connections(child.pid)
            assert Connection(us[0], us[1], them[0], them[1]) in found
            # The other end is a connection that we made: nobody came in over it.
            assert Connection(them[0], them[1], us[0], us[1]) not in found
        finally:
            child.kill()
            child.wait()
            accepted.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1 5 10.0.0.2 22", Connection("10.0.0.1", 5, "10.0.0.2", 22)),
        ("::ffff:10.0.0.1 5 ::ffff:10.0.0.2 22", Connection("10.0.0.1", 5, "10.0.0.2", 22)),
        ("fe80::1%eth0 5 fe80::2%eth0 22", Connection("fe80::1", 5, "fe80::2", 22)),
        ("somebody 5 else 22", None),
        ("", None),
        ("10.0.0.1 5 10.0.0.2", None),
    ],
)
def test_ssh_connections_are_read(text: str, expected: Connection | None) -> None:
    assert procnet.parse_ssh_connection(text) == expected


@given(st.sets(st.integers(0, 300)))
def test_core_lists_survive_writing_and_reading(cores: set[int]) -> None:
    assert cpustat.parse_cores(cpustat.format_cores(cores)) == sorted(cores)


@pytest.mark.parametrize("text", ["a", "3-1", "1--2", "-1", "1-", "99999999"])
def test_nonsense_is_no_core_list(text: str) -> None:
    with pytest.raises(InvalidParameter):
        cpustat.parse_cores(text)


def test_a_busy_core_reads_busy() -> None:
    core = min(os.sched_getaffinity(0))
    before = cpustat.core_times()
    pid = os.fork()
    if pid == 0:
        os.sched_setaffinity(0, {core})
        while True:
            pass
    time.sleep(1)
    used = cpustat.used_between(before, cpustat.core_times(), [core])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert used > 80


def test_time_that_steps_back_counts_as_nothing() -> None:
    step = cpustat.CoreTimes(5, 9) - cpustat.CoreTimes(3, 10)
    assert (step.busy, step.idle, step.percent) == (2, 0, 100)


def test_memory_of_a_process_is_counted() -> None:
    before = memory.process_memory(os.getpid())
    data = bytearray(os.urandom(32 << 20))
    after = memory.process_memory(os.getpid())
    assert len(data) * 0.99 <= after.resident - before.resident <= len(data) * 1.1
    assert memory.host_memory().used >= len(data)
    with pytest.raises(ProcessLookupError):
        memory.process_memory(2**22 + 1)


def test_a_refused_oom_score_is_an_error_here_and_not_at_close() -> None:
    pid = os.fork()
    if pid == 0:
        memory.set_oom_score_adj(500)  # raising it is always allowed
        ok = memory.oom_score_adj() == 500
        try:
            memory.set_oom_score_adj(-1000)
            ok = ok and memory.oom_score_adj() == -1000
        except PermissionError:
            ok = ok and memory.oom_score_adj() == 500
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
