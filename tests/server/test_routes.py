"""Every route, by real requests."""

from __future__ import annotations

import json
import os
import pwd
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Client, Served, document, until

from faultline.injection.injector import Injector

TELLS = {"GET", "POST", "DELETE"}


@pytest.fixture
def call(served: Served) -> Client:
    return served.unix


def spoiling(path: Path, **more: Any) -> dict[str, Any]:
    path.write_text("mode = good\n")
    params = {"path": str(path), "find": "good", "replacement": "wild"}
    return {"fault": "file.replace", "params": params, "duration": "1m", **more}


# ---------------------------------------------------------------------------------------- faults


def test_a_fault_is_planned_injected_measured_and_recovered(call: Client, tmp_path: Path) -> None:
    config = tmp_path / "app.conf"
    plan = call.post("/plan", spoiling(config))
    assert plan["steps"][0]["does"]
    assert config.read_text() == "mode = good\n", "a plan touches nothing"
    answer = call("POST", "/faults", spoiling(config, uid="spoiled-1"))
    assert (answer.status, answer.headers["location"]) == (201, "/v1/faults/spoiled-1")
    fault = answer.json()
    assert (fault["state"], fault["reading"]["effect"]) == ("active", "effective")
    assert fault["creator"] == pwd.getpwuid(os.geteuid()).pw_name
    assert 0 < fault["remaining"] <= 60
    assert config.read_text() == "mode = wild\n"
    assert "spoiled-1" in {each["uid"] for each in call.get("/faults?state=active")["faults"]}
    assert call.get("/faults/spoiled-1")["uid"] == "spoiled-1"
    assert call.post("/faults/spoiled-1/observe")["reading"]["effect"] == "effective"
    done = call.delete("/faults/spoiled-1")
    assert (done["end"], done["residue"]) == ("recovered", [])
    assert config.read_text() == "mode = good\n"
    assert call.delete("/faults/spoiled-1")["end"] == "recovered", "harmless the second time"
    ended = call.get("/faults?state=ended&fault=file.replace&limit=1")["faults"]
    assert [each["uid"] for each in ended] == ["spoiled-1"]
    again = call("POST", "/faults", spoiling(config, uid="spoiled-1"))
    assert (again.status, again.json()["code"]) == (409, "conflict")


def test_what_is_wrong_with_a_fault_is_named_and_changes_nothing(
    call: Client, tmp_path: Path
) -> None:
    config = tmp_path / "app.conf"
    before = call.get("/faults")
    for change, status, field in (
        ({"fault": "file.replaced"}, 400, "fault"),
        ({"params": {}}, 400, "params.path"),
        ({"duration": "9d"}, 400, "duration"),
        ({"duration": 5}, 400, "duration"),
        ({"uid": "../../x"}, 400, "uid"),
        ({"nothing": 1}, 400, "nothing"),
        ({"target": {"pid": -1}}, 400, "target.pid"),
        ({"target": {"pid": 4194304}}, 410, "4194304"),
    ):
        answer = call("POST", "/faults", {**spoiling(config), **change})
        assert answer.status == status, answer.body
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["happened"] == "nothing"
        assert field in problem["detail"], problem
    assert config.read_text() == "mode = good\n"
    assert call.get("/faults") == before
    assert call("GET", "/faults/none").status == 404
    assert call("DELETE", "/faults/none").json()["code"] == "unknown-name"
    limited = call("GET", "/faults?limit=0")
    assert (limited.status, limited.json()["field"]) == (400, "limit")


def test_the_catalogue_has_a_schema_for_every_fault(call: Client) -> None:
    found = {each["fault"]: each for each in call.get("/catalogue")["faults"]}
    assert len(found) > 50
    assert "properties" in found["network.delay"]["params"]
    assert call.get("/catalogue/network.delay") == found["network.delay"]
    assert call("GET", "/catalogue/network.delai").status == 404


# ------------------------------------------------------------------------------------------ runs


def test_a_run_begins_at_once_and_is_seen_to_its_verdict(call: Client) -> None:
    made = call("POST", "/runs", {"experiment": document("posted"), "creator": "ann"})
    assert made.status == 201, made.body
    name = made.json()["metadata"]["name"]
    assert made.headers["location"] == f"/v1/runs/{name}"
    run = until(lambda: (r := call.get(f"/runs/{name}"))["status"]["phase"] == "ended" and r)
    assert run["status"]["verdict"] == "held"
    assert run["spec"]["creator"] == "ann"
    waited = run["status"]["started"] - run["metadata"]["creationTimestamp"]
    assert waited < 4.0, "within the time in which others leave a run to its maker"
    assert b"<html" in call("GET", f"/runs/{name}/report").body
    listed = call.get(f"/runs?experiment=posted&verdict=held&creator=ann&ended=true&text={name}")
    assert [each["name"] for each in listed["runs"]] == [name]
    assert call.get("/runs?label=experiment%3Dposted&phase=ended")["runs"] == listed["runs"]


def test_runs_are_listed_page_by_page(call: Client) -> None:
    names = {call.post("/runs", document("paged"))["metadata"]["name"] for _ in range(3)}
    first = call.get("/runs?experiment=paged&limit=2")
    second = call.get(f"/runs?experiment=paged&limit=2&cursor={first['next']}")
    assert len(first["runs"]) == 2
    assert {each["name"] for each in first["runs"] + second["runs"]} == names
    for wrong in ("limit=1001", "label=x", "cursor=x", "since=yesterday", "colour=red"):
        assert call("GET", f"/runs?{wrong}").status == 400, wrong


def test_yaml_is_taken_too_and_is_bounded(call: Client) -> None:
    head = {"content_type": "application/yaml"}
    answer = call("POST", "/experiments/validate", json.dumps(document()), **head)
    assert answer.json() == {"valid": True, "problems": []}
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    for text in ("[" * 300_000, "- " * 300_000, bomb, "a: &a [*a]", "a: .nan", "a: 1" + "0" * 400):
        assert call("POST", "/experiments/validate", text, **head).json()["valid"] is False
        assert call("POST", "/runs", text, **head).status == 400
    for text in (
        '{"name": "\\ud800"}',
        '{"name": "x", "at": 1e999}',
        '{"name": "x", "at": 1' + "0" * 30 + "}",
    ):
        for path in ("/runs/none/signals", "/faults", "/runs", "/schedules", "/halt"):
            assert call("POST", path, text).status == 400, (path, text)
    deep = call("POST", "/experiments/validate", "[" * 100_000)
    assert deep.json()["valid"] is False
    assert call("POST", "/runs", "[" * 100_000).status == 400
    assert call("POST", "/runs", "a=b", content_type="text/plain").status == 415
    assert call("POST", "/runs", {"experiment": {}, "x": "y" * (1 << 20)}).status == 413


def test_a_bad_experiment_is_refused_with_the_path_of_its_field(call: Client) -> None:
    bad = document("bad")
    bad["spec"]["baseline"] = "soon"
    bad["spec"]["colour"] = "red"
    checked = call.post("/experiments/validate", bad)
    paths = {each["path"] for each in checked["problems"]}
    assert {"spec.baseline", "spec.colour"} <= paths
    answer = call("POST", "/runs", bad)
    assert answer.status == 400
    assert {each["path"] for each in answer.json()["problems"]} >= paths
    assert call.get("/runs?experiment=bad")["runs"] == []
    assert call("POST", "/runs", {"experiment": "nobody"}).status == 404
    assert call("POST", "/runs", {**document("k"), "kind": "Schedule"}).status == 400
    for path in ("", "/report"):
        assert call("GET", f"/runs/none{path}").status == 404


def test_a_run_is_paused_and_goes_on_and_is_aborted(call: Client) -> None:
    name = call.post("/runs", document("long", baseline="30s"))["metadata"]["name"]
    until(lambda: call.get(f"/runs/{name}")["status"]["phase"] != "pending")
    assert call.post(f"/runs/{name}/pause", {"reason": "lunch"})["spec"]["pause"] == "lunch"
    assert "pause" not in call.post(f"/runs/{name}/continue")["spec"] or not call.get(
        f"/runs/{name}"
    )["spec"].get("pause")
    told = call.post(f"/runs/{name}/signals", {"name": "found", "message": "it is slow", "id": "1"})
    call.post(f"/runs/{name}/signals", {"name": "found", "message": "it is slow", "id": "1"})
    assert [each["text"] for each in told["spec"]["signals"]] == ["it is slow"]
    assert len(call.get(f"/runs/{name}")["spec"]["signals"]) == 1
    assert call("POST", f"/runs/{name}/signals", {"name": "Not A Name"}).status == 400
    assert call("POST", f"/runs/{name}/answers", {"answer": "continue"}).status == 400
    assert call("POST", f"/runs/{name}/answers", {"node": "x", "answer": "yes"}).status == 400
    call.post(f"/runs/{name}/abort", {"reason": "enough"})
    run = until(lambda: (r := call.get(f"/runs/{name}"))["status"]["phase"] == "ended" and r)
    assert run["status"]["aborted"] == "enough"
    assert call("POST", f"/runs/{name}/pause").status == 400


def test_a_node_that_asks_is_answered(call: Client) -> None:
    graph = {"faults": [], "nodes": [{"name": "ask", "type": "approval", "message": "go on?"}]}
    made = call("POST", "/runs", document("asks", **graph))
    assert made.status == 201, made.body
    name = made.json()["metadata"]["name"]

    def asked() -> bool:
        nodes = call.get(f"/runs/{name}")["status"].get("nodes", [])
        return any((n["name"], n["state"]) == ("ask", "running") for n in nodes)

    until(asked)
    call.post(f"/runs/{name}/answers", {"answer": "continue", "text": "yes"})
    run = until(lambda: (r := call.get(f"/runs/{name}"))["status"]["phase"] == "ended" and r)
    assert run["spec"]["approvals"][0]["by"] == pwd.getpwuid(os.geteuid()).pw_name


def test_a_stored_experiment_takes_parameters_with_their_types_checked(call: Client) -> None:
    given = document("kept")
    given["spec"]["baseline"] = "${length}"
    given["spec"]["parameters"] = {"length": {"type": "duration", "default": "30s"}}
    assert call.post("/schedules", given)["applied"][0]["what"] == "created"
    for parameters, said in (
        ({"length": "soon"}, "parameters.length"), ({"lenght": "1s"}, "lenght"),
    ):  # fmt: skip
        wrong = call("POST", "/runs", {"experiment": "kept", "parameters": parameters})
        assert wrong.status in (400, 404), wrong.body
        assert said in wrong.json()["detail"]
    made = call("POST", "/runs", {"experiment": "kept", "parameters": {"length": "100ms"}})
    assert made.status == 201, made.body
    assert made.json()["spec"]["resolved"]["baseline"] == "100ms"
    name = made.json()["metadata"]["name"]
    until(lambda: call.get(f"/runs/{name}")["status"]["phase"] == "ended")


def test_an_incident_is_reported_to_every_run_that_has_not_ended(call: Client) -> None:
    assert call.post("/signals", {"name": "incident"})["runs"] == []
    names = {
        call.post("/runs", document("told", baseline="30s"))["metadata"]["name"] for _ in range(2)
    }
    sent = {"name": "incident", "message": "payments are down", "id": "INC-7"}
    assert set(call.post("/signals", sent)["runs"]) == names
    assert set(call.post("/signals", sent)["runs"]) == names  # sent again, counted once
    for name in names:
        signals = call.get(f"/runs/{name}")["spec"]["signals"]
        assert [(each["name"], each["text"]) for each in signals] == [
            ("incident", "payments are down")
        ]
        call.post(f"/runs/{name}/abort", {"reason": "told"})
    assert call("POST", "/signals", {"at": "now"}).status == 400


# -------------------------------------------------------------------------- schedules and halt


def test_schedules_are_applied_seen_triggered_and_removed(call: Client) -> None:
    spec = {
        "when": {"cron": "0 3 * * *"},
        "timeZone": "Europe/Berlin",
        "experiment": {"name": "nightly", "spec": document()["spec"]},
    }
    given = {
        "apiVersion": "faultline.dev/v1alpha1", "kind": "Schedule",
        "metadata": {"name": "nightly"}, "spec": spec,
    }  # fmt: skip
    assert call.post("/schedules", given)["applied"][0]["what"] == "created"
    assert call.post("/schedules", given)["applied"][0]["what"] == "unchanged"
    assert [each["metadata"]["name"] for each in call.get("/schedules")["schedules"]] == ["nightly"]
    coming = call.get("/schedules/nightly/next?n=3")
    assert [each["at"][11:16] for each in coming["occurrences"]] == ["03:00"] * 3
    assert call("GET", "/schedules/nightly/next?n=0").status == 400
    assert call.post("/schedules/nightly/pause")["spec"]["paused"] is True
    assert call.get("/schedules/nightly/next")["paused"] is True
    assert not call.post("/schedules/nightly/resume")["spec"].get("paused")
    run = call.post("/schedules/nightly/trigger")["metadata"]["name"]
    until(lambda: call.get(f"/runs/{run}")["status"]["phase"] == "ended")
    wrong = {**given, "spec": {**spec, "when": {"cron": "61 3 * * *"}}}
    assert call("POST", "/schedules", wrong).status == 400
    assert call.get("/schedules/nightly")["spec"]["when"] == {"cron": "0 3 * * *"}
    assert call.delete("/schedules/nightly")["name"] == "nightly"
    assert call("GET", "/schedules/nightly").status == 404
    assert call("POST", "/schedules", document()["spec"]).status == 400


def test_halt_undoes_everything_and_blocks_until_it_is_lifted(call: Client, tmp_path: Path) -> None:
    config = tmp_path / "app.conf"
    uid = call.post("/faults", spoiling(config))["uid"]
    run = call.post("/runs", document("halted", baseline="30s"))["metadata"]["name"]
    until(lambda: call.get(f"/runs/{run}")["status"]["phase"] != "pending")
    assert call.get("/halt")["halted"] is False
    try:
        done = call.post("/halt", {"reason": "stop it"})
        assert config.read_text() == "mode = good\n"
        assert {"name": run, "stopped": True} in done["runs"]
        assert (done["clean"], [each["uid"] for each in done["faults"]]) == (True, [uid])
        assert call.get("/halt")["halts"][0]["why"] == "stop it"
        assert call.get("/health")["status"] == "halted"
        for path, data in (("/faults", spoiling(config)), ("/runs", document())):
            refused = call("POST", path, data)
            assert (refused.status, refused.json()["code"]) == (403, "halted")
    finally:
        lifted = call.delete("/halt")
    assert (lifted["halted"], len(lifted["lifted"])) == (False, 2)
    assert call.get("/health")["status"] == "ok"


def test_what_undoes_does_not_wait_behind_what_is_slow(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, let_go = served.unix, threading.Event()
    uid = call.post("/faults", spoiling(tmp_path / "app.conf"))["uid"]
    monkeypatch.setattr(Injector, "observe", lambda *_: let_go.wait(30))
    slow = [
        threading.Thread(target=call, args=("POST", f"/faults/{uid}/observe")) for _ in range(60)
    ]
    try:
        for each in slow:
            each.start()
        time.sleep(0.3)
        assert call.delete(f"/faults/{uid}")["end"] == "recovered"
        assert call("POST", "/runs/none/abort").status == 404
        assert all(each.is_alive() for each in slow), "they were still waiting"
    finally:
        let_go.set()
        for each in slow:
            each.join()


# --------------------------------------------------------------------------------------- OpenAPI


def test_the_openapi_document_lists_every_route_with_what_it_takes_and_gives(call: Client) -> None:
    api = call.get("/openapi.json")
    routes = {(method.upper(), path) for path, each in api["paths"].items() for method in each}
    assert {
        ("POST", "/v1/plan"), ("POST", "/v1/faults"), ("GET", "/v1/faults"),
        ("GET", "/v1/faults/{uid}"), ("DELETE", "/v1/faults/{uid}"),
        ("POST", "/v1/faults/{uid}/observe"), ("GET", "/v1/catalogue"), ("POST", "/v1/runs"),
        ("GET", "/v1/runs"), ("GET", "/v1/runs/{name}"), ("GET", "/v1/runs/{name}/report"),
        ("POST", "/v1/runs/{name}/abort"), ("POST", "/v1/runs/{name}/pause"),
        ("POST", "/v1/runs/{name}/continue"), ("POST", "/v1/runs/{name}/answers"),
        ("POST", "/v1/runs/{name}/signals"), ("POST", "/v1/experiments/validate"),
        ("GET", "/v1/halt"), ("POST", "/v1/halt"), ("DELETE", "/v1/halt"),
        ("GET", "/v1/schedules"), ("POST", "/v1/schedules"),
        ("GET", "/v1/schedules/{name}/next"), ("GET", "/v1/events"), ("GET", "/v1/health"),
    } <= routes  # fmt: skip
    schemas = api["components"]["schemas"]
    text = json.dumps(api)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(schemas), "every reference leads somewhere"
    assert schemas["FaultOrder"]["properties"]["duration"]["description"]
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            assert route["description"], (method, path)
            if method == "post" and "requestBody" in route:
                content = route["requestBody"]["content"]
                assert {"application/json", "application/yaml"} <= set(content)


def test_what_is_not_there_is_a_problem_too(call: Client) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/runs", 405)):
        answer = call(method, path)
        assert (answer.status, answer.json()["code"]) == (status, "no-route")


def test_stored_experiments_are_listed_with_their_runs_and_removed(call: Client) -> None:
    name = f"kept-{call.where.rpartition('/')[2].replace(':', '-').replace('.', '-')}"[:40]
    call.post("/schedules", document(name))
    run = call.post("/runs", {"experiment": name})
    assert until(lambda: call.get(f"/runs/{run['metadata']['name']}")["status"].get("verdict"))
    (found,) = [each for each in call.get("/experiments")["experiments"] if each["name"] == name]
    assert (found["runs"], found["last"]["name"]) == (1, run["metadata"]["name"])
    assert found["faults"] == ["network.delay"]
    assert call.get(f"/experiments/{name}")["metadata"]["name"] == name
    schedule = {"apiVersion": "faultline.dev/v1alpha1", "kind": "Schedule",
                "metadata": {"name": f"{name}-daily"},
                "spec": {"when": {"cron": "0 4 * * *"}, "experiment": name}}  # fmt: skip
    call.post("/schedules", schedule)
    refused = call("DELETE", f"/experiments/{name}")
    assert (refused.status, refused.json()["code"]) == (403, "refused")
    call.delete(f"/schedules/{name}-daily")
    assert call.delete(f"/experiments/{name}") == {"name": name}
    assert call("GET", f"/experiments/{name}").status == 404


def test_an_ended_run_is_replayed(call: Client) -> None:
    first = call.post("/runs", document())
    name = first["metadata"]["name"]
    until(lambda: call.get(f"/runs/{name}")["status"].get("verdict"))
    answer = call("POST", f"/runs/{name}/replay", {"seed": 7})
    assert answer.status == 201, answer.body
    made = answer.json()
    assert answer.headers["location"] == f"/v1/runs/{made['metadata']['name']}"
    assert made["metadata"]["labels"]["replay-of"] == name
    assert made["spec"]["seed"] == 7
    assert made["spec"]["resolved"] == call.get(f"/runs/{name}")["spec"]["resolved"]
    assert until(lambda: call.get(f"/runs/{made['metadata']['name']}")["status"].get("verdict"))
    assert call("POST", "/runs/nobody/replay").status == 404
