"""Processes are stopped and continued by identity, and started again at most once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import marks
from faultline.changes.kind import Context
from faultline.changes.model import Presence, Undone
from faultline.changes.restart import Restart
from faultline.changes.signal import Signalled, Stopped
from faultline.errors import Refused, TargetGone
from faultline.kernel import clock, procfs


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    code = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def spec_of(process: subprocess.Popen[bytes], **more: Any) -> dict[str, Any]:
    start = procfs.ProcessId.of(process.pid).start
    return {"pid": process.pid, "start": start, "name": "python", **more}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context("u1", 0, clock.now() + 60 * 10**9, run=str(tmp_path / "run"))


def state(process: subprocess.Popen[bytes]) -> str:
    return procfs.process(process.pid).state


def wait_state(process: subprocess.Popen[bytes], wanted: str) -> None:
    until = time.monotonic() + 5
    while state(process) not in wanted:
        assert time.monotonic() < until
        time.sleep(0.002)


def test_a_stopped_process_goes_on(sleeper, ctx):
    kind, spec = Stopped(), spec_of(sleeper)
    prior = kind.capture(spec, ctx)
    kind.apply(spec, prior, ctx)
    wait_state(sleeper, "T")
    assert kind.presence(spec, prior, {}, ctx) is Presence.OURS
    assert kind.undo(spec, prior, {}, ctx).end is Undone.UNDONE
    wait_state(sleeper, "S")
    assert kind.presence(spec, prior, {}, ctx) is Presence.ABSENT
    assert kind.undo(spec, prior, {}, ctx).end is Undone.ABSENT


def test_somebody_who_was_stopped_before_is_refused(sleeper, ctx):
    sleeper.send_signal(signal.SIGSTOP)
    wait_state(sleeper, "T")
    with pytest.raises(Refused, match="already"):
        Stopped().capture(spec_of(sleeper), ctx)


def test_another_process_of_the_same_pid_is_never_continued(sleeper, ctx):
    sleeper.send_signal(signal.SIGSTOP)
    wait_state(sleeper, "T")
    spec = spec_of(sleeper)
    spec["start"] -= 1
    outcome = Stopped().undo(spec, {"boot": clock.boot_id()}, {}, ctx)
    assert outcome.end is Undone.GONE
    assert state(sleeper) == "T"


def test_a_stop_of_before_the_reboot_is_gone(sleeper, ctx):
    sleeper.send_signal(signal.SIGSTOP)
    wait_state(sleeper, "T")
    assert Stopped().undo(spec_of(sleeper), {"boot": "another"}, {}, ctx).end is Undone.GONE
    assert state(sleeper) == "T"


@pytest.mark.needs_root
def test_a_scan_finds_a_stop_without_a_journal(sleeper, ctx, monkeypatch):
    kind, spec = Stopped(), spec_of(sleeper)
    kind.apply(spec, kind.capture(spec, ctx), ctx)
    monkeypatch.setattr(marks, "folders", lambda: (f"{ctx.run}/marks",))
    (found,) = kind.scan(None, ())
    assert found.uid == "u1"
    assert kind.undo(found.change.spec, found.prior, {}, ctx).settled
    assert list(kind.scan(None, ())) == []


def test_a_signal_reaches_this_process_and_no_other(sleeper, ctx):
    kind, spec = Signalled(), spec_of(sleeper, signal=15)
    wrong = {**spec, "start": spec["start"] + 1}
    with pytest.raises(TargetGone):
        kind.capture(wrong, ctx)
    with pytest.raises(TargetGone):
        kind.apply(wrong, {}, ctx)
    assert sleeper.poll() is None
    kind.apply(spec, kind.capture(spec, ctx), ctx)
    assert sleeper.wait(5) == -15
    assert kind.undo(spec, {}, {}, ctx).end is Undone.ABSENT


def restart(*command: str, wait: float = 5.0) -> dict[str, Any]:
    return {"command": list(command), "wait": wait, "environment": {"WORD": "hello"}}


def test_the_command_is_run_once_and_its_output_kept(ctx, tmp_path):
    code = "import os, sys; open(sys.argv[1], 'a').write('x'); print(os.environ['WORD'])"
    kind, spec = Restart(), restart(sys.executable, "-c", code, str(tmp_path / "ran"))
    kind.apply(spec, kind.capture(spec, ctx), ctx)
    assert kind.presence(spec, {}, {}, ctx) is Presence.OURS
    outcome = kind.undo(spec, {}, {}, ctx)
    assert (outcome.end, "hello" in outcome.detail) == (Undone.UNDONE, True)
    assert kind.undo(spec, {}, {}, ctx).end is Undone.ABSENT
    assert (tmp_path / "ran").read_text() == "x"
    assert kind.presence(spec, {}, {}, ctx) is Presence.ABSENT
    assert list((tmp_path / "run" / "marks").iterdir()) == []


def test_a_command_that_fails_asks_for_a_person(ctx):
    spec = restart(sys.executable, "-c", "print('no such thing'); raise SystemExit(3)")
    Restart().apply(spec, {}, ctx)
    outcome = Restart().undo(spec, {}, {}, ctx)
    assert outcome.end is Undone.LEFT
    assert "ended with 3: no such thing" in outcome.detail
    assert outcome.commands == (tuple(spec["command"]),)


def test_a_command_that_stays_is_left_running_with_its_output_in_a_file(ctx):
    code = "import time; print('up', flush=True); time.sleep(60)"
    spec = restart(sys.executable, "-c", code, wait=1.0)
    Restart().apply(spec, {}, ctx)
    outcome = Restart().undo(spec, {}, {}, ctx)
    pid = int(outcome.detail.split("pid ")[1].split(",")[0])
    try:
        assert outcome.end is Undone.UNDONE
        assert os.getsid(pid) == pid
        log = Path(outcome.detail.split("output is in ")[1])
        assert log.read_text() == "up\n"
        assert log.stat().st_mode & 0o777 == 0o600
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_command_whose_runner_was_killed_is_not_run_again(ctx, tmp_path):
    spec = restart(sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'a').write('x')")
    Restart().apply(spec, {}, ctx)
    folder = Path(ctx.run) / "marks"
    (folder / ".faultline-u1-0.json").rename(folder / ".faultline-u1-0.running")
    outcome = Restart().undo(spec, {}, {}, ctx)
    assert outcome.end is Undone.LEFT
    assert not (tmp_path / "ran").exists()
    assert json.loads(json.dumps(outcome.commands)) == [list(spec["command"])]
