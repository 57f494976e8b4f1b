"""Runs in a cluster: an Experiment and a Run that names it, from `kubectl apply` to a verdict."""

from __future__ import annotations

import pytest
from tests.kube.operator.conftest import FAULTS, HALTS, VERSION, until
from tests.kube.runs.conftest import EXPERIMENTS, RUNS, Place, experiment

from faultline.kubeapi.model import metadata

pytestmark = pytest.mark.needs_apiserver


def test_a_run_that_names_an_experiment_is_carried_out(place: Place) -> None:
    place.bench.operate()
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.run("first", parameters={"latency": "200ms"})
    fault = until(lambda: place.faults())[0]
    assert fault["spec"]["params"] == {"latency": "200ms"}
    owner = metadata(fault)["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Run", "first")
    told = place.ended("first")
    assert (told["verdict"], told["reason"]) == ("held", told["reason"]), told
    (slow,) = told["faults"]
    assert (slow["effect"], slow["end"]) == ("effective", "recovered")
    assert "6 of 6 targets effective on 3 hosts" in slow["reading"]["measured"]
    assert slow["reading"]["values"]["targets"] == 6
    run = place.get("first")
    assert run["spec"]["resolved"]["faults"][0]["params"] == {"latency": "200ms"}
    assert metadata(run)["labels"]["experiment"] == "slow-web"
    until(lambda: not place.faults(), "the Fault is let go")
    assert place.bench.desired() == []
