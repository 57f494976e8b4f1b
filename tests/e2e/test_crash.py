"""The engine of a run is killed at some point of its life, with real faults and real traffic.

Whatever happens: its generators end by themselves, no fault outlives its deadline, nothing is left,
and `faultline run --resume` comes to a verdict.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from scene import Program, Scene

from faultline.api.run import Phase, Run
from faultline.changes.model import State

pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.slow, pytest.mark.quiet,
]  # fmt: skip

Record = Callable[[str, object], None]

# The word after which the engine is killed; what the verdict may be when the run goes on. An
# injection under way is adopted if the journal has it as complete, else undone and said to be.
POINTS = {
    "phase        steady state": {"held"},
    "phase        injection": {"held", "error"},
    "effective    ": {"held"},
    "phase        recovery": {"held"},
}


def killed(scene: Scene, words: str, **changes: object) -> float:
    """Start the experiment and kill its engine; the moment of its death."""
    program = scene.command("run", scene.experiment(**changes))
    program.until(words)
    died = program.kill()
    print(program.text)
    took = scene.wait(lambda: not scene.generators(), 10)
    print(f"the generators ended {took:.2f} s after the engine's death")
    return died


def resumed(scene: Scene) -> Program:
    program = scene.command("run", "--resume")
    status = program.end()
    print(program.text)
    if status == 8 and "could not be measured" in program.text:
        pytest.skip("the machine is too busy for a guard to be measured once a second")
    assert status in (0, 1, 4), program.text
    return program


def blind(run: Run, since: float) -> bool:
    """Whether nobody measured for as long as makes a probe blind: on a busy machine an engine takes
    seconds to start, and what it did not see it does not call `held`.
    """
    probe = next(each for each in run.spec.resolved.probes if each.name == "fast-enough")
    seen = next(each.samples for each in run.status.probes if each.name == "fast-enough")
    after = [each.at for each in seen if each.ok is not None and each.at > since]
    return not after or after[0] - since >= probe.blind_count * probe.interval.seconds


@pytest.mark.parametrize("words", POINTS, ids=lambda words: "-".join(words.split()))
def test_a_run_whose_engine_was_killed_comes_to_a_verdict_and_leaves_nothing(
    scene: Scene, words: str
) -> None:
    killed(scene, words)
    died = time.time()
    name = scene.run.metadata.name
    assert scene.run.status.phase is not Phase.ENDED
    resumed(scene)
    run = scene.run
    allowed = POINTS[words] | ({"not measured"} if blind(run, died) else set())
    assert run.metadata.name == name, "it is the same run"
    assert run.status.phase is Phase.ENDED
    assert run.status.resumed == 1
    assert run.status.verdict in allowed, run.status.reason
    assert scene.fault.end in ("recovered", None)
    assert scene.fault.residue == []
    assert len([a for a in run.status.actions if a.kind == "inject"]) == 1
    assert len(scene.records) <= 1, "it is injected once, or not at all"
    assert scene.left() == []
    assert scene.round_trip() < 0.1
    scene.nothing_outlived_its_deadline()
    assert scene.command("run", "--resume").end() == 2, "there is nothing left to go on with"


def test_an_engine_that_is_killed_again_and_again_still_comes_to_a_verdict(scene: Scene) -> None:
    slow = {"interface": "lo", "latency": "100ms"}
    longer = {"name": "delay", "fault": "network.delay", "duration": "8s", "params": slow}
    killed(scene, "injecting", faults=[longer], cooldown="3s")
    for pause in (0.6, 0.9, 1.2):
        program = scene.command("run", "--resume")
        program.until("resumed")
        time.sleep(pause)
        program.kill()
    assert scene.run.status.phase is not Phase.ENDED
    resumed(scene)
    assert scene.run.status.resumed == 4
    assert scene.run.status.verdict in ("held", "not measured", "error"), scene.run.status.reason
    assert len(scene.records) <= 1
    assert scene.left() == []
    scene.nothing_outlived_its_deadline()


def test_a_fault_whose_engine_is_gone_ends_at_its_deadline_and_the_run_can_still_be_ended(
    scene: Scene, record_property: Record
) -> None:
    died = killed(scene, "effective")
    slow = scene.round_trip()
    assert slow > 0.15, "it outlives its engine"
    scene.wait(lambda: scene.round_trip() < slow / 2, 20)
    quick = time.monotonic()
    assert scene.left() == []
    record = scene.records[0]  # looked at only now: until here nobody ran anything of ours
    assert record.state is State.ENDED
    assert str(record.end) == "recovered"
    scene.nothing_outlived_its_deadline()
    record_property("seconds from the engine's death to the end", round(quick - died, 2))
    print(f"gone {quick - died:.2f} s after the engine's death; the fault was for 3 s and 5 s more")

    program = resumed(scene)
    assert "ended already" in program.text or "ended while" in program.text
    assert scene.run.status.phase is Phase.ENDED
    assert scene.fault.end == "recovered"
    assert scene.left() == []


def test_two_engines_cannot_carry_out_one_run(scene: Scene) -> None:
    program = scene.command("run", scene.experiment())
    program.until("effective")
    second = scene.command("run", "--resume")
    assert second.end() == 3, second.text
    assert re.search(rf"carried out by process {program.process.pid}\b", second.text)
    assert program.end() == 0, program.text
