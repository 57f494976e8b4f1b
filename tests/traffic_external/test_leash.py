"""How a tool is started, what it is given, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pwd import getpwnam

import pytest
from pydantic import ValidationError
from tests.traffic_external.around import alive, wait_for

from faultline.api.traffic import ExternalTraffic
from faultline.errors import ApplyFailed
from faultline.traffic.external.run import ExternalRun
from faultline.traffic.external.tool import Lines

Make = Callable[..., ExternalTraffic]

RATE = r"rate=(?P<rate>\d+)"
# Starts a child in another session that outlives it, says its figures, and will not hear of an end.
STUBBORN = """
import signal, subprocess, sys, time
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
loop = "import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", loop, sys.argv[1]], start_new_session=True)
while True:
    print("rate=7", flush=True)
    time.sleep(0.2)
"""


def stubborn(external: Make, word: str) -> ExternalTraffic:
    return external(sys.executable, "-c", STUBBORN, word, format="regex", pattern=RATE,
                    interval="200ms", timeout="100ms")  # fmt: skip


def test_it_ends_with_all_that_it_started(external: Make) -> None:
    word = uuid.uuid4().hex
    run = ExternalRun(stubborn(external, word)).start()
    assert wait_for(lambda: len(alive(word)) == 2)
    assert wait_for(lambda: run.snapshot(1).ok > 0)
    status = run.finish(0.1)
    assert alive(word) == []
    assert "was killed" in status.text
    assert status.totals is not None
    assert status.totals.ok > 0


def test_it_ends_with_our_process(external: Make) -> None:
    word = uuid.uuid4().hex
    code = (
        "import sys, time\n"
        "from faultline.api.traffic import ExternalTraffic\n"
        "from faultline.traffic.external.run import ExternalRun\n"
        "ExternalRun(ExternalTraffic.model_validate_json(sys.argv[1])).start()\n"
        "print('there', flush=True)\n"
        "time.sleep(600)\n"
    )
    source = str(Path(__file__).resolve().parents[2] / "src")
    spec = stubborn(external, word).model_dump_json(by_alias=True, exclude_unset=True)
    with subprocess.Popen(
        [sys.executable, "-c", code, spec],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    ) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == b"there\n"
        tools = lambda: [each for each in alive(word) if each.pid != engine.pid]  # noqa: E731
        assert wait_for(lambda: len(tools()) == 2)
        folder = Path(f"/proc/{tools()[0].pid}/cwd").readlink()
        engine.kill()
        assert wait_for(lambda: not tools())
    assert wait_for(lambda: not folder.exists())


def test_it_ends_when_what_holds_it_is_killed(external: Make) -> None:
    word = uuid.uuid4().hex
    run = ExternalRun(stubborn(external, word)).start()
    tool = run.pids[0]
    leash = next(each for each in alive(word) if each.pid == tool).ppid
    os.kill(leash, signal.SIGKILL)
    assert wait_for(lambda: tool not in [each.pid for each in alive(word)])
    for left in alive(word):  # this one is nobody's any more: nobody was left to hold it
        os.kill(left.pid, signal.SIGKILL)
    assert wait_for(lambda: not run.running)
    assert "was killed" in run.failure
    run.stop()


def test_it_ends_at_its_time(external: Make) -> None:
    word = uuid.uuid4().hex
    spec = stubborn(external, word).model_copy(update={"duration": None})
    run = ExternalRun(spec, most=500_000_000).start()
    assert run.wait(20)
    assert alive(word) == []
    run.stop()


SHOW = """
import json, os, sys
print(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "in": os.readlink("/proc/self/fd/0"),
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1], "uid": os.getuid(),
    "sig": sys.modules["signal"].getsignal(13).__str__() if "signal" in sys.modules else ""}),
    file=open("shown.json", "w"))
print("rate=5")
"""


def shown(run: ExternalRun, folder: Path) -> dict[str, object]:
    with run:
        assert run.wait(10)
    return json.loads((folder / "shown.json").read_text())


def test_its_environment_is_small_and_its_own(
    external: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTLINE_NOT_FOR_IT", "1")
    monkeypatch.setenv("THE_TOKEN", "sesame")
    env = {"GIVEN": "yes", "TOKEN": {"env": "THE_TOKEN"}}
    spec = external(sys.executable, "-S", "-c", SHOW, format="regex", pattern=RATE, env=env,
                    cwd=str(tmp_path))  # fmt: skip
    seen = shown(ExternalRun(spec), tmp_path)
    found = dict(seen["env"])  # type: ignore[call-overload]
    assert set(found) <= {"PATH", "LANG", "HOME", "GIVEN", "TOKEN", "LC_CTYPE"}
    assert (found["GIVEN"], found["TOKEN"]) == ("yes", "sesame")
    assert seen["cwd"] == str(tmp_path)
    assert seen["in"] == os.devnull
    assert seen["fds"] == [0, 1, 2]  # and that of the listing itself


@pytest.mark.needs_root
def test_it_runs_as_another_user(external: Make) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        spec = external("/usr/bin/python3", "-S", "-c", SHOW, format="regex", pattern=RATE,
                        cwd=folder, user="nobody")  # fmt: skip
        seen = shown(ExternalRun(spec), Path(folder))
    assert seen["uid"] == getpwnam("nobody").pw_uid


def test_a_file_of_figures_is_read_as_it_grows(external: Make) -> None:
    code = (
        "import time\n"
        "with open('figures.txt', 'w', buffering=1) as file:\n"
        "    for _ in range(40):\n"
        "        print('rate=10', file=file)\n"
        "        time.sleep(0.1)\n"
    )
    spec = external(sys.executable, "-c", code, format="regex", pattern=RATE, interval="100ms",
                    results="figures.txt")  # fmt: skip
    run = ExternalRun(spec).start()
    assert wait_for(lambda: len(run.seconds()) >= 2)
    status = run.finish(0.5)
    assert status.seconds[1].ok == pytest.approx(10, abs=3)
    assert status.text == ""


def test_what_cannot_be_started_says_why(external: Make, tmp_path: Path) -> None:
    for words, wanted in (
        (("no-such-tool",), "there is no program 'no-such-tool' in "),
        ((str(tmp_path / "not"),), "No such file or directory"),
        (("/etc/passwd",), "/etc/passwd could not be started: .*Permission denied"),
    ):
        with pytest.raises(ApplyFailed, match=wanted):
            ExternalRun(external(*words, format="wrk")).start()
    with pytest.raises(ApplyFailed, match="no user 'nobody-here'"):
        ExternalRun(external("true", format="wrk", user="nobody-here")).start()
    with pytest.raises(ApplyFailed, match="no variable NOT_THERE"):
        ExternalRun(external("true", format="wrk", env={"A": {"env": "NOT_THERE"}})).start()
    with pytest.raises(ApplyFailed, match="/not/there"):
        ExternalRun(external("true", format="wrk", cwd="/not/there")).start()


def test_how_it_failed_is_told_with_its_last_lines(external: Make) -> None:
    code = "import sys; print('rate=1'); print('it hurts', file=sys.stderr); sys.exit({})"
    with pytest.raises(ApplyFailed, match="ended with exit code 3: it hurts"):
        ExternalRun(external(sys.executable, "-c", code.format(3), format="wrk")).start()
    spec = external(sys.executable, "-c", code.format(3), format="regex", pattern=RATE)
    for wanted, failure in ((3, ""), ("any", ""), (0, "ended with exit code 3: it hurts")):
        run = ExternalRun(spec.model_copy(update={"code": wanted}))
        with suppress(ApplyFailed):  # it has ended before it was seen to begin
            run.start()
        assert run.wait(10)
        assert run.failure.endswith(failure)
        assert bool(run.failure) == bool(failure)
        run.stop()
    with pytest.raises(ApplyFailed, match=r"nothing that .* said was understood as wrk: it hurts"):
        ExternalRun(external(sys.executable, "-c", code.format(0), format="wrk")).start()
    signalled = "import os; os.kill(os.getpid(), 11)"
    with pytest.raises(ApplyFailed, match="was ended by SIGSEGV"):
        ExternalRun(external(sys.executable, "-c", signalled, format="wrk")).start()


def test_lines_are_cut_and_bounded() -> None:
    lines = Lines()
    assert lines.feed(b"one\rtwo\r\nthr") == ["one", "two"]
    assert lines.feed(b"ee\n") == ["three"]
    long = [each for _ in range(5) for each in lines.feed(b"x" * 50_000)]
    assert [len(each) for each in long] == [65536]
    assert lines.feed(b"y\nnext\nlast") == ["next"]
    assert lines.feed(b"") == ["last"]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"format": "regex"}, "pattern with format regex"),
        ({"format": "wrk", "pattern": "x"}, "pattern with format regex"),
        ({"format": "regex", "pattern": "(?P<rate>"}, "to be a regular expression"),
        ({"format": "regex", "pattern": "(?P<speed>x)"}, "not speed"),
        ({"format": "regex", "pattern": "(?P<p50>x)"}, "a group named rate, ok or errors"),
        ({"format": "wrk", "fields": {"rate": "x"}}, "fields only with format json-lines"),
        ({"format": "json-lines", "fields": {"p50": "x"}}, "rate, ok or errors among fields"),
        ({"format": "wrk", "rate": 5.0}, "expected no rate"),
        ({"format": "wrk", "command": []}, "at least 1 item"),
        ({"format": "wrk", "command": ["a\0b"]}, "NUL"),
    ],
)
def test_documents_that_make_no_sense(
    external: Make, fields: dict[str, object], wanted: str
) -> None:
    given = {"type": "external", "name": "load", "command": ["x"], **fields}
    with pytest.raises(ValidationError, match=wanted):
        ExternalTraffic.model_validate(given)
