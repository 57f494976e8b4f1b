"""The operator against a real API server: from a Fault to hosts and back, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.kube.operator.conftest import FAULTS, HALTS, HOSTS, NODES, PODS, VERSION, Bench, until

from faultline.kubeapi.model import metadata
from faultline.operator.leading import LEASES

pytestmark = pytest.mark.needs_apiserver


def test_a_fault_is_asked_for_measured_undone_and_forgotten(bench: Bench) -> None:
    bench.operate()
    bench.apply("delay", duration="3s")
    active = bench.phase("delay", "active")
    assert active["counts"]["targets"] == 6
    until(lambda: bench.status("delay").get("effect") == "effective")
    assert {each["owner"] for each in bench.desired()} == {f"Fault/{bench.namespace}/delay"}
    assert (bench.get("delay") or {})["metadata"]["finalizers"] == ["faultline.dev/undo"]
    ended = bench.phase("delay", "ended")
    assert (ended["end"], ended["counts"]["recovered"]) == ("recovered", 6)
    until(lambda: not bench.desired())
    until(lambda: not (bench.get("delay") or {})["metadata"].get("finalizers"))
    states = {each["type"]: each["status"] for each in ended["conditions"]}
    assert states == dict.fromkeys(("Resolved", "Injected", "Effective", "Recovered"), "True")
    assert all(each["lastTransitionTime"] for each in ended["conditions"])
    assert {"Resolved", "Effective", "Recovered"} <= bench.events().keys()
    bench.client.delete(FAULTS, "delay", bench.namespace)
    assert bench.get("delay") is None


def test_deleting_it_undoes_it_at_once(bench: Bench) -> None:
    bench.operate()
    bench.apply("delay", selector={"pods": {"names": ["web-*-0"]}, "mode": "fixed", "count": 2})
    bench.phase("delay", "active")
    assert bench.agents is not None
    assert bench.agents.suffering() == 2
    bench.client.delete(FAULTS, "delay", bench.namespace)
    until(lambda: bench.get("delay") is None)
    assert bench.agents.suffering() == 0
    assert bench.desired() == []
    assert "Recovered" in bench.events()


def test_what_cannot_be_is_refused_and_says_why(bench: Bench) -> None:
    bench.operate()
    bench.apply("typo", fault="network.dealy")
    bench.apply("empty", selector={"pods": {"labels": {"app": "nobody"}}})
    bench.apply("params", params={"latency": "100"})
    assert "did you mean delay" in bench.phase("typo", "refused")["message"]
    assert "none of the pods fits" in bench.phase("empty", "refused")["message"]
    assert "spec.params.latency" in bench.phase("params", "refused")["message"]
    # What was refused may be mended.
    change = {"spec": {"selector": {"pods": {"labels": {"app": "web"}}}}}
    bench.client.patch(FAULTS, "empty", change, namespace=bench.namespace)
    until(lambda: bench.status("empty").get("phase") == "active")


def test_an_operator_that_dies_is_replaced_and_nothing_is_asked_twice(bench: Bench) -> None:
    first = bench.operate()
    bench.apply("delay")
    bench.phase("delay", "active")
    uids = {each["uid"] for each in bench.desired()}
    second = bench.operate()
    time.sleep(0.5)
    assert (first.leader.leads, second.leader.leads) == (True, False)
    first.stop()
    until(lambda: second.leader.leads, "the second leads")
    bench.apply("more", selector={"pods": {"labels": {"app": "web"}}, "mode": "one"})
    bench.phase("more", "active")
    assert uids < {each["uid"] for each in bench.desired()}
    for name in ("delay", "more"):
        bench.client.delete(FAULTS, name, bench.namespace)
    until(lambda: bench.get("delay") is None and bench.get("more") is None)
    assert bench.desired() == []


def test_a_host_that_is_lost_keeps_no_fault_from_being_deleted(bench: Bench) -> None:
    bench.operate()
    bench.apply("delay")
    bench.phase("delay", "active")
    assert bench.agents is not None
    lost = bench.node(1)
    bench.agents.hosts[lost].silent = True
    bench.client.delete(NODES, lost)
    begun = time.monotonic()
    bench.client.delete(FAULTS, "delay", bench.namespace)
    until(lambda: bench.get("delay") is None)
    assert time.monotonic() - begun < 10
    assert "NodeGone" in bench.events()
    assert "1 hosts lost" in bench.events()["NodeGone"]
    assert bench.desired() == [], "what is not wanted is undone when it comes back"


def test_a_halt_stops_everything_and_refuses_what_is_new(bench: Bench) -> None:
    bench.operate()
    bench.apply("delay")
    bench.phase("delay", "active")
    halt = {"apiVersion": VERSION, "kind": "Halt", "metadata": {"name": "stop"},
            "spec": {"reason": "the shop is down"}}  # fmt: skip
    bench.client.create(HALTS, halt)
    assert "the shop is down" in bench.phase("delay", "ended")["message"]
    assert bench.agents is not None
    assert bench.agents.suffering() == 0
    told = until(lambda: (bench.client.get(HALTS, "stop").get("status") or {}).get("undone"))
    assert told
    bench.apply("late")
    assert "the shop is down" in bench.phase("late", "refused")["message"]
    bench.client.delete(HALTS, "stop")
    until(lambda: not any(h.halted for h in bench.agents.hosts.values()))  # type: ignore[union-attr]
    bench.apply("after")
    bench.phase("after", "active")


def test_a_set_that_is_topped_up_takes_a_new_pod(bench: Bench) -> None:
    bench.operate()
    everything = {"pods": {"labels": {"app": "web"}}, "mode": "all", "live": "top-up"}
    bench.apply("delay", selector=everything)
    bench.phase("delay", "active")
    bench.pod("web-new", bench.node(0), app="web")
    until(lambda: bench.status("delay")["counts"]["effective"] == 7)


def test_what_belongs_to_others_stays_and_what_belongs_to_nobody_goes(bench: Bench) -> None:
    bench.operate()
    bench.apply("delay")
    bench.phase("delay", "active")
    entry = next(each for each in bench.desired())
    of_run = {**entry, "uid": "of-a-run", "owner": "Run/shop/r", "ownerUid": "another"}
    orphan = {**entry, "uid": "of-nobody", "ownerUid": "gone-for-ever"}

    def put() -> bool:
        name = bench.node(0)
        host = bench.client.get(HOSTS, name)
        desired = [*host["spec"]["desired"], of_run, orphan]
        bench.client.patch(HOSTS, name, {"spec": {"desired": desired}})
        return True

    put()
    until(lambda: "of-nobody" not in {each["uid"] for each in bench.desired()})
    assert "of-a-run" in {each["uid"] for each in bench.desired()}


def test_pods_of_the_system_and_what_is_protected_are_spared(bench: Bench) -> None:
    bench.operate()
    name = f"web-{bench.node(0)}-0"
    change = {"metadata": {"annotations": {"faultline.dev/protect": "true"}}}
    bench.client.patch(PODS, name, change, namespace=bench.namespace)
    bench.apply("delay")
    bench.phase("delay", "active")
    hit = {each["pod"]["name"] for each in bench.desired()}
    assert len(hit) == 5
    assert name not in hit
    assert metadata(bench.get("delay") or {})["generation"] == 1


def test_a_server_that_does_not_answer_for_a_while_is_waited_for(bench: Bench) -> None:
    operator = bench.operate()
    bench.apply("delay")
    bench.phase("delay", "active")
    with bench.server.stopped():
        until(lambda: not operator.leader.leads, "it stops leading")
    until(lambda: operator.leader.leads, "it leads again", patience=40)
    bench.client.delete(FAULTS, "delay", bench.namespace)
    until(lambda: bench.get("delay") is None, patience=40)
    assert bench.desired() == []


def test_watches_that_break_are_begun_again(bench: Bench) -> None:
    operator = bench.operate()
    until(lambda: operator.leader.leads)
    bench.apply("first", duration="5s")
    bench.phase("first", "active")
    for each in operator.caches._all:
        assert each._client is not None
        each._client.close()
    bench.apply("second", selector={"pods": {"names": ["web-*-1"]}, "mode": "all"})
    assert bench.phase("second", "active")["counts"]["targets"] == 3
    assert bench.phase("first", "ended")["end"] == "recovered"


def test_the_command_carries_out_faults_and_lets_go_when_it_is_told_to_end(bench: Bench) -> None:
    command = [sys.executable, "-m", "faultline.cli.main", "operator", "--trust-all",
               "--lease", "3", "--kubeconfig", str(bench.server.kubeconfig()),
               "--namespace", bench.own]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            bench.apply("delay")
            bench.phase("delay", "active")
            process.terminate()
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    lease = bench.client.get(LEASES, "faultline-operator", bench.own)
    assert not lease["spec"].get("holderIdentity")
    assert bench.status("delay")["phase"] == "active", "faults go on to their deadlines"
    bench.operate()
    bench.client.delete(FAULTS, "delay", bench.namespace)
    until(lambda: bench.get("delay") is None)


def test_the_rights_that_the_page_lists_are_enough(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
    written = page.partition("## Rights of the operator")[2].partition("```yaml")[2]
    rules = yaml.safe_load(written.partition("```")[0])["rules"]
    name, group = f"operator-{bench.mark}", "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    binding = {
        **role, "kind": "ClusterRoleBinding",
        "subjects": [{"apiGroup": group, "kind": "User", "name": "nobody"}],
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
    }  # fmt: skip
    path = f"/apis/{group}/v1"
    for plural, made in (("clusterroles", {**role, "rules": rules}),
                         ("clusterrolebindings", binding)):  # fmt: skip
        bench.client.rest.request("POST", f"{path}/{plural}", None, made).json()
    try:
        bench.access = bench.server.access("nobody-token")
        bench.operate()
        web = {"pods": {"labels": {"app": "web"}}, "mode": "all", "live": "follow"}
        bench.apply("delay", selector=web)
        bench.phase("delay", "active")
        bench.apply("leader", selector={"plugin": {"name": "leader", "params": {"lease": "x"}}})
        assert "held by no pod" in bench.phase("leader", "refused")["message"]
        halt = {"apiVersion": VERSION, "kind": "Halt", "metadata": {"name": "stop"}, "spec": {}}
        bench.client.create(HALTS, halt)
        bench.phase("delay", "ended")
        until(lambda: (bench.client.get(HALTS, "stop").get("status") or {}).get("undone"))
        bench.client.delete(FAULTS, "delay", bench.namespace)
        until(lambda: bench.get("delay") is None)
        assert "Recovered" in bench.events()
        assert "forbidden" not in caplog.text
    finally:
        for plural in ("clusterrolebindings", "clusterroles"):
            bench.client.rest.request("DELETE", f"{path}/{plural}/{name}")


# ---------------------------------------------------------------------------- plan


def test_a_plan_shows_whom_a_fault_would_hit_and_who_suffers_with_them(
    bench: Bench, tmp_path: Path
) -> None:
    budget = {
        "apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
        "spec": {"minAvailable": 5, "selector": {"matchLabels": {"app": "web"}}},
    }  # fmt: skip
    path = f"/apis/policy/v1beta1/namespaces/{bench.namespace}/poddisruptionbudgets"
    bench.client.rest.request("POST", path, None, budget).json()
    cannot = {"capabilities": [{"fault": "network.delay", "works": False, "why": "no netem"}]}
    bench.client.patch(HOSTS, bench.node(2), {"status": cannot}, part="status")
    document = {
        "apiVersion": VERSION, "kind": "Fault",
        "metadata": {"name": "slow", "namespace": bench.namespace},
        "spec": {"fault": "network.delay", "params": {"latency": "100ms"},
                 "selector": {"pods": {"labels": {"app": "web"}}, "mode": "all"}},
    }  # fmt: skip
    file = tmp_path / "fault.yaml"
    file.write_text(yaml.safe_dump(document))

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "faultline.cli.main", "plan", "-f", str(file),
                   "--kubeconfig", str(bench.server.kubeconfig()), *words]  # fmt: skip
        env = {**os.environ, "FAULTLINE_NAMESPACE": bench.own,
               "PYTHONPATH": str(Path(__file__).parents[3] / "src")}  # fmt: skip
        return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout

    told = json.loads(said("--format", "json"))
    uids = {str(metadata(each)["uid"]) for each in bench.client.every(PODS, bench.namespace)}
    targets = [target for node in told["nodes"] for target in node["targets"]]
    assert {each["uid"] for each in targets} == uids
    assert [node["works"] for node in told["nodes"]] == [True, True, False]
    assert (told["budgets"][0]["targets"], told["budgets"][0]["allowed"]) == (6, 0)
    assert any("no netem" in warning for warning in told["warnings"])
    assert any("can bear 0 of 6" in warning for warning in told["warnings"])
    text = said()
    assert "6 of 6 pods" in text
    assert "nothing was touched" in text
    assert bench.desired() == []
