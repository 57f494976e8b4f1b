"""What is typed wrongly, what comes back, and the exit code of each end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from tests.cli.command import SOURCES, Cli

SETPRIV = shutil.which("setpriv") or ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["injct"], "did you mean inject?"),
        (["inject", "netwrk"], "did you mean network?"),
        (["inject", "network", "dely"], "did you mean delay?"),
        (["plan", "network.dely"], "did you mean delay?"),
        (["inject", "network", "delay", "--latncy", "1s"], "Did you mean '--latency'?"),
        (["inject", "network", "delay"], "--latency is required"),
        (["explain", "network", "dely"], "did you mean delay?"),
        (["explain", "netwrk"], "did you mean network?"),
        (["faults", "netwrk"], "did you mean network?"),
        (["doctor", "netwrk"], "did you mean network?"),
        (["doctor", "file.ad"], "did you mean file.add"),
        (["recover"], "exactly one of UID, --all, --scan"),
        (["recover", "x", "--all"], "exactly one of UID, --all, --scan"),
        (["recover", "nobody"], "no fault with uid 'nobody'"),
        (["query", "nobody"], "list them: faultline query"),
        (["query", "--state", "actve"], "active"),
        (["run"], "an experiment's FILE, or --resume"),
        (["run", "/nowhere.yaml"], "/nowhere.yaml"),
        (["run", "--resume"], "there is no run to resume"),
        (["report"], "there are no runs"),
        (["apply", "/nowhere.json"], "/nowhere.json"),
    ],
)
def test_a_wrong_word_is_answered_with_what_is_right(
    typed: Cli, words: list[str], said: str
) -> None:
    answer = typed(*words)
    assert answer.code == 2, answer
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-l", "2"], "latency: '2' is not accepted; expected a duration with a unit (ns, us, ms"),
        (["-l", "2h"], "expected 1us to 1h"),
        (["-l", "2parsecs"], "a duration with a unit"),
        (["-l", "1s", "-j", "5"], "jitter: '5' is not accepted"),
        (["-l", "1s", "-c", "10"], "a percentage with its sign, such as 10%"),
        (["-l", "1s", "-c", "100%"], "expected 0% to 99%"),
        (["-l", "1s", "-t", "10"], "duration: '10' is not accepted"),
        (["-l", "1s", "-t", "8d"], "100ms to 7d"),
        (["-l", "1s", "-d", "sideways"], "'sideways' is not one of 'out', 'in', 'both'"),
        (["-l", "1s", "-i", "nosuch0"], "interface: 'nosuch0' is not accepted; expected one of"),
        (["-l", "1s", "--uid", "a b"], "2 to 63 letters, digits"),
        (["-l", "1s", "--destination-port", "70000"], "1 to 65535"),
    ],
)
def test_a_bad_value_is_refused_with_its_field_and_bounds(
    typed: Cli, words: list[str], said: str
) -> None:
    answer = typed("plan", "network", "delay", *words)
    assert answer.code == 2, answer
    assert said in answer.err
    if words[0] == "-l" and len(words) == 2:
        assert "-l, --latency: How long every matching packet waits." in answer.err


def test_a_plan_that_cannot_be_saved_is_bad_input(typed: Cli, tmp_path: Path) -> None:
    words = ("plan", "file", "add", "--path", tmp_path / "made", "-o", "/nowhere/plan.json")
    answer = typed(*words)
    assert answer.code == 2
    assert "/nowhere/plan.json cannot be written: No such file or directory" in answer.err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_an_error_is_data_where_data_was_asked_for(typed: Cli, form: str) -> None:
    named = typed("query", "nobody", "--format", form)
    assert (named.code, named.out) == (2, "")
    assert {**named.error, "message": ""} == {
        "code": "unknown-name", "message": "", "hint": "list them: faultline query",
        "happened": "nothing", "retry": False,
    }  # fmt: skip
    assert typed("query", "--nonsense", f"--format={form}").error["code"] == "usage"


def test_a_state_folder_that_others_may_write_is_refused(typed: Cli) -> None:
    typed.state.mkdir(mode=0o700)
    typed.state.chmod(0o777)
    answer = typed("query", "--format", "json")
    typed.state.chmod(0o700)
    assert (answer.code, answer.error["code"]) == (3, "untrusted-store")


def test_a_state_folder_that_cannot_be_made_is_named(typed: Cli) -> None:
    answer = typed("--state", "/proc/nowhere/state", "query")
    assert answer.code == 2
    assert "/proc/nowhere" in answer.err
    assert "--state FOLDER" in answer.err


def test_a_journal_that_is_none_is_an_error_without_a_trace(typed: Cli) -> None:
    typed.state.mkdir(mode=0o700)
    (typed.state / "journal.db").write_text("this is no database\n" * 100)
    answer = typed("query")
    (typed.state / "journal.db").unlink()
    assert answer.code == 1
    assert "journal.db" in answer.err
    assert "Traceback" not in answer.err


def test_what_was_not_foreseen_says_what_to_do_and_exits_1(typed: Cli) -> None:
    code = (
        "import sys\nfrom faultline.cli import main, records\n"
        "sys.argv = ['faultline', 'query']\n"
        "def broken(*_): raise ZeroDivisionError('out of the blue')\n"
        "records.open_store = broken\nmain.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=typed.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "this was not foreseen: ZeroDivisionError: out of the blue" in done.stderr
    assert "faultline recover --all" in done.stderr


# Exit codes: 0, 2 and 130 are met above and in test_one_fault; 5 and 8 in test_experiments.


def test_exit_3_a_guard_refuses_and_names_its_override(typed: Cli) -> None:
    answer = typed("inject", "process", "stop", "--pid", "1")
    assert answer.code == 3
    assert "--allow pid-1" in answer.err


def test_exit_4_what_others_do_already_is_no_effect_of_ours(typed: Cli) -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-S", "-c", code]) as busy:
        try:
            answer = typed("inject", "cpu", "burn", "-p", "1%", "--cores", core)
        finally:
            busy.kill()
    assert answer.code == 4, answer
    assert "effect: already above" in answer.out
    assert "because: " in answer.out


def test_exit_6_what_somebody_else_changed_needs_a_person(typed: Cli, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("what was there\n")
    typed.ok("inject", "file", "delete", "--path", victim, "--uid", "mine")
    victim.write_text("somebody else was faster\n")
    answer = typed("recover", "mine")
    assert answer.code == 6, answer
    assert "mine: needs a person" in answer.out
    assert "by hand: " in answer.out
    assert victim.read_text() == "somebody else was faster\n"
    waiting = typed("query", "-s", "needs-a-person", "--format", "json").json()
    assert [each["uid"] for each in waiting] == ["mine"]
    victim.unlink()
    assert typed("recover", "mine").code == 0
    assert victim.read_text() == "what was there\n"


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.skipif(not SETPRIV, reason="needs setpriv: install util-linux")
def test_exit_7_without_rights_the_engines_say_what_is_missing(cli: Cli) -> None:
    bare = (SETPRIV, "--bounding-set=-all", "--inh-caps=-all")
    answer = cli("plan", "network", "loss", "-i", "lo", "-p", "10%", "--engine", "ebpf",
                 wrapper=bare)  # fmt: skip
    assert answer.code == 7, answer
    assert "engine ebpf does not work here" in answer.err
    assert "faultline doctor" in answer.err


def _python_of(user: tuple[str, ...]) -> str:
    """An interpreter of our version that this user may run and start again by itself: ours may
    lie in a folder that only root may enter.
    """
    again = "import subprocess, sys; subprocess.run([sys._base_executable, '-c', ''], check=True)"
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (sys.executable, shutil.which(name, path="/usr/local/bin:/usr/bin")):
        words = (*user, candidate or "false", "-c", again)
        if not subprocess.run(words, check=False, capture_output=True).returncode:
            return str(candidate)
    pytest.skip(f"no {name} that an ordinary user may run")


@pytest.mark.needs_userns
@pytest.mark.skipif(os.geteuid() != 0 or not SETPRIV, reason="needs root and setpriv")
def test_without_root_files_work_and_the_network_says_what_to_do(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = Path("/var/tmp") / f"faultline-user-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    user = (SETPRIV, "--reuid=65534", "--regid=65534", "--clear-groups")
    path = f"{SOURCES}:{sysconfig.get_paths()['purelib']}"
    cli = Cli(home / "state", -1, {"HOME": str(home), "PYTHONPATH": path}, _python_of(user))
    try:
        refused = cli("inject", "network", "loss", "-i", "lo", "-p", "1%", wrapper=user)
        assert refused.code == 7
        assert "you are not root" in refused.err
        made = cli("inject", "file", "add", "--path", home / "made", "--uid", "mine", wrapper=user)
        assert made.code == 0, made
        assert (home / "made").stat().st_uid == 65534
        assert cli("recover", "mine", wrapper=user).code == 0
        assert not (home / "made").exists()
        looked = cli("doctor", "file.add", wrapper=user)
        assert "works file.add" in looked.out
        assert "uid 65534" in looked.out
    finally:
        cli.kill_keepers()
        shutil.rmtree(home)
