"""What a request means, which faults it meets, and what they say of themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from faultline.errors import FaultlineError, UnknownName, UsageError
from faultline.kube.proxy import answers
from faultline.kube.proxy.active import Active, Faults
from faultline.kube.proxy.asked import Asked, asked
from faultline.kube.proxy.faults import FAULTS, Error, Latency, Stale
from faultline.kube.proxy.timeline import Timeline
from faultline.kube.proxy.wishes import of_file, of_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("GET /api/v1/pods", Asked("list", resource="pods")),
        ("GET /api/v1/namespaces/a/pods/b", Asked("get", "", "pods", "", "a", "b")),
        ("GET /api/v1/namespaces/a/pods/b/log", Asked("get", "", "pods", "log", "a", "b")),
        ("GET /api/v1/namespaces/a/pods?watch=true", Asked("watch", "", "pods", "", "a")),
        ("GET /api/v1/watch/namespaces/a/pods", Asked("watch", "", "pods", "", "a")),
        ("POST /apis/apps/v1/namespaces/a/deployments",
         Asked("create", "apps", "deployments", "", "a")),
        ("PUT /apis/apps/v1/namespaces/a/deployments/b/status",
         Asked("update", "apps", "deployments", "status", "a", "b")),
        ("PATCH /api/v1/nodes/n", Asked("patch", "", "nodes", "", "", "n")),
        ("DELETE /api/v1/namespaces/a", Asked("delete", "", "namespaces", "", "", "a")),
        ("DELETE /api/v1/namespaces/a/pods", Asked("deletecollection", "", "pods", "", "a")),
        ("PUT /api/v1/namespaces/a/status", Asked("update", "", "namespaces", "status", "", "a")),
        ("GET /healthz", Asked("")),
        ("GET /apis/apps/v1", Asked("")),
        ("GET /api/v1", Asked("")),
    ],
)  # fmt: skip
def test_a_request_is_understood(line: str, meant: Asked) -> None:
    method, _, rest = line.partition(" ")
    path, _, query = rest.partition("?")
    assert asked(method, path, dict(each.split("=") for each in query.split("&") if each)) == meant


def test_everything_that_is_given_must_fit() -> None:
    one = Asked("update", "apps", "deployments", "status", "shop", "web")
    for fits in (
        {}, {"resources": ["deployments/*"]}, {"resources": ["deployments.apps/status"]},
        {"namespaces": ["sh*"], "names": ["web"], "verbs": ["update"]}, {"agents": ["kube-*"]},
    ):  # fmt: skip
        assert Error.model_validate(fits).fits(one, "kube-controller/1")
    for other in (
        {"resources": ["deployments"]}, {"verbs": ["get"]}, {"namespaces": ["x"]},
        {"agents": ["kubectl*"]}, {"names": ["x", "y"]},
    ):  # fmt: skip
        assert not Error.model_validate(other).fits(one, "kube-controller/1")
    assert not Error().fits(Asked(""), "any"), "health and discovery are left alone"
    assert not Stale().fits(one, "any"), "it is about reads"


def test_a_line_is_a_fault() -> None:
    made = of_line("error,status=409,verbs=update+patch,percent=30%,duration=2m,seed=7", 3)
    assert (made.fault, made.name, made.seconds, made.seed) == (
        "apiclient.error", "error-3", 120.0, "7",
    )  # fmt: skip
    assert isinstance(made.params, Error)
    assert made.params.verbs == ["update", "patch"]
    assert of_line("watch-delay,delay=2s").fault == "apiclient.watch_delay"
    for bad, error in (
        ("error,409", UsageError), ("nothing", UnknownName), ("error,status=200", FaultlineError),
        ("latency", FaultlineError), ("latency,delay=2", FaultlineError),
    ):  # fmt: skip
        with pytest.raises(error):
            of_line(bad)


def test_the_example_can_be_read() -> None:
    assert [each.name for each in of_file(ROOT / "examples/kube-proxy/conflicts.yaml")] == [
        "conflicts", "late",
    ]  # fmt: skip


def test_what_a_file_may_not_say(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    one = (
        "kind: Fault\nmetadata: {name: a}\nspec: {fault: apiclient.latency, params: {delay: 1s}}\n"
    )
    file.write_text("")
    assert of_file(file) == []
    for bad in (
        f"{one}---\n{one}", one.replace("Fault", "Probe"), one.replace("name", "other"),
        one.replace("params", "target: {pid: 1}, params"), one.replace("delay: 1s", "delay: 1"),
    ):  # fmt: skip
        file.write_text(bad)
        with pytest.raises(FaultlineError):
            of_file(file)
    with pytest.raises(UsageError, match="cannot be read"):
        of_file(tmp_path / "nothing.yaml")


def drawn(seed: str) -> list[bool]:
    active = Active(of_line(f"error,percent=30%,seed={seed}"), 0.0)
    return [active.draws() for _ in range(1000)]


def test_chance_is_the_same_with_the_same_seed() -> None:
    assert drawn("a") == drawn("a") != drawn("b")
    assert 220 < sum(drawn("a")) < 380


def test_what_it_says_of_itself() -> None:
    active = Active(of_line("latency,delay=100ms"), 0.0)
    assert active.reading().reason == "no request fits"
    active.draws()
    active.note(0.01)
    assert active.reading().reason == "shorter than was asked"
    active.values.clear()
    active.note(0.102, again=True)
    assert active.reading().effect == "effective"
    rare = Active(of_line("error,percent=0.001%"), 0.0)
    rare.draws()
    assert "chance" in rare.reading().reason
    assert isinstance(active.params, Latency)


def test_faults_begin_once_and_end_at_their_deadline() -> None:
    now = [0.0]

    async def tried() -> list[dict[str, Any]]:
        faults = Faults(lambda: now[0])
        wish = of_line("latency,delay=1s,duration=10s")
        faults.want([wish])
        assert faults.any_on
        now[0] = 11.0
        assert faults.tick()
        faults.want([wish])
        assert not faults.any_on, "its time is over, whatever still stands in the file"
        faults.want([])
        faults.want([wish])
        assert faults.any_on, "but it may be asked for anew"
        return faults.to_json()

    assert [each["active"] for each in asyncio.run(tried())] == [False, True]


def test_a_timeline_knows_what_was_known() -> None:
    now = [0.0]
    line = Timeline(lambda: now[0])
    lag = Active(of_line("stale,behind=2s"), 0.0)
    still = Active(of_line("stale"), 0.0)
    assert isinstance(lag.params, Stale)
    assert isinstance(still.params, Stale)
    assert line.view(lag, lag.params) is None
    for at, version in ((0.1, "10"), (1.0, "11"), (3.0, "12"), (3.1, "none")):
        now[0] = at
        line.note(version)
    now[0] = 4.0
    assert line.view(lag, lag.params) == (11, 2.0)
    assert line.view(still, still.params) == (10, 4.0)


def test_answers_are_those_of_an_api_server() -> None:
    assert answers.readable("application/vnd.kubernetes.protobuf,application/json") == (
        "application/json"
    )
    assert answers.readable("application/vnd.kubernetes.protobuf") == "application/json"
    assert b'"reason": "Conflict"' in answers.status(409)
    assert answers.alone(b'{"kind": "PodList", "apiVersion": "v1", "items": []}') is None
    one = answers.alone(b'{"kind": "PodList", "apiVersion": "v1", "items": [{"a": 1}]}')
    assert one == b'{"kind": "Pod", "apiVersion": "v1", "a": 1}'


def test_every_fault_and_parameter_stands_in_the_documentation() -> None:
    page = (ROOT / "docs/proxy-kubernetes.md").read_text()
    for name, model in FAULTS.items():
        assert f"`{name}`" in page
        for field in model.model_fields:
            assert f"`{field}`" in page, field
