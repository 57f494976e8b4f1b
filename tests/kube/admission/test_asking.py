"""Who may ask for what: the webhook of a running operator, and its own look before it acts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import pytest
from tests.kube.admission.conftest import DELAY, World, gone, unhooked, until
from tests.kube.operator.conftest import FAULTS, HALTS, PODS

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults import webhooks
from faultline.operator.admission.requesters import ANNOTATION

pytestmark = pytest.mark.needs_apiserver
FAULT_RULES = [{"apiGroups": ["faultline.dev"], "resources": ["*"], "verbs": ["*"]}]
PODS_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}]
EXPERIMENT: Object = {
    "title": "x", "hypothesis": {"text": "x", "probes": ["up"]},
    "probes": [{"name": "up", "type": "http", "url": "http://127.0.0.1:1/"}],
    "faults": [{"name": "slow", **DELAY}],
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(world: World) -> Generator[World]:
    """An operator that serves its webhook."""
    world.operate()
    with world.nodes(2):
        yield world


@pytest.fixture(scope="module")
def anna(asked: World) -> Generator[Client]:
    """She may create Faults, and delete no pods but those of her own namespace."""
    asked.account("anna", FAULT_RULES)
    with closing(asked.as_user("anna")) as client:
        yield client


@pytest.fixture(scope="module")
def hers(asked: World, anna: Client) -> str:
    space = asked.space("hers")
    asked.allow("anna", PODS_RULES, space)
    return space


def test_what_is_wrong_is_told_by_its_path_as_validate_tells_it(asked: World) -> None:
    space = asked.space("shop")
    said = asked.refused(
        lambda: asked.make("Fault", "bad", {**DELAY, "params": {"latency": "9"}}, space)
    )
    assert (said.status, said.reason) == (422, "Invalid")
    assert "spec.params.latency: '9' is not accepted; expected" in said.message
    assert dict(said.causes)["spec.params.latency"].startswith("expected a duration")
    typo = asked.refused(
        lambda: asked.make("Fault", "bad", {**DELAY, "fault": "network.dealy"}, space)
    )
    assert "did you mean delay" in typo.message
    wrong = {**EXPERIMENT, "hypothesis": {"text": "x", "probes": ["down"]}}
    said = asked.refused(lambda: asked.make("Experiment", "bad", wrong, space))
    assert "spec.hypothesis.probes.0" in said.message
    asked.make("Experiment", "good", EXPERIMENT, space)
    when = {"every": "1h"}
    said = asked.refused(
        lambda: asked.make("Schedule", "bad", {
            "experiment": {"name": "x", "spec": {**EXPERIMENT, "guards": ["no"]}}, "when": when
        }, space)
    )  # fmt: skip
    assert "spec.experiment.spec.guards.0" in said.message
    traffic = {"type": "http", "name": "x", "url": "nowhere"}
    assert asked.refused(lambda: asked.make("Traffic", "bad", traffic, space)).status == 422


def test_who_may_not_delete_pods_may_not_have_us_hurt_them(
    asked: World, anna: Client, hers: str
) -> None:
    space = asked.space("others")
    said = asked.refused(lambda: asked.make("Fault", "slow", DELAY, space, anna))
    assert said.status == 403
    who = f"system:serviceaccount:{asked.people}:anna"
    assert f"{who} may not delete pods in {space}" in said.message
    elsewhere = {**DELAY, "selector": {"pods": {"namespaces": [space]}, "mode": "all"}}
    assert space in asked.refused(lambda: asked.make("Fault", "x", elsewhere, hers, anna)).message
    named = {**DELAY, "selector": {"pods": {"names": [f"{space}/web"]}, "mode": "all"}}
    assert space in asked.refused(lambda: asked.make("Fault", "x", named, hers, anna)).message
    target = {"fault": "process.kill", "params": {}, "target": {"pod": f"{space}/web"}}
    assert space in asked.refused(lambda: asked.make("Fault", "x", target, hers, anna)).message
    pattern = {**DELAY, "selector": {"pods": {"namespaces": ["*"]}, "mode": "all"}}
    assert asked.refused(lambda: asked.make("Fault", "x", pattern, hers, anna)).status == 403
    node = {**DELAY, "selector": {"nodes": {}, "mode": "all"}}
    assert "may not update nodes" in asked.refused(
        lambda: asked.make("Fault", "x", node, hers, anna)).message  # fmt: skip
    file = {"fault": "file.add", "params": {"path": "/tmp/x"}, "selector": DELAY["selector"]}
    assert f"may not create pods/exec in {hers}" in asked.refused(
        lambda: asked.make("Fault", "x", file, hers, anna)).message  # fmt: skip


def test_what_she_may_do_herself_is_carried_out(asked: World, anna: Client, hers: str) -> None:
    asked.pod("web", hers, asked.hosts[0])
    forged = {"annotations": {ANNOTATION: '{"by": {"user": "admin"}, "mac": "x"}'}}
    made = asked.make("Fault", "slow", DELAY, hers, anna, **forged)
    assert f":{asked.people}:anna" in metadata(made)["annotations"][ANNOTATION]
    asked.phase("slow", hers, "active")
    gone(asked.client, FAULTS, "slow", hers)


def test_what_a_run_or_a_schedule_would_do_counts_too(
    asked: World, anna: Client, hers: str
) -> None:
    far = {**DELAY, "selector": {"pods": {"namespaces": [asked.own]}, "mode": "all"}}
    theirs = asked.space("theirs")
    far["selector"] = {"pods": {"namespaces": [theirs]}, "mode": "all"}
    graph = {**EXPERIMENT, "faults": [], "nodes": [
        {"name": "all", "type": "serial", "nodes": [{"name": "slow", "type": "fault", **far}]}
    ]}  # fmt: skip
    run = {"experiment": "x", "resolved": graph}
    said = asked.refused(lambda: asked.make("Run", "r", run, hers, anna))
    assert (
        f"spec.resolved.nodes.0.nodes.0: system:serviceaccount:{asked.people}:anna" in said.message
    )
    schedule = {"experiment": {"name": "x", "spec": graph}, "when": {"every": "1h"}}
    said = asked.refused(lambda: asked.make("Schedule", "s", schedule, hers, anna))
    assert "may not delete pods" in said.message
    assert asked.refused(lambda: asked.make("Experiment", "e", graph, hers, anna)).status == 403
    asked.make("Experiment", "kept", graph, hers)  # by somebody who may
    said = asked.refused(lambda: asked.make("Run", "r", {"experiment": "kept"}, hers, anna))
    assert "Experiment kept" in said.message
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {}}
    task = {"name": "t", "type": "task", "job": {"manifest": job}}
    said = asked.refused(
        lambda: asked.make(
            "Run",
            "r",
            {"experiment": "x", "resolved": {**EXPERIMENT, "faults": [], "nodes": [task]}},
            hers,
            anna,
        )
    )
    assert f"may not create jobs.batch in {hers}" in said.message


def test_what_the_operator_makes_is_by_whoever_asked_for_its_run(
    asked: World, anna: Client, hers: str
) -> None:
    """The account of the operator may do much; what it makes for somebody may not do more."""
    with closing(asked.as_user("operator")) as operator:
        said = asked.refused(lambda: asked.make("Fault", "own", DELAY, hers, operator))
        assert "must belong to something that somebody has asked for" in said.message
        near = {**EXPERIMENT, "faults": [{"name": "slow", **DELAY}]}
        spec = {"experiment": "x", "resolved": near, "creator": "anna"}
        run = asked.make("Run", "mine", spec, hers, anna)
        owner = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Run", "name": "mine",
                 "uid": metadata(run)["uid"], "controller": True}  # fmt: skip
        made = asked.make("Fault", "of-run", DELAY, hers, operator, ownerReferences=[owner])
        note = metadata(made)["annotations"][ANNOTATION]
        assert f":{asked.people}:anna" in note
        assert f"Run/{hers}/mine" in note
        far = {**DELAY, "selector": {"pods": {"namespaces": [asked.own, "default"]}}}
        theirs = asked.space("theirs")
        far["selector"] = {"pods": {"namespaces": [theirs]}, "mode": "all"}
        said = asked.refused(
            lambda: asked.make("Fault", "more", far, hers, operator, ownerReferences=[owner])
        )
        assert f"anna (who asked for Run/{hers}/mine) may not delete pods" in said.message
        wrong = {**owner, "uid": "another"}
        assert asked.refused(
            lambda: asked.make("Fault", "f", DELAY, hers, operator, ownerReferences=[wrong])
        ).status == 403  # fmt: skip
    # Somebody else who names her run is somebody else.
    asked.account("bert", FAULT_RULES)
    with closing(asked.as_user("bert")) as bert:
        said = asked.refused(
            lambda: asked.make("Fault", "f", DELAY, hers, bert, ownerReferences=[owner])
        )
        assert ":bert may not delete pods" in said.message
    for name in ("of-run",):
        gone(asked.client, FAULTS, name, hers)


def test_who_changes_what_is_asked_for_is_the_one_who_asks(
    asked: World, anna: Client, hers: str
) -> None:
    other = asked.space("other")
    nothing = {**DELAY, "selector": {"pods": {"labels": {"app": "nobody"}}, "mode": "all"}}
    asked.make("Fault", "theirs", nothing, other)
    told = asked.client.get(FAULTS, "theirs", other)["metadata"]["annotations"][ANNOTATION]
    change = {"metadata": {"labels": {"a": "b"}, "annotations": {ANNOTATION: "forged"}}}
    after = anna.patch(FAULTS, "theirs", change, namespace=other)
    assert after["metadata"]["annotations"][ANNOTATION] == told, "it is put back"
    edit = {"spec": {"duration": "40s"}}
    said = asked.refused(lambda: anna.patch(FAULTS, "theirs", edit, namespace=other))
    assert ":anna may not delete pods" in said.message
    asked.make("Run", "paused", {"experiment": "x", "resolved": EXPERIMENT}, other)
    run = asked.client.kind("runs", "faultline.dev")
    anna.patch(run, "paused", {"spec": {"pause": "lunch"}}, namespace=other)
    gone(asked.client, FAULTS, "theirs", other)


def test_protected_namespaces_are_refused_at_once(asked: World) -> None:
    space = asked.space("safe", protect="true")
    said = asked.refused(lambda: asked.make("Fault", "x", DELAY, space))
    assert f"the namespace {space} is annotated as protected" in said.message
    said = asked.refused(lambda: asked.make("Fault", "x", DELAY, asked.own))
    assert "the namespace of Faultline" in said.message


def test_while_everything_is_halted_nothing_new_is_made(asked: World, hers: str) -> None:
    halt = asked.make("Halt", "stop", {"reason": "the shop is down"})
    assert ANNOTATION in metadata(halt)["annotations"], "it is written down who stopped it"
    said = asked.refused(lambda: asked.make("Fault", "x", DELAY, hers))
    assert said.status == 403
    assert "everything is halted: the shop is down; lift it: kubectl delete halt" in said.message
    run = {"experiment": "x", "resolved": EXPERIMENT}
    assert asked.refused(lambda: asked.make("Run", "x", run, hers)).status == 403
    asked.make("Experiment", "meanwhile", EXPERIMENT, hers)
    asked.client.delete(HALTS, "stop")
    until(lambda: not [*asked.client.every(HALTS)])
    asked.make("Fault", "after", DELAY, hers)
    gone(asked.client, FAULTS, "after", hers)


def test_without_its_webhook_the_operator_refuses_what_nobody_asked_for(
    asked: World, anna: Client, hers: str
) -> None:
    """Somebody has taken the configurations away; the operator does not rely on them."""
    signed = asked.make("Fault", "signed", DELAY, hers, anna)
    unhooked(asked.client)
    note = metadata(signed)["annotations"][ANNOTATION]
    asked.make("Fault", "plain", DELAY, hers)
    assert "nobody asked for it" in asked.phase("plain", hers, "refused")["message"]
    more = {**DELAY, "duration": "50s"}
    asked.make("Fault", "copied", more, hers, annotations={ANNOTATION: note})
    assert "nobody asked for it" in asked.phase("copied", hers, "refused")["message"]
    hook = asked.operators[0][0].guarded.webhook
    assert hook is not None
    hook._renewed()
    for kind in webhooks.KINDS:
        assert asked.client.get(kind, webhooks.NAME)["webhooks"]
    for name in ("plain", "copied", "signed"):
        gone(asked.client, FAULTS, name, hers)


def test_what_comes_to_fit_later_is_judged_when_it_is_found(
    asked: World, anna: Client, hers: str
) -> None:
    """No namespace of that pattern was there when she asked; the operator looks by itself."""
    late = f"late-{asked.mark}-*"
    pods = {"namespaces": [hers, late], "labels": {"app": "web"}}
    spec = {**DELAY, "selector": {"pods": pods, "mode": "all", "live": "top-up"}}
    node = asked.hosts[0]
    if not list(asked.client.every(PODS, hers)):
        asked.pod("first", hers, node)
    asked.make("Fault", "hers", spec, hers, anna)
    asked.make("Fault", "wide", spec, hers)
    before = asked.phase("hers", hers, "active")["counts"]["targets"]
    asked.phase("wide", hers, "active")
    asked.pod("late", asked.space("late"), node)

    def wide() -> bool:
        return asked.status("wide", hers)["counts"]["targets"] == before + 1

    until(wide, "who may do it does not hit it", 30)
    assert asked.status("hers", hers)["counts"]["targets"] == before
    for name in ("hers", "wide"):
        gone(asked.client, FAULTS, name, hers)
    until(lambda: not list(asked.client.every(FAULTS, hers)), "they do not end", 40)


def test_a_run_is_carried_out_for_whoever_made_it(asked: World, anna: Client, hers: str) -> None:
    """Its faults are made by the operator, and are hers all the same."""
    node = asked.hosts[0]
    if not list(asked.client.every(PODS, hers)):
        asked.pod("first", hers, node)
    port = int(asked.server.url.rpartition(":")[2])
    probe = {"name": "up", "type": "tcp", "host": "127.0.0.1", "port": port}
    near = {**EXPERIMENT, "probes": [probe], "baseline": "1s", "cooldown": "0s",
            "faults": [{"name": "slow", **DELAY, "duration": "20s"}]}  # fmt: skip
    asked.make("Run", "real", {"experiment": "x", "resolved": near}, hers, anna)

    def made() -> Object | None:
        found = [f for f in asked.client.every(FAULTS, hers)
                 if "Run" in str(metadata(f).get("ownerReferences"))]  # fmt: skip
        return found[0] if found else None

    fault = until(made, "the run makes no fault", 60)
    note = metadata(fault)["annotations"][ANNOTATION]
    assert f":{asked.people}:anna" in note
    assert f"Run/{hers}/real" in note
    asked.phase(str(metadata(fault)["name"]), hers, "active")
    run = asked.client.kind("runs", "faultline.dev")
    asked.client.patch(run, "real", {"spec": {"abort": "enough"}}, namespace=hers)
    until(lambda: not made(), "its fault does not end", 60)
    asked.client.delete(run, "real", hers)
