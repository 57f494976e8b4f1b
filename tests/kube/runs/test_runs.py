"""Runs in a cluster: an Experiment and a Run that names it, from `kubectl apply` to a verdict."""

from __future__ import annotations

import time

import pytest
from tests.kube.operator.conftest import HALTS, VERSION
from tests.kube.runs.conftest import EXPERIMENTS, RUNS, SCHEDULES, Place, experiment, until

from faultline.kubeapi.model import Kind, metadata
from faultline.operator.caches import Caches

pytestmark = pytest.mark.needs_apiserver
MAPS = Kind("ConfigMap", "configmaps", "v1")


def test_a_run_that_names_an_experiment_is_carried_out(place: Place) -> None:
    place.bench.operate()
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.run("first", parameters={"latency": "200ms"})
    fault = until(place.faults)[0]
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


@pytest.mark.slow
def test_the_operator_that_dies_is_followed_by_one_that_goes_on(place: Place) -> None:
    first = place.bench.operate()
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.run("long", parameters={"length": "8s"})
    until(lambda: any(f["stage"] == "measured" for f in place.status("long").get("faults", [])),
          "its effect is measured")  # fmt: skip
    uids = {metadata(each)["uid"] for each in place.faults()}
    first.stop()
    place.bench.operate()
    told = place.ended("long")
    # What was not measured meanwhile is told, if it took long.
    assert told["verdict"] in ("held", "not measured"), told["reason"]
    assert {"resumed", "effective", "recovered"} <= set(place.events("long"))
    assert [each["end"] for each in told["faults"]] == ["recovered"]
    assert len(uids) == 1
    until(lambda: not place.faults())
    assert place.bench.agents is not None
    assert place.bench.agents.suffering() == 0


def test_a_run_that_waited_for_its_operator_finds_the_agents(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun before it is known which of them are alive."""
    look = Caches.look_at_leases

    def late(caches: Caches) -> None:
        if not caches.looked:
            time.sleep(2)
        look(caches)

    monkeypatch.setattr(Caches, "look_at_leases", late)
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.run("early")
    place.bench.operate()
    told = place.ended("early")
    assert told["verdict"] == "held", told["reason"]


@pytest.mark.slow
def test_a_run_that_is_deleted_leaves_no_fault(place: Place) -> None:
    place.bench.operate()
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.run("gone", parameters={"length": "60s"})
    until(lambda: any(f.get("status", {}).get("phase") == "active" for f in place.faults()))
    place.client.delete(RUNS, "gone", place.bench.namespace)
    until(lambda: not place.faults(), "its fault has gone", 40)
    assert place.bench.desired() == []


def test_abort_and_halt_undo_everything(place: Place) -> None:
    place.bench.operate()
    place.put(EXPERIMENTS, "slow-web", experiment())
    for name in ("aborted", "halted"):
        place.run(name, parameters={"length": "60s"})
    until(lambda: len([f for f in place.faults() if f.get("status", {}).get("effect")]) == 2)
    wish = {"spec": {"abort": "enough"}}
    place.client.patch(RUNS, "aborted", wish, namespace=place.bench.namespace)
    told = place.ended("aborted")
    assert (told["abortedBy"], told["faults"][0]["end"]) == ("user", "recovered")
    halt = {"apiVersion": VERSION, "kind": "Halt", "metadata": {"name": "stop"},
            "spec": {"reason": "the shop is down"}}  # fmt: skip
    place.client.create(HALTS, halt)
    told = place.ended("halted")
    assert (told["abortedBy"], told["faults"][0]["end"]) == ("halt", "recovered")
    assert "the shop is down" in told["aborted"]
    until(lambda: not place.faults())


def test_what_cannot_be_carried_out_ends_and_says_why(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faultline.engine.filling.PATIENCE", 0.0)
    place.bench.operate()
    place.run("nothing", "nowhere")
    command = {"name": "mine", "type": "command", "command": ["id"]}
    here = {"name": "here", "fault": "cpu.burn", "params": {"percent": "10%"}, "duration": "1s"}
    nobody = {"name": "none", "fault": "network.delay", "params": {"latency": "1ms"},
              "duration": "1s", "selector": {"pods": {"labels": {"app": "nobody"}}}}  # fmt: skip
    for name, fields in {
        "command": {"probes": [*experiment()["probes"], command]},
        "here": {"faults": [here]},
        "nobody": {"faults": [nobody]},
        "typo": {"faults": [{**nobody, "fault": "network.dealy"}]},
    }.items():
        place.put(EXPERIMENTS, name, experiment(**fields))
        place.run(name, name)
    said = {
        "nothing": "no stored experiment 'nowhere'",
        "command": "no probe of the operator's own machine",
        "here": "in a cluster nothing acts on the operator itself",
        "nobody": "none of the pods fits",
        "typo": "did you mean delay",
    }
    for name, words in said.items():
        told = place.ended(name)
        assert (told["verdict"], words in told["reason"]) == ("error", True), told["reason"]
    assert place.faults() == []


@pytest.mark.slow
def test_a_share_of_ready_pods_is_a_guard(place: Place) -> None:
    place.bench.operate()
    ready = {"name": "ready", "type": "kubernetes", "selector": "app=web", "share": True,
             "expect": "60%,", "interval": "200ms"}  # fmt: skip
    made = experiment(guards=["ready"], steadyState=["ready"], timeouts={"steadyState": "1s"})
    made["probes"].append(ready)
    place.put(EXPERIMENTS, "slow-web", made)
    place.ready(6)
    place.run("guarded", parameters={"length": "60s"})
    until(lambda: any(f.get("status", {}).get("effect") for f in place.faults()))
    place.ready(3)
    until(lambda: place.status("guarded").get("phase") == "cooldown")
    place.ready(6)
    told = place.ended("guarded")
    assert (told["abortedBy"], told["faults"][0]["end"]) == ("guard", "recovered"), told
    place.ready(3)
    place.run("refused")
    told = place.ended("refused")
    assert "before the faults these did not hold: ready" in told["stopped"]
    assert [each["stage"] for each in told["faults"]] == ["ended"]
    assert "injectedAt" not in told["faults"][0]


@pytest.mark.slow
def test_a_schedule_makes_runs(place: Place) -> None:
    place.bench.operate()
    place.put(EXPERIMENTS, "slow-web", experiment())
    place.put(SCHEDULES, "often", {"experiment": {"name": "slow-web"}, "when": {"every": "2s"},
                                   "concurrency": "forbid"})  # fmt: skip
    until(lambda: [each for each in place.client.every(RUNS, place.bench.namespace)
                   if (each.get("status") or {}).get("verdict") == "held"],
          "a run of the schedule has ended", 60)  # fmt: skip
    place.client.delete(SCHEDULES, "often", place.bench.namespace)


def test_a_fault_of_objects_is_one_of_a_run_too(place: Place) -> None:
    place.bench.operate()
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop"},
            "data": {"mode": "calm"}}  # fmt: skip
    place.client.create(MAPS, made, place.bench.namespace)
    selector = {"objects": {"kind": "ConfigMap", "name": "shop"}}
    fault = {"name": "wild", "fault": "config.value", "params": {"key": "mode", "value": "wild"},
             "duration": "5s", "selector": selector}  # fmt: skip
    place.put(EXPERIMENTS, "wild", experiment(faults=[fault]))
    place.run("objects", "wild")

    def mode() -> str:
        return place.get("shop", MAPS)["data"]["mode"]

    until(lambda: mode() == "wild")
    told = place.ended("objects")
    assert told["verdict"] == "held", told["reason"]
    assert [(each["effect"], each["end"]) for each in told["faults"]] == [
        ("effective", "recovered")
    ]
    assert mode() == "calm"
