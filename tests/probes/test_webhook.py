"""The webhook probe: what people and tools report to a run, from the command to the sample."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tests.cli.command import Cli

from faultline.api.document import parse
from faultline.api.experiment import Experiment
from faultline.api.model import Metadata
from faultline.api.probe import ProbeSpec
from faultline.api.run import Phase, Run, RunSpec, RunStatus
from faultline.api.signals import MOST, Signal
from faultline.engine.runs import Runs
from faultline.engine.signals import AHEAD, added, read_signal, record_signal
from faultline.errors import InvalidDocument, Refused, UnknownName, UsageError
from faultline.probes.prober import begin
from faultline.testing.sampling import examples

READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
NOW = 1_800_000_000.0
DOCUMENT = """
apiVersion: faultline.dev/v1alpha1
kind: Experiment
metadata: {name: people}
spec:
  title: Somebody notices
  hypothesis: {text: Somebody notices., probes: [calm]}
  probes:
    - {name: calm, type: command, command: ["true"]}
    - {name: noticed, type: webhook, signal: found, interval: 100ms, who: "^(ann|bob)$"}
    - {name: enough, type: webhook, signal: fixed, interval: 100ms, expect: "0"}
  guards: [enough]
  discovery: {probe: noticed, within: 90s}
  faults:
    - {name: file, fault: file.add, params: {path: PATH}, duration: 90s}
"""


def looked(signals: list[Signal] | None, **fields: Any) -> Any:
    spec = READ.validate_python({"name": "it", "type": "webhook", "signal": "found", **fields})
    with begin(spec, signals=None if signals is None else lambda: signals) as prober:
        return prober.measure()


def test_it_holds_from_the_moment_of_the_first_signal() -> None:
    other = Signal(name="fixed", at=NOW - 9)
    first = Signal(name="found", at=NOW - 5, who="ann", text="pages do not load")
    second = Signal(name="found", at=NOW - 2, who="bob")
    none = looked([other])
    assert (none.ok, none.value, none.since) == (False, 0.0, None)
    found = looked([other, second, first])
    assert (found.ok, found.value, found.since) == (True, 2.0, NOW - 5)
    assert found.text == "ann reported 'found': pages do not load"
    assert [each["who"] for each in found.result["signals"]] == ["ann", "bob"]
    assert looked([first, second], who="bob").since == NOW - 2
    assert looked([other], expect="0").ok is True, "the number alone decides"


def test_outside_of_a_run_there_are_none() -> None:
    assert looked(None).ok is None


@pytest.mark.parametrize(
    ("body", "who", "text"),
    [
        ({"who": "ann", "text": "here"}, "ann", "here"),
        ({"by": "ann", "message": "here"}, "ann", "here"),
        ({"user": {"name": "ann"}, "description": "here", "more": [1]}, "ann", "here"),
        ({"agent": {"summary": "ann"}, "title": "here"}, "ann", "here"),
        ({}, "", ""),
        (None, "", ""),
        ([1, 2], "", ""),
        ({"who": ["no"], "text": 3}, "", "3"),
    ],
)
def test_any_tool_can_report(body: Any, who: str, text: str) -> None:
    found = read_signal("found", body, NOW)
    assert (found.who, found.text, found.at) == (who, text, NOW)


def test_a_tool_may_know_the_moment_better() -> None:
    assert read_signal("found", {"at": NOW - 60}, NOW).at == NOW - 60
    for wrong in ("yesterday", True, [1]):
        with pytest.raises(InvalidDocument, match="at"):
            read_signal("found", {"at": wrong}, NOW)
    with pytest.raises(InvalidDocument, match="name"):
        read_signal("Not A Name", {}, NOW)
    assert len(read_signal("found", {"text": "x" * 9999}, NOW).text) == 2000


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=examples(40, 400), deadline=None)
@given(st.dictionaries(st.sampled_from(["who", "text", "id", "user", "summary", "x"]), JSON))
def test_no_body_is_an_error_of_ours(body: dict[str, Any]) -> None:
    found = read_signal("found", body, NOW)
    assert Signal.model_validate(found.to_json()) == found


def run_of(spec: Any, *signals: Signal, **status: Any) -> Run:
    return Run(
        metadata=Metadata(name="it"),
        spec=RunSpec(experiment="it", resolved=spec, signals=list(signals)),
        status=RunStatus(**status),
    )


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    text = DOCUMENT.replace("PATH", str(tmp_path / "added"))
    return Experiment.model_validate(parse(text, "people"))


def test_a_signal_is_kept_once_and_only_where_it_can_be(experiment: Experiment) -> None:
    spec, one = experiment.spec, Signal(name="found", at=NOW, id="7")
    run = added(run_of(spec), one, NOW)
    assert run.spec.signals == [one]
    assert added(run, one, NOW) is run
    assert added(run, one.model_copy(update={"at": NOW - 1}), NOW) is run, "delivered twice"
    twice = added(run, Signal(name="found", at=NOW, who="ann"), NOW)
    assert len(twice.spec.signals) == 2
    with pytest.raises(UsageError, match="in the future"):
        added(run, Signal(name="found", at=NOW + AHEAD + 1), NOW)
    with pytest.raises(UsageError, match="before the run"):
        added(run_of(spec, started=NOW), Signal(name="found", at=NOW - 1), NOW)
    with pytest.raises(UsageError, match="has ended"):
        added(run_of(spec, phase=Phase.ENDED), one, NOW)
    many = [Signal(name="found", at=NOW, id=str(n)) for n in range(MOST)]
    with pytest.raises(Refused, match="which is the most"):
        added(run_of(spec, *many), Signal(name="found", at=NOW), NOW)


def test_many_people_at_once_are_all_heard(experiment: Experiment, tmp_path: Path) -> None:
    with Runs(tmp_path / "state") as kept:
        name = kept.create(experiment).metadata.name
        with pytest.raises(UnknownName):
            record_signal(kept.store, "nobody", Signal(name="found", at=time.time()))

        def report(number: int) -> None:
            with Runs(tmp_path / "state") as mine:
                for _ in range(2):  # delivered twice
                    signal = Signal(name="found", at=time.time(), id=str(number))
                    record_signal(mine.store, name, signal)

        threads = [threading.Thread(target=report, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard = kept.get(name).spec.signals
        assert sorted(each.id for each in heard) == [str(number) for number in range(6)]
        assert kept.get(name).metadata.generation > 1, "people write the spec"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "state", -1)


@pytest.mark.needs_root
@pytest.mark.slow
def test_a_person_reports_to_a_run_that_is_under_way(
    cli: Cli, experiment: Experiment, tmp_path: Path
) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(DOCUMENT.replace("PATH", str(tmp_path / "added")))
    going: subprocess.Popen[str] = cli.start("run", str(file), "--no-report", "--format", "json")
    state = tmp_path / "state"
    try:
        name = _wait(lambda: _active(state), going)
        assert "reported by carl" in cli.ok("signal", "latest", "found", "--by", "carl")
        told = cli("signal", name, "found", "--by", "ann", "--ago", "100ms", "--format", "json")
        said = told.json()
        assert said["run"] == name
        _wait(lambda: _discovered(state, name), going)
        with Runs(state) as kept:
            record_signal(kept.store, name, Signal(name="fixed", at=time.time(), who="ann"))
        out, err = going.communicate(timeout=60)
    finally:
        going.kill()
        going.wait()
    assert going.returncode == 8, (out, err)
    assert "guard enough failed: ann reported 'fixed'" in out
    with Runs(state) as kept:
        run = kept.get(name)
    assert [each.who for each in run.spec.signals] == ["carl", "ann", "ann"]
    probe = next(each for each in run.status.probes if each.name == "noticed")
    held = [each for each in probe.samples if each.ok]
    assert held, "ann was heard, and carl is nobody who counts"
    assert {each.since for each in held} == {said["signal"]["at"]}
    assert run.status.discovered_at is not None
    late = cli("signal", name, "fixed")
    assert late.code == 2
    assert "has ended" in late.err


def _active(state: Path) -> str:
    with Runs(state) as kept:
        for run in kept.list():
            if run.status.faults and run.status.faults[0].effective_at is not None:
                return run.metadata.name
    return ""


def _discovered(state: Path, name: str) -> str:
    with Runs(state) as kept:
        return name if kept.get(name).status.discovered_at is not None else ""


def _wait(look: Callable[[], str], going: subprocess.Popen[str]) -> str:
    until = time.monotonic() + 60
    while not (found := look()):
        assert going.poll() is None, going.communicate()
        assert time.monotonic() < until, "no run is under way"
        time.sleep(0.1)
    return found
