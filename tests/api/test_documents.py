from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.api import admission
from faultline.api.document import Problem, parse
from faultline.api.expectation import Expect, Interval, cel_problem, judge, read_interval
from faultline.api.experiment import Experiment
from faultline.api.kinds import KINDS, read_resource
from faultline.api.run import Phase, Run, RunSpec, Stage
from faultline.errors import InvalidDocument, InvalidParameter, UnknownName

BASE = """
apiVersion: faultline.dev/v1alpha1
kind: Experiment
metadata: {name: slow}
spec:
  title: A slow network
  parameters:
    latency: {type: duration, default: 100ms}
    site: {type: string}
  hypothesis: {text: it holds, probes: [answers]}
  probes:
    - {name: answers, type: http, url: "http://${site}/", expect: ",300ms", mode: during}
  faults:
    - name: slow
      fault: network.delay
      duration: 5s
      params: {latency: "${latency}", price: "$${"}
"""


def document(**spec: Any) -> dict[str, Any]:
    data = parse(BASE)
    data["spec"].update(spec)
    return data


def no_fault_is_wrong(fault: str, params: dict[str, Any]) -> list[Problem]:
    return []


def problems(**spec: Any) -> list[str]:
    return [one.path for one in admission.problems(document(**spec), no_fault_is_wrong)]


def test_parameters_are_filled_in_and_what_is_escaped_stays() -> None:
    made = admission.resolve(document(), {"site": "[::1]:80"})
    assert made.spec.probes[0].url == "http://[::1]:80/"  # type: ignore[union-attr]
    assert made.spec.faults[0].params == {"latency": "100ms", "price": "${"}


@pytest.mark.parametrize(
    ("given_values", "error", "text"),
    [
        ({}, InvalidParameter, "parameters.site"),
        ({"site": "a", "color": "red"}, UnknownName, "color"),
        ({"site": "a", "latency": "100"}, InvalidParameter, "unit"),
    ],
)
def test_wrong_parameters_are_named(
    given_values: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        admission.resolve(document(), given_values)


@given(st.text())
def test_a_value_never_becomes_structure(text: str) -> None:
    data = document(description="${site}")
    filled = admission.filled(data, {"site": text})
    assert filled["spec"]["description"] == text


PROBE = {"name": "p", "type": "tcp", "host": "h", "port": 1}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"guards": ["nobody"]}, "spec.guards.0"),
        ({"steadyState": ["nobody"]}, "spec.steadyState.0"),
        ({"discovery": {"probe": "nobody"}}, "spec.discovery.probe"),
        ({"hypothesis": {"text": "t", "probes": ["x", "y"]}}, "spec.hypothesis.probes.0"),
        ({"hypothesis": {"text": "t", "probes": []}}, "spec.hypothesis.probes"),
        ({"probes": [PROBE | {"interval": "1"}]}, "spec.probes.0.interval"),
        ({"probes": [PROBE | {"port": 0}]}, "spec.probes.0.port"),
        ({"probes": [PROBE | {"type": "carrier-pigeon"}]}, "spec.probes.0"),
        ({"probes": [{"name": "p", "type": "http"}]}, "spec.probes.0.url"),
        ({"probes": [{"name": "p", "type": "command", "command": []}]}, "spec.probes.0.command"),
        ({"probes": [PROBE | {"expect": {"cel": "value <"}}]}, "spec.probes.0.expect"),
        ({"probes": [PROBE | {"expect": {"cel": "valeu < 1.0"}}]}, "spec.probes.0.expect"),
        ({"probes": [PROBE | {"expect": ",300"}]}, "spec.probes.0"),
        ({"faults": []}, "spec.faults"),
        ({"faults": [{"name": "f", "fault": "network.delay", "duration": 5}]},
         "spec.faults.0.duration"),
        ({"faults": [{"name": "f", "fault": "delay"}]}, "spec.faults.0.fault"),
        ({"traffic": [{"type": "http", "name": "t", "url": "http://h/"}]}, "spec.traffic.0"),
        ({"tittle": "x"}, "spec.tittle"),
        ({"baseline": "-1s"}, "spec.baseline"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    assert path in problems(**change)


def test_names_are_unique_and_traffic_probes_name_traffic_that_exists() -> None:
    probes = [PROBE, PROBE, {"name": "t", "type": "traffic", "traffic": "none"}]
    found = problems(probes=probes, hypothesis={"text": "t", "probes": ["p"]})
    assert found == ["spec.probes.0.name", "spec.probes.2.traffic"]


def test_what_the_registry_finds_wrong_with_a_fault_has_its_path_in_the_document() -> None:
    def check(fault: str, params: dict[str, Any]) -> list[Problem]:
        assert (fault, params["latency"]) == ("network.delay", "100ms")
        return [Problem("params.latency", "1us to 1h")]

    found = admission.problems(document(), check)
    assert [one.path for one in found] == ["spec.faults.0.params.latency"]


def test_a_document_without_problems_has_none() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "a: 1\na: 2", "apiVersion: v1\nkind: Pod", "{{{", ""]
)
def test_text_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument):
        read_resource(parse(text))


def test_dates_stay_text() -> None:
    assert parse("a: 2024-01-01") == {"a": "2024-01-01"}


def test_a_run_comes_back_equal_from_json() -> None:
    spec = admission.resolve(document(), {"site": "a"}).spec
    run = Run.model_validate(
        {"metadata": {"name": "r"}, "spec": RunSpec(experiment="e", resolved=spec)}
    )
    run.status.phase = Phase.WAIT
    again = Run.model_validate(json.loads(json.dumps(run.to_json())))
    assert again == run
    assert again.status.phase is Phase.WAIT
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_every_field_that_a_person_writes_has_help_and_a_schema() -> None:
    for kind, model in KINDS.items():
        schema = json.loads(json.dumps(model.model_json_schema()))
        assert schema["properties"]["spec"], kind
    definitions = Experiment.model_json_schema()["$defs"]
    for name in ("ExperimentSpec", "HttpProbe", "PrometheusProbe", "HttpTraffic", "FaultNode"):
        for field, entry in definitions[name]["properties"].items():
            assert field == "type" or entry.get("description"), f"{name}.{field} has no help"


def test_stages_and_phases_are_in_order() -> None:
    assert [phase.rank for phase in Phase] == list(range(len(Phase)))
    assert Stage.WAITING.rank < Stage.ACTIVE.rank < Stage.RECOVERING.rank < Stage.ENDED.rank


# ---------------------------------------------------------------------- expectations

INF = float("inf")


@pytest.mark.parametrize(
    ("text", "unit", "bounds"),
    [
        (",300ms", "s", (-INF, 0.3)),
        ("1s,", "s", (1.0, INF)),
        ("5", "", (5.0, 5.0)),
        ("-1.5, 2e3", "", (-1.5, 2000.0)),
        (",1%", "ratio", (-INF, 0.01)),
        ("1KiB,1MiB", "B", (1024.0, 1048576.0)),
        ("-10%,25%", "percent", (-10.0, 25.0)),
    ],
)
def test_intervals_are_read_with_their_units(text: str, unit: Any, bounds: Any) -> None:
    assert read_interval(text, unit) == Interval(*bounds)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("300", "s"), ("1%", ""), ("0.1", "ratio"), ("5", "B"), ("2,1", ""), ("1,2,3", ""), (",", "")],
)
def test_intervals_with_a_wrong_unit_or_order_are_refused(text: str, unit: Any) -> None:
    with pytest.raises(InvalidParameter):
        read_interval(text, unit)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_an_interval_holds_exactly_what_lies_within(a: float, b: float, value: float) -> None:
    low, high = sorted((a, b))
    expect = Expect(interval=f"{low!r},{high!r}")
    assert judge(expect, "", value, {}, None).ok is (low <= value <= high)


def judged(expect: object, value: float | None, initial: float | None = None) -> bool | None:
    return judge(Expect.model_validate(expect), "s", value, {"code": 200}, initial).ok


def test_expectations_know_true_false_and_unknown() -> None:
    assert judged(",1s", 0.5) is True
    assert judged(",1s", 1.5) is False
    assert judged(",1s", None) is None
    assert judged(",1s", float("nan")) is None
    relative = {"interval": ",10%", "relative": "percent"}
    assert judged(relative, 1.05, 1.0) is True
    assert judged(relative, 1.2, 1.0) is False
    assert judged(relative, 1.2) is None
    assert judged(relative, 1.2, 0.0) is None
    assert judged({"interval": ",100ms", "relative": "difference"}, 1.05, 1.0) is True
    assert judged({"cel": "value < 2.0 * initial && result.code == 200"}, 1.0, 1.0) is True
    assert judged({"cel": "result.missing == 1"}, 1.0) is None
    assert judged({"cel": "value + 1.0"}, 1.0) is None
    assert judged({"cel": "[value].exists(v, v > 0.5)"}, 1.0) is True


@pytest.mark.parametrize(
    "text",
    ["size(result.list) > 0", "has(result.code)", "result.all(k, k != '')", "value > double('1')",
     "result['a'].startsWith('b')"],
)  # fmt: skip
def test_expressions_over_what_is_known_are_accepted(text: str) -> None:
    assert cel_problem(text, ("value", "result", "initial")) == ""


@pytest.mark.parametrize("text", ["value <", "valeu < 1", "system('x')", "result.all(k, kk != '')"])
def test_expressions_that_cannot_work_are_refused(text: str) -> None:
    assert cel_problem(text, ("value", "result", "initial"))


def test_the_examples_are_valid() -> None:
    folder = Path(__file__).parents[2] / "examples"
    files = sorted(folder.glob("*.yaml"))
    assert files
    for file in files:
        assert admission.problems(parse(file.read_text()), no_fault_is_wrong) == [], file.name


@pytest.mark.parametrize("text", ["[" * 300_000, "{a: " * 200])
def test_what_is_deeper_than_any_document_is_refused_before_it_is_built(text: str) -> None:
    with pytest.raises(InvalidDocument, match="more than"):
        parse(text)


def test_what_grows_by_reference_is_refused_before_it_is_built() -> None:
    lines = [f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(InvalidDocument, match="more than"):
        parse("k0: &k0 [x]\n" + "\n".join(lines))
