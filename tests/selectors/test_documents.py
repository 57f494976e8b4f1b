"""Selectors in documents: what plug-ins take, what is refused, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faultline.api import admission
from faultline.api.document import Problem
from faultline.api.experiment import Experiment
from faultline.api.selector import Selector
from faultline.api.target import TargetSpec
from faultline.engine import wiring
from faultline.injection import choosing

PLUGIN = """#!/bin/sh
cat > /dev/null
echo '{"targets": [{"container": "a"}, {"container": "b"}], "rest": [{"container": "c"}]}'
"""
MANIFEST = """
kind = "selector"
name = "pair"
summary = "Two of three"
executable = "pair.sh"
[parameters.group]
type = "text"
help = "Of which group."
pattern = "[a-z]+"
[[examples]]
group = "shop"
"""
DOCUMENT = {
    "apiVersion": "faultline.dev/v1alpha1", "kind": "Experiment", "metadata": {"name": "chosen"},
    "spec": {
        "title": "t", "hypothesis": {"text": "h", "probes": ["p"]},
        "probes": [{"name": "p", "type": "tcp", "host": "h", "port": 1}],
    },
}  # fmt: skip


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pair.toml").write_text(MANIFEST)
    (tmp_path / "pair.sh").write_text(PLUGIN)
    (tmp_path / "pair.sh").chmod(0o755)
    monkeypatch.setenv("FAULTLINE_PLUGINS", str(tmp_path))


def plugged(params: dict[str, Any], **fields: Any) -> Selector:
    return Selector.model_validate({"plugin": {"name": "pair", "params": params}, **fields})


@pytest.mark.needs_root
@pytest.mark.usefixtures("pair")
def test_a_plug_in_chooses_and_names_the_control_group() -> None:
    found = choosing.choose("it", plugged({"group": "shop"}), "s")
    assert [each.target.container for each in found.targets] == ["a", "b"]
    assert [each.target.container for each in found.rest] == ["c"]
    one = choosing.choose("it", plugged({"group": "shop"}, mode="one"), "s")
    assert (len(one.targets), len(one.rest)) == (1, 2)


def checked(selector: object, **fields: Any) -> list[Problem]:
    fault = {"fault": "network.delay", "params": {"interface": "eth0", "latency": "1s"}, **fields}
    spec: Any = DOCUMENT["spec"]
    faults = [{"name": "f", "selector": selector, **fault}]
    return admission.problems({**DOCUMENT, "spec": {**spec, "faults": faults}}, wiring.check_fault)


@pytest.mark.usefixtures("pair")
def test_a_document_is_refused_by_the_path_of_the_field() -> None:
    here = "spec.faults.0.selector"
    assert checked({"containers": {"name": "shop-*"}, "mode": "all"}) == []
    assert [one.path for one in checked({"containers": {"nam": "x"}})] == [f"{here}.containers.nam"]
    plugin: dict[str, Any] = {"name": "pair", "params": {"group": "7"}}
    assert [one.path for one in checked({"plugin": plugin})] == [f"{here}.plugin.params.group"]
    assert [one.path for one in checked({"plugin": {"name": "nobody"}})] == [f"{here}.plugin.name"]
    both = checked({"containers": {}}, target={"pid": 7})
    assert [one.path for one in both] == ["spec.faults.0"]
    assert "expected at most one of target and selector" in both[0].expected


def test_a_search_takes_a_selector_and_says_what_is_wrong_with_it() -> None:
    spec: Any = DOCUMENT["spec"]
    fault: Any = {"fault": "network.delay", "params": {"interface": "lo"}, "duration": "1m",
                  "selector": {"containers": {}, "mode": "all"}}  # fmt: skip
    search = {"parameter": "latency", "low": "1ms", "high": "1s", "probes": ["p"]}
    nodes = [{"name": "s", "type": "search", "fault": fault, "search": search}]
    given = {**DOCUMENT, "spec": {**spec, "nodes": nodes}}
    made = admission.resolve(given, {})
    assert made.to_json()["spec"]["nodes"][0]["fault"]["selector"]["mode"] == "all"
    fault["selector"] = {"plugin": {"name": "nobody"}}
    told = [one.path for one in admission.problems(given, wiring.check_fault)]
    assert "spec.nodes.0.fault.selector.plugin.name" in told


def test_an_experiment_keeps_its_selectors() -> None:
    spec: Any = DOCUMENT["spec"]
    asked = {"processes": {"pattern": "shop"}, "mode": "fixed-percent", "percent": "50%"}
    faults = [{"name": "f", "fault": "cpu.burn", "selector": asked}]
    made = Experiment.model_validate({**DOCUMENT, "spec": {**spec, "faults": faults}})
    assert Experiment.model_validate(made.to_json()) == made
    assert made.spec.faults[0].target == TargetSpec()
