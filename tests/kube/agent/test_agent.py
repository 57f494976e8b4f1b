"""An agent against a real API server, with real faults on processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.kube.agent.conftest import (
    HOSTS,
    LEASES,
    NAMESPACE,
    SRC,
    Crew,
    entry,
    keepers,
    listening,
    sleeping,
    sockets_of,
    state_of,
    until,
)

from faultline.agent.child import Child, Programs, Request
from faultline.kernel import memory

pytestmark = [pytest.mark.needs_apiserver, pytest.mark.needs_root]


def test_an_entry_is_injected_measured_and_undone(crew: Crew, victim: int) -> None:
    crew.start()
    crew.want(entry("hang-1", "process.stop", pid=victim))
    told = crew.measured("hang-1")
    assert state_of(victim) == "T"
    assert told["stage"] == "active"
    assert (told["asked"], told["measured"]) == (1, 1)
    assert told["injectedAt"] <= told["effectiveAt"]
    crew.want()
    told = crew.stage("hang-1", "ended")
    assert told["end"] == "recovered"
    assert state_of(victim) != "T"
    status = crew.host()["status"]
    assert {each["type"]: each["status"] for each in status["conditions"]}["Ready"] == "True"
    assert status["observedGeneration"] == crew.host()["metadata"]["generation"]
    assert status["bootId"]
    assert status["kernel"] == os.uname().release
    held = crew.client.get(LEASES, f"agent-{crew.node}", NAMESPACE)["spec"]
    assert held["holderIdentity"].startswith(crew.node)
    crew.kill(signal.SIGTERM)
    held = crew.client.get(LEASES, f"agent-{crew.node}", NAMESPACE)["spec"]
    assert not held.get("holderIdentity")


def test_what_cannot_be_injected_says_why(crew: Crew) -> None:
    crew.start()
    crew.want(
        entry("gone-1", "process.stop", _target={"pid": 2**22 - 1}),
        entry("guarded-1", "process.stop", pid=1),
        entry("unknown-1", "process.nonsense"),
        entry("late-1", "process.stop", pid=1, _askedAt=time.time() - 3600),
        entry("bad-1", "process.stop", pid="many"),
    )
    assert "no process" in crew.stage("gone-1", "refused")["error"]
    assert "1" in crew.stage("guarded-1", "refused")["error"]
    assert "nonsense" in crew.stage("unknown-1", "refused")["error"]
    assert "duration" in crew.stage("late-1", "refused")["error"]
    assert "pid" in crew.stage("bad-1", "refused")["error"]
    assert not crew.records()


def test_killed_and_started_again_it_goes_on(crew: Crew, victim: int) -> None:
    with sleeping() as other:
        crew.start()
        kept, gone = (
            entry("kept-1", "process.stop", pid=victim),
            entry("gone-2", "process.stop", pid=other),
        )
        crew.want(kept, gone)
        crew.measured("kept-1")
        crew.measured("gone-2")
        crew.kill()
        crew.want(kept)  # nobody hears it
        time.sleep(0.5)
        assert state_of(other) == "T"
        crew.start()
        assert crew.stage("gone-2", "ended")["end"] == "recovered"
        assert state_of(other) != "T"
        assert state_of(victim) == "T"
        assert crew.actual("kept-1")["stage"] == "active"
        assert len(crew.records()) == 2


def test_keepers_undo_when_the_agent_is_killed(crew: Crew, victim: int) -> None:
    with sleeping() as other:
        crew.start("--lease", "4s", "--renew", "1s")
        crew.want(
            entry("leased-1", "process.stop", pid=victim),
            entry("survives-1", "process.stop", pid=other, _survives=True),
        )
        crew.measured("leased-1")
        crew.measured("survives-1")
        crew.kill()
        until(lambda: state_of(victim) != "T", 8.0, "the keepers did not undo it")
        assert state_of(other) == "T"
        until(lambda: str(crew.records()["leased-1"].end) == "recovered")
        assert "lease" in crew.records()["leased-1"].note
        crew.start("--lease", "4s", "--renew", "1s")
        told = crew.stage("leased-1", "ended")
        assert "lease" in told["note"]
        assert crew.stage("survives-1", "active")
        time.sleep(2)  # it is wanted still, and not injected again
        assert state_of(victim) != "T"
        crew.want(entry("leased-2", "process.stop", pid=victim))
        crew.measured("leased-2")  # asked for anew


@pytest.mark.slow
def test_a_stopped_agent_is_not_waited_for(crew: Crew, victim: int) -> None:
    crew.start("--lease", "4s", "--renew", "1s")
    crew.want(entry("leased-3", "process.stop", pid=victim))
    crew.measured("leased-3")
    assert crew.process is not None
    crew.process.send_signal(signal.SIGSTOP)
    until(lambda: state_of(victim) != "T", 8.0, "the keepers did not undo it")
    crew.process.send_signal(signal.SIGCONT)
    assert crew.stage("leased-3", "ended")["end"] == "recovered"


def test_the_api_server_is_cut_off(crew: Crew, victim: int) -> None:
    """It goes on within the lease, undoes everything behind it, and reports when it is back."""
    with sleeping() as other:
        crew.start("--lease", "5s", "--renew", "1s")
        crew.want(
            entry("cut-1", "process.stop", pid=victim),
            entry("cut-2", "process.stop", pid=other, _survives=True),
        )
        crew.measured("cut-1")
        crew.measured("cut-2")
        with crew.server.stopped():
            time.sleep(2.5)
            assert state_of(victim) == "T"
            until(lambda: state_of(victim) != "T", 8.0, "the lease has ended")
            assert state_of(other) == "T"
        told = crew.stage("cut-1", "ended")
        assert told["end"] == "recovered"
        assert "lease" in told["note"]
        assert crew.actual("cut-2")["stage"] == "active"


def test_faults_of_the_command_line_are_left_alone(crew: Crew, victim: int) -> None:
    from faultline.injection.injector import Injector
    from faultline.injection.plan import Order

    with sleeping() as other:
        with Injector(crew.state) as injector:
            injector.inject(Order("process.stop", {"pid": other}, uid="by-hand"))
        crew.start()
        crew.want(
            entry("mine-1", "process.stop", pid=victim),
            entry("by-hand", "process.stop", pid=victim),
        )
        crew.measured("mine-1")
        assert "no agent made" in crew.stage("by-hand", "refused")["error"]
        crew.want()
        crew.stage("mine-1", "ended")
        assert state_of(other) == "T"
        crew.kill(signal.SIGTERM)
        assert state_of(other) == "T"


def test_told_to_end_it_undoes_everything(crew: Crew, victim: int) -> None:
    crew.start()
    crew.want(entry("end-1", "process.stop", pid=victim))
    crew.measured("end-1")
    crew.kill(signal.SIGTERM)
    assert state_of(victim) != "T"
    told = crew.actual("end-1")
    assert (told["stage"], told["end"]) == ("ended", "recovered")


@pytest.mark.slow
def test_halted_and_deleted(crew: Crew, victim: int) -> None:
    crew.start()
    crew.want(entry("halt-1", "process.stop", pid=victim))
    crew.measured("halt-1")
    crew.want(
        entry("halt-1", "process.stop", pid=victim),
        entry("halt-2", "process.stop", pid=victim),
        halted="a drill went wrong",
    )
    assert crew.stage("halt-1", "ended")["end"] == "recovered"
    assert "a drill went wrong" in crew.stage("halt-2", "refused")["error"]
    crew.want(entry("halt-3", "process.stop", pid=victim), halted=None)
    crew.measured("halt-3")
    crew.client.delete(HOSTS, crew.node)
    until(lambda: state_of(victim) != "T", words="nobody wants it any more")
    assert crew.stage("halt-3", "ended")["end"] == "recovered"  # in the Host that was made anew


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5])
def test_killed_at_any_step(crew: Crew, victim: int, pause: float) -> None:
    """The agent and what works for it, while it injects: the next one knows what came of it."""
    crew.start()
    until(crew.host)
    crew.want(entry("step-1", "process.stop", pid=victim))
    time.sleep(pause)
    helpers = _children(crew.process.pid) if crew.process else []
    crew.kill()
    for pid in helpers:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    crew.start()
    told = crew.stage("step-1", "active", "ended")
    if told["stage"] == "active":
        assert state_of(victim) == "T"
    crew.want()
    crew.stage("step-1", "ended")
    assert state_of(victim) != "T"


def _children(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in done.stdout.split()]


def test_only_one_agent_of_a_store(crew: Crew) -> None:
    crew.start()
    until(crew.host)
    first = crew.process
    crew.start()
    assert crew.process is not None
    assert crew.process.wait(20) == 3
    assert "runs already" in crew.log.read_text()
    crew.process = first


def test_marks_that_no_journal_knows_are_told_and_left_alone(crew: Crew) -> None:
    words = [sys.executable, "-c", "import time; time.sleep(100)", "faultline:lost-1:0"]
    lost = subprocess.Popen(words)
    try:
        crew.start()
        until(lambda: (crew.host().get("status") or {}).get("unwanted"))
        told = crew.host()["status"]
        assert any(each.startswith("lost-1: ") for each in told["unwanted"])
        clean = next(each for each in told["conditions"] if each["type"] == "Clean")
        assert (clean["status"], clean["reason"]) == ("False", "UnknownMarks")
        assert lost.poll() is None
    finally:
        lost.kill()
        lost.wait()


def test_what_is_marked_to_be_undone(crew: Crew, victim: int) -> None:
    """As the operator does it: undone, told, taken out."""
    crew.start()
    asked = entry("mark-1", "process.stop", pid=victim)
    crew.want(asked)
    crew.measured("mark-1")
    crew.want({**asked, "undo": True}, {**asked, "uid": "mark-2", "undo": True})
    assert crew.stage("mark-1", "ended")["end"] == "recovered"
    assert crew.stage("mark-2", "ended")["end"] == "nothing to undo"
    assert state_of(victim) != "T"


def test_what_works_here_is_tried_in_a_process_that_ends(tmp_path: Path) -> None:
    programs = Programs(str(SRC), sys.executable, str(tmp_path / "state"))
    helper = Child(programs.whole("trying"), idle=0.0)
    helper.ask(Request("try"), {"faults": ["process.stop", "kernel.panic"]})
    ((_, answer),) = until(helper.read, 60)
    assert answer["done"]["capabilities"] == [{"fault": "process.stop", "works": True}]
    until(lambda: helper.tidy() is None)
    assert helper.fileno() == -1


@pytest.mark.slow
def test_nothing_listens_and_little_is_loaded(crew: Crew) -> None:
    crew.start()
    until(lambda: (crew.host().get("status") or {}).get("runtimes") is not None)
    crew.settled()
    assert crew.process is not None
    pid = crew.process.pid
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert memory.process_memory(pid).proportional < 17 << 20
    assert not [each for each in listening() if each in sockets_of(pid)]
    assert "pydantic" not in maps
    assert "sqlite" not in maps
    assert not keepers(crew.state)
