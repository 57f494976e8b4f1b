"""Faults of objects, carried out by the operator alone: no agent, no node, no controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.kube.conftest import Server
from tests.kube.objects.targets import essence, make
from tests.kube.operator.conftest import FAULTS, HALTS, HOSTS, VERSION, Bench, until

from faultline.cli.inject import plan
from faultline.cli.kube import kube
from faultline.kubeapi.model import ApiError, Kind, Object, metadata
from faultline.kubefaults import notes
from faultline.operator import sweeping
from faultline.operator.hosts import OBJECTS

pytestmark = pytest.mark.needs_apiserver


@pytest.fixture
def bench(kinds: Server, namespace: str) -> Generator[Bench]:
    """A cluster without agents."""
    with closing(kinds.client()) as client:
        made = Bench(kinds, client, namespace)
        try:
            yield made
        finally:
            made.end_operators()
            for each in [*client.every(FAULTS, namespace)]:
                name = str(metadata(each)["name"])
                client.patch(FAULTS, name, {"metadata": {"finalizers": None}}, namespace=namespace)
                client.delete(FAULTS, name, namespace)
            try:
                client.delete(HOSTS, OBJECTS)
            except ApiError as error:
                if error.reason != "NotFound":
                    raise


def scale(bench: Bench, name: str = "scale", **fields: Any) -> Object:
    return bench.apply(
        name, fault="workload.scale", params={"replicas": 1},
        selector={"objects": {"kind": "Deployment"}, "mode": "all"}, **fields,
    )  # fmt: skip


def state(bench: Bench, kind: Kind = HOSTS, name: str = OBJECTS) -> Object:
    """The status of an object of the cluster."""
    found: Object = bench.client.get(kind, name).get("status") or {}
    return found


def now(bench: Bench, target: Object) -> Object:
    kind = bench.client.exact(target["kind"], target["apiVersion"])
    return bench.client.get(kind, "shop", bench.namespace)


def test_one_is_made_measured_undone_and_forgotten(bench: Bench) -> None:
    target = make(bench.client, "ConfigMap", bench.namespace)
    bench.operate()
    bench.apply(
        "wild", fault="config.value", params={"key": "mode", "value": "wild"}, duration="3s",
        selector={"objects": {"kind": "ConfigMap", "name": "shop"}},
    )  # fmt: skip
    active = bench.phase("wild", "active")
    assert active["counts"]["targets"] == 1
    until(lambda: bench.status("wild").get("effect") == "effective")
    there = now(bench, target)
    assert there["data"]["mode"] == "wild"
    (uid,) = notes.holders(there)
    told = notes.about(there, uid)
    assert told["owner"] == f"Fault/{bench.namespace}/wild"
    assert told["until"] > 0
    ended = bench.phase("wild", "ended")
    assert (ended["end"], ended["counts"]["recovered"]) == ("recovered", 1)
    assert essence(now(bench, target)) == essence(target)
    assert {"Resolved", "Effective", "Recovered"} <= bench.events().keys()
    states = {each["type"]: each["status"] for each in ended["conditions"]}
    assert states == dict.fromkeys(("Resolved", "Injected", "Effective", "Recovered"), "True")
    until(lambda: not (bench.get("wild") or {})["metadata"].get("finalizers"))
    host = bench.client.get(HOSTS, OBJECTS)
    assert not host["spec"].get("desired")
    until(lambda: not state(bench).get("actual"))


def test_deleting_it_undoes_it_at_once_and_others_keep_what_they_wrote(bench: Bench) -> None:
    target = make(bench.client, "Deployment", bench.namespace)
    bench.operate()
    scale(bench)
    bench.phase("scale", "active")
    kind = bench.client.exact("Deployment", "apps/v1")
    change = {"metadata": {"labels": {"other": "x"}}}
    bench.client.patch(kind, "shop", change, namespace=bench.namespace)
    bench.client.delete(FAULTS, "scale", bench.namespace)
    until(lambda: bench.get("scale") is None)
    there = now(bench, target)
    assert there["spec"]["replicas"] == 4
    assert metadata(there)["labels"]["other"] == "x"
    assert not notes.holders(there)
    assert "Recovered" in bench.events()


def test_what_has_gone_meanwhile_is_told(bench: Bench) -> None:
    make(bench.client, "Deployment", bench.namespace)
    bench.operate()
    scale(bench)
    bench.phase("scale", "active")
    kind = bench.client.exact("Deployment", "apps/v1")
    bench.client.delete(kind, "shop", bench.namespace, grace=0)
    bench.client.delete(FAULTS, "scale", bench.namespace)
    until(lambda: bench.get("scale") is None)
    assert "TargetGone" in bench.events()


def test_a_halt_undoes_it_and_refuses_what_is_new(bench: Bench) -> None:
    target = make(bench.client, "Deployment", bench.namespace)
    bench.operate()
    scale(bench)
    bench.phase("scale", "active")
    halt = {"apiVersion": VERSION, "kind": "Halt", "metadata": {"name": f"stop-{bench.mark}"},
            "spec": {"reason": "the shop is down"}}  # fmt: skip
    bench.client.create(HALTS, halt)
    try:
        bench.phase("scale", "ended")
        assert now(bench, target)["spec"]["replicas"] == 4
        name = metadata(halt)["name"]
        until(lambda: state(bench, HALTS, name).get("undone"))
        scale(bench, "late")
        assert "the shop is down" in bench.phase("late", "refused")["message"]
    finally:
        bench.client.delete(HALTS, str(metadata(halt)["name"]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fault": "workload.scael"}, "did you mean"),
        ({"params": {"replicas": "many"}}, "spec.params.replicas"),
        ({"selector": {"objects": {}}}, "the kind of the objects: Deployment, StatefulSet"),
        ({"selector": {"pods": {}}}, "objects (Deployment)"),
        ({"selector": {"objects": {"kind": "Service"}}}, "that is what workload.scale takes"),
        ({"fault": "network.delay", "params": {"latency": "1ms"}}, "acts on machines"),
        ({"selector": {"objects": {"kind": "Deployment", "name": "no"}}}, "none of the objects"),
        ({"params": {"replicas": 4}}, "nothing would change"),
        ({"selector": {"objects": {"kind": "Deployment"}, "live": "top-up"}}, "freeze"),
    ],
)
def test_what_cannot_be_is_refused_and_says_why(
    bench: Bench, fields: dict[str, Any], said: str
) -> None:
    make(bench.client, "Deployment", bench.namespace)
    bench.operate()
    spec = {"fault": "workload.scale", "params": {"replicas": 1},
            "selector": {"objects": {"kind": "Deployment"}}, **fields}  # fmt: skip
    bench.apply("no", **spec)
    assert said in bench.phase("no", "refused")["message"]
    until(lambda: not (bench.get("no") or {})["metadata"].get("finalizers"))


def test_what_is_protected_is_spared(bench: Bench) -> None:
    target = make(bench.client, "Deployment", bench.namespace)
    kind = bench.client.exact("Deployment", "apps/v1")
    note = {"metadata": {"annotations": {"faultline.dev/protect": "true"}}}
    bench.client.patch(kind, "shop", note, namespace=bench.namespace)
    bench.operate()
    scale(bench)
    assert "annotated as protected" in bench.phase("scale", "refused")["message"]
    bench.apply("system", fault="config.value", params={"key": "a"}, selector={
        "objects": {"kind": "ConfigMap", "namespaces": ["kube-system"]}})  # fmt: skip
    told = bench.phase("system", "refused")["message"]
    assert "none of the objects" in told
    assert now(bench, target)["spec"]["replicas"] == 4


def test_one_that_is_killed_is_followed_by_another_which_goes_on(bench: Bench) -> None:
    """The whole operator as a process of its own, killed with SIGKILL."""
    target = make(bench.client, "Deployment", bench.namespace)
    command = [sys.executable, "-m", "faultline.cli.main", "operator", "--lease", "3",
               "--trust-all", "--kubeconfig", str(bench.server.kubeconfig()),
               "--namespace", bench.own]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            scale(bench, duration="4s")
            until(lambda: now(bench, target)["spec"]["replicas"] == 1, patience=60)
        finally:
            process.kill()
    assert notes.holders(now(bench, target)), "nobody undoes it while no operator runs"
    bench.operate()
    ended = bench.phase("scale", "ended")
    assert (ended["end"], ended["counts"]["recovered"]) == ("recovered", 1)
    assert essence(now(bench, target)) == essence(target)


def test_a_mark_that_nobody_knows_is_undone_by_whoever_leads_next(bench: Bench) -> None:
    target = make(bench.client, "Deployment", bench.namespace)
    first = bench.operate()
    scale(bench)
    bench.phase("scale", "active")
    bench.end_operators()
    assert not first.leader.leads
    bench.client.patch(FAULTS, "scale", {"metadata": {"finalizers": None}},
                       namespace=bench.namespace)  # fmt: skip
    bench.client.delete(FAULTS, "scale", bench.namespace)
    bench.client.delete(HOSTS, OBJECTS)
    bench.operate()
    until(lambda: not notes.holders(now(bench, target)))
    assert essence(now(bench, target)) == essence(target)


def test_only_what_a_fault_has_made_is_taken_for_its_own(bench: Bench) -> None:
    """Labels and annotations are copied by people, too."""
    kind = bench.client.kind("configmaps")

    def config(name: str, made: Object) -> Object:
        return {"apiVersion": "v1", "kind": "ConfigMap", **made,
                "metadata": {**metadata(made), "name": name}}  # fmt: skip

    ours = notes.marked(config("ours", {}), "0123-left", "ours", None)
    labelled = {"metadata": {"labels": notes.labels_of(ours)}}
    for each in (ours, config("copied", ours), config("labelled", labelled)):
        bench.client.create(kind, each, bench.namespace)
    assert sweeping.sweep(bench.client) >= 1
    left = {metadata(each)["name"] for each in bench.client.every(kind, bench.namespace)}
    assert left >= {"copied", "labelled"}
    assert "ours" not in left


def test_anybody_with_rights_can_undo_it_where_no_operator_runs(bench: Bench) -> None:
    target = make(bench.client, "Deployment", bench.namespace)
    config = make(bench.client, "ConfigMap", bench.namespace)
    bench.operate()
    scale(bench)
    bench.apply("gone", fault="object.delete", params={},
                selector={"objects": {"kind": "ConfigMap"}})  # fmt: skip
    for each in ("scale", "gone"):
        bench.phase(each, "active")
    bench.end_operators()
    options = ["--kubeconfig", str(bench.server.kubeconfig())]
    run = CliRunner()
    listed = run.invoke(kube, ["recover", "--all", "--dry-run", "--format", "json", *options])
    there = {each["owner"] for each in json.loads(listed.stdout)}
    assert {f"Fault/{bench.namespace}/{each}" for each in ("scale", "gone")} <= there
    assert now(bench, target)["spec"]["replicas"] == 1
    nothing = run.invoke(kube, ["recover", *options])
    assert "nothing to undo" in nothing.stdout, "their time is not over"
    for each in ("scale", "gone"):
        done = run.invoke(kube, ["recover", f"{bench.namespace}/{each}", *options])
        assert "recovered" in done.stdout, done.output
    assert essence(now(bench, target)) == essence(target)
    assert now(bench, config)["data"] == config["data"]
    bench.operate()
    for each in ("scale", "gone"):
        bench.client.delete(FAULTS, each, bench.namespace)
    until(lambda: bench.get("scale") is None and bench.get("gone") is None)
    assert essence(now(bench, target)) == essence(target), "undone once is undone"


def test_the_plan_shows_what_would_change_and_who_may_do_it(bench: Bench, tmp_path: Path) -> None:
    make(bench.client, "Deployment", bench.namespace)
    spec = {"fault": "workload.scale", "params": {"replicas": 1},
            "selector": {"objects": {"kind": "Deployment"}}}  # fmt: skip
    file = tmp_path / "fault.yaml"
    made = {"apiVersion": VERSION, "kind": "Fault", "metadata": {"name": "x"}, "spec": spec}
    file.write_text(yaml.safe_dump(made))
    given = ["-f", str(file), "--namespace", bench.namespace, "--format", "json",
             "--kubeconfig", str(bench.server.kubeconfig())]  # fmt: skip
    told = CliRunner().invoke(plan, given)
    assert told.exit_code == 0, told.output
    ((target,),) = [each["targets"] for each in json.loads(told.stdout)["nodes"]]
    assert target["changes"] == [
        [f"Deployment {bench.namespace}/shop: spec.replicas: 4 -> 1",
         "each field that still has our value is put back"]
    ]  # fmt: skip
    assert target["uid"]
