"""command, log and process on real programs and files."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.api.probe import Measurement, ProbeBase
from faultline.probes.prober import Prober

Measure = Callable[..., Measurement]
Probe = Callable[..., Prober[ProbeBase]]


def test_a_command_gives_the_first_number_that_it_prints(measure: Measure) -> None:
    found = measure("command", command=["echo", "v2 load: -1.5e1 of 30"])
    assert found.ok is True
    assert found.value == -15.0
    assert found.result == {"code": 0, "output": "v2 load: -1.5e1 of 30\n"}


def test_without_a_number_the_exit_code_is_the_value(measure: Measure) -> None:
    found = measure("command", command=["sh", "-c", "exit 3"])
    assert (found.ok, found.value) == (False, 3.0)
    assert "exit code 3, expected 0" in found.text
    assert measure("command", command=["sh", "-c", "exit 3"], code=3).ok is True
    assert measure("command", command=["sh", "-c", "exit 3"], code="any").ok is True


def test_nothing_goes_through_a_shell(measure: Measure, tmp_path: Path) -> None:
    found = measure("command", command=["echo", "$HOME; touch here | *"], cwd=str(tmp_path))
    assert found.result["output"] == "$HOME; touch here | *\n"
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_small_and_clean(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    found = measure("command", command=["env"], env={"GIVEN": "1"})
    names = {line.partition("=")[0] for line in found.result["output"].splitlines()}
    assert names == {"PATH", "LANG", "HOME", "GIVEN"}


@pytest.mark.needs_root
def test_a_command_runs_as_the_user_that_was_named(measure: Measure) -> None:
    nobody = pwd.getpwnam("nobody")
    assert measure("command", command=["id", "-u"], user="nobody").value == nobody.pw_uid
    assert measure("command", command=["id", "-G"], user="nobody").value == nobody.pw_gid
    assert measure("command", command=["id"], user="no-such-user").ok is None


def test_a_program_that_is_not_there_is_unmeasured(measure: Measure, tmp_path: Path) -> None:
    assert measure("command", command=["no-such-program"]).ok is None
    assert measure("command", command=["true"], cwd=str(tmp_path / "no")).ok is None


def test_a_command_that_takes_too_long_is_ended_with_its_children(measure: Measure) -> None:
    mark = f"61.{os.getpid()}"
    found = measure(
        "command", command=["sh", "-c", f"sleep {mark} & sleep {mark}"], timeout="300ms"
    )
    assert found.ok is False
    assert "did not end within 0.3 s" in found.text
    time.sleep(0.2)
    left = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and mark.encode() in path.read_bytes()
    ]
    assert left == []


def test_output_is_bounded_and_does_not_hold_the_command_up(measure: Measure) -> None:
    code = "import sys\nfor _ in range(200): sys.stdout.write('x' * 10000)"
    found = measure("command", command=[sys.executable, "-c", code], timeout="30s")
    assert found.ok is True
    assert len(found.result["output"]) == 64 * 1024


def test_a_flood_of_output_ends_at_the_limit(measure: Measure) -> None:
    begun = time.monotonic()
    assert measure("command", command=["yes"], timeout="400ms").ok is False
    assert time.monotonic() - begun < 5


def test_something_left_in_the_background_is_not_waited_for(measure: Measure) -> None:
    begun = time.monotonic()
    found = measure("command", command=["sh", "-c", "sleep 8 & echo $!"], timeout="20s")
    assert found.value is not None
    os.kill(int(found.value), 9)
    assert found.ok is True
    assert time.monotonic() - begun < 7


def test_the_pattern_is_looked_for_in_the_output(measure: Measure) -> None:
    assert measure("command", command=["echo", "state: up"], pattern=r"state:\s+up$").ok is True
    assert measure("command", command=["echo", "state: down"], pattern="up$").ok is False


def test_a_log_counts_what_is_new_and_matches(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("ERROR old\n")
    log = probe("log", path=str(path), pattern="ERROR")
    assert log.measure().value == 0
    with path.open("a") as file:
        file.write("ERROR one\nfine\nERROR tw")
        file.flush()
        found = log.measure()
        assert (found.value, found.ok) == (1, True)
        assert "ERROR one" in found.text
        file.write("o\n")
    assert log.measure().value == 2  # the line whose end was missing counts once
    assert log.measure().value == 2


def test_a_log_is_followed_over_rotation(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    log = probe("log", path=str(path), pattern="ERROR")
    log.measure()
    with path.open("a") as old:
        old.write("ERROR 1\n")
        old.flush()
        path.rename(tmp_path / "log.1")
        assert log.measure().value == 1
        old.write("ERROR 2\nERROR 3")  # the program has not reopened it yet
    path.write_text("ERROR 4\n")
    assert log.measure().value == 4
    path.unlink()
    assert log.measure().value == 4
    path.write_text("ERROR 5\n")
    assert log.measure().value == 5


@pytest.mark.parametrize("after", ["ERROR new\n", "ERROR new and longer than what was there\n"])
def test_a_log_that_is_emptied_in_place_is_read_from_its_start(
    probe: Probe, tmp_path: Path, after: str
) -> None:
    path = tmp_path / "log"
    path.write_text("")
    log = probe("log", path=str(path), pattern="ERROR")
    with path.open("a") as file:
        file.write("ERROR 1, fairly long\n")
    assert log.measure().value == 1
    with path.open("w") as file:
        file.write(after)
    assert log.measure().value == 2


def test_a_log_gives_a_rate(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    log = probe("log", path=str(path), pattern="x", count_as="rate")
    log.measure()
    begun = time.monotonic()
    path.write_text("x\n" * 10)
    time.sleep(0.5)
    found = log.measure()
    assert found.value is not None
    assert 0 < found.value <= 10 / 0.5
    assert found.value >= 10 / (time.monotonic() - begun + 0.3)
    assert log.measure().value == 0


def test_a_log_that_does_not_exist_is_unmeasured_until_it_does(
    probe: Probe, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    log = probe("log", path=str(path), pattern="x")
    found = log.measure()
    assert found.ok is None
    assert "does not exist" in found.text
    path.write_text("x\n")
    assert log.measure().value == 1


def test_very_long_lines_and_binary_rubbish_are_read_in_bounded_pieces(
    probe: Probe, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    log = probe("log", path=str(path), pattern="END")
    path.write_bytes(b"\xff\x00" * 1_000_000 + b"\nEND\n")
    assert log.measure().value == 1


@pytest.fixture
def program() -> subprocess.Popen[bytes]:
    """A process of our own that burns a core and holds 40 MiB."""
    code = "x = b'y' * (40 << 20)\nprint('go', flush=True)\nwhile True: pass"
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"burner-{os.getpid()}"], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_processes_are_counted_by_pattern(
    measure: Measure, program: subprocess.Popen[bytes]
) -> None:
    pattern = f"burner-{os.getpid()}"
    found = measure("process", pattern=pattern)
    assert (found.ok, found.value) == (True, 1)
    assert found.result["pids"] == [program.pid]
    program.kill()
    program.wait()
    gone = measure("process", pattern=pattern)
    assert (gone.ok, gone.value) == (False, 0)
    assert measure("process", pattern=pattern, expect="0").ok is True  # absence may be wanted
    assert measure("process", pattern=pattern, measure="rss").ok is False


def test_memory_and_processor_use_are_those_of_the_process(
    probe: Probe, program: subprocess.Popen[bytes]
) -> None:
    held = probe("process", pid=program.pid, measure="rss").measure()
    assert held.value is not None
    assert 40 << 20 <= held.value < 200 << 20
    busy = probe("process", pid=program.pid, measure="cpu")
    before = os.times()
    time.sleep(0.5)
    found = busy.measure()
    assert found.value is not None
    # Other work shares the cores: at least something, at most one core and a tick at either end.
    assert 0.05 < found.value <= 1.0 + 0.02 / (os.times().elapsed - before.elapsed)


def test_a_log_tells_several_patterns_apart(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    patterns = {"error": "ERROR", "slow": r"took \d{4}ms"}
    log = probe("log", path=str(path), patterns=patterns, ignore="health")
    path.write_text("ERROR took 1234ms\nERROR\nERROR health\nfine\ntook 5000ms\n")
    found = log.measure()
    assert found.value == 3
    assert found.result["counts"] == {"error": 2, "slow": 2}
    assert "2 error, 2 slow" in found.text


def test_a_file_gives_its_size_its_age_and_its_matches(measure: Measure, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\nERROR two\nERROR three")
    os.utime(path, (time.time() - 60, time.time() - 60))
    file = {"path": str(path)}
    assert measure("file", **file).value == 1
    assert measure("file", **file, measure="size").value == 25
    age = measure("file", **file, measure="age").value
    assert age is not None
    assert 60 <= age < 90
    found = measure("file", **file, measure="matches", pattern="^ERROR")
    assert (found.ok, found.value, found.result["line"]) == (True, 2, "ERROR three")
    assert measure("file", **file, pattern="ERROR").ok is True
    assert measure("file", **file, pattern="FATAL").ok is False
    assert measure("file", **file, pattern="FATAL", measure="matches", expect="0").ok is True
    assert measure("file", **file, pattern="FATAL", largest="10B").ok is None


def test_a_file_that_is_not_there(measure: Measure, tmp_path: Path) -> None:
    file = {"path": str(tmp_path / "no" / "file")}
    assert (measure("file", **file).ok, measure("file", **file).value) == (False, 0)
    assert measure("file", **file, expect="0").ok is True  # absence may be wanted
    gone = measure("file", **file, measure="size")
    assert (gone.ok, gone.value) == (False, None)
    assert "does not exist" in gone.text


def test_a_pipe_and_a_device_are_not_searched(measure: Measure, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (str(pipe), "/dev/zero"):
        assert measure("file", path=path).value == 1
        assert measure("file", path=path, pattern="x").ok is None


def test_a_file_that_takes_too_long_is_left_behind(probe: Probe, tmp_path: Path) -> None:
    """A large file of short lines: the search is given up at the limit."""
    path = tmp_path / "file"
    path.write_bytes(b"x\n" * 3_000_000)
    file = probe("file", path=str(path), pattern="y", timeout="20ms")
    begun = time.monotonic()
    found = file.measure()
    assert found.ok is False
    assert "within 0.02 s" in found.text
    assert time.monotonic() - begun < 3


def test_a_command_gets_secrets_by_reference_and_nobody_sees_them(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "quite secret")
    found = measure(
        "command", command=["sh", "-c", 'echo "$P"; exit 3'], env={"P": {"env": "A_SECRET"}}
    )
    assert found.result["output"] == "***\n"
    assert "secret" not in found.model_dump_json()


def test_a_log_goes_on_where_an_engine_that_died_had_read(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x\n")
    first = probe("log", path=str(path), pattern="x")
    with path.open("a") as file:
        file.write("x 1\nx 2\nhalf of x")
        file.flush()
        kept = first.measure().keep
        file.write(" 3\nx 4\n")
    later = probe("log", path=str(path), pattern="x")
    later.recall(json.loads(json.dumps(kept)))
    assert later.measure().value == 4
    path.unlink()
    path.write_text("x\n" * 3)
    rotated = probe("log", path=str(path), pattern="x")
    rotated.recall(kept)
    assert rotated.measure().value == 5
