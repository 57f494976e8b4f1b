"""Experiments of the store are run by name, with parameters of any type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from faultline.api.experiment import Experiment
from faultline.engine import schedule_edits, stored
from faultline.engine.batch import Batch, rows_of
from faultline.engine.runs import Runs
from faultline.engine.schedules import make_run
from faultline.errors import InvalidDocument, InvalidParameter, UnknownName

LADDER = """
apiVersion: faultline.dev/v1alpha1
kind: Experiment
metadata: {name: ladder, labels: {team: shop}}
spec:
  title: "Up to ${latency}"
  parameters:
    latency: {type: duration, default: 100ms}
    often: {type: integer, default: 2}
    url: {type: string, default: "http://shop.test/"}
    interface: {type: string}
  hypothesis: {text: it answers, probes: [answers]}
  probes: [{name: answers, type: http, url: "${url}", interval: "${latency}"}]
  nodes:
    - name: rounds
      type: repeat
      times: "${often}"
      nodes:
        - name: slow
          type: fault
          fault: network.delay
          params: {interface: "${interface}", latency: "${latency}"}
          duration: 1m
"""
OUTER = """
apiVersion: faultline.dev/v1alpha1
kind: Experiment
metadata: {name: outer}
spec:
  title: Another one inside
  hypothesis: {text: it answers, probes: [answers]}
  probes: [{name: answers, type: http, url: "http://shop.test/"}]
  nodes:
    - {name: inner, type: experiment, experiment: ladder, parameters: {interface: eth1, often: 3}}
"""
SCHEDULE = """
apiVersion: faultline.dev/v1alpha1
kind: Schedule
metadata: {name: nightly}
spec:
  experiment: ladder
  parameters: {interface: eth0, latency: 300ms}
  when: {every: 1d}
"""


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    with Runs(tmp_path / "state", check_fault=lambda *_: []) as runs:
        for number, text in enumerate((LADDER, OUTER, SCHEDULE)):
            file = tmp_path / f"{number}.yaml"
            file.write_text(text)
            schedule_edits.apply(runs.store, schedule_edits.read(file), lambda *_: [])
        yield runs


def named(runs: Runs, name: str, **values: Any) -> Experiment:
    return runs.named(Path(name), values)[0]


def test_values_of_any_type_go_into_a_stored_experiment(kept: Runs) -> None:
    found = named(kept, "ladder", latency="250ms", often="3", interface="eth0").spec
    assert found.title == "Up to 250ms"
    assert str(found.probes[0].interval) == "250ms"
    names = [node.name for node in found.nodes[0].nodes]  # type: ignore[union-attr]
    assert names == ["rounds.1", "rounds.2", "rounds.3"]
    run = kept.create(named(kept, "ladder", interface="eth0"), {"interface": "eth0"})
    assert run.metadata.labels == {"team": "shop", "experiment": "ladder"}
    assert run.spec.resolved.title == "Up to 100ms"


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({}, InvalidParameter, "interface"),
        ({"interface": "e", "often": "many"}, InvalidParameter, r"parameters\.often"),
        ({"interface": "e", "latency": "7"}, InvalidParameter, r"parameters\.latency"),
        ({"interface": "e", "latncy": "7s"}, UnknownName, "latncy"),
        ({"interface": "e", "often": 5000}, InvalidDocument, r"nodes\.0\.times"),
    ],
)
def test_what_it_does_not_take_is_refused_by_name(
    kept: Runs, values: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        named(kept, "ladder", **values)


def test_a_name_that_nobody_knows_says_what_there_is(kept: Runs) -> None:
    with pytest.raises(UnknownName, match="no stored experiment 'lader'") as caught:
        named(kept, "lader")
    assert "ladder" in caught.value.hint
    with pytest.raises(InvalidDocument, match="cannot be read"):
        named(kept, "lader.yaml")


def test_schedules_batches_and_other_experiments_take_them_too(kept: Runs, tmp_path: Path) -> None:
    schedule = kept.store.get(schedule_edits.Schedule, "nightly")
    made = make_run(kept.store, schedule, "nightly-1", lambda *_: [])
    assert made.spec.resolved.title == "Up to 300ms"
    outer = kept.create(named(kept, "outer"))
    assert len(outer.spec.children["inner"].resolved.nodes[0].nodes) == 3  # type: ignore[union-attr]

    def opened() -> Runs:
        return Runs(tmp_path / "state", check_fault=lambda *_: [])

    rows = rows_of("latency=1s,2s")
    batch = Batch(opened, Path("ladder"), {"interface": "eth0"}, rows)
    assert [each.spec.title for _, each in batch._todo] == ["Up to 1s", "Up to 2s"]


def test_what_is_stored_reads_as_any_other_document(kept: Runs) -> None:
    found = kept.store.get(Experiment, "ladder")
    assert found.spec.title == "Up to 100ms"
    assert stored.document(found)["spec"] == yaml.safe_load(LADDER)["spec"]
    again = schedule_edits.apply(
        kept.store, [stored.keepable(yaml.safe_load(LADDER), "l")], lambda *_: []
    )
    assert again[0].what == "unchanged"


def test_what_cannot_be_read_without_a_value_needs_a_default() -> None:
    data = yaml.safe_load(LADDER)
    data["spec"]["parameters"]["url"] = {"type": "string"}
    with pytest.raises(InvalidDocument, match=r"spec\.parameters\.url\.default"):
        stored.keepable(data, "ladder")
