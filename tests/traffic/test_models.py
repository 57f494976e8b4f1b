"""What a document of traffic may say, and how it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from faultline.api.document import parse, problems_of
from faultline.api.kinds import read_resource
from faultline.api.traffic import Traffic, TrafficSpec

READ: TypeAdapter[Any] = TypeAdapter(TrafficSpec)
HTTP = {"type": "http", "name": "t", "url": "http://h/", "rate": 1.0}
SHOP = {"type": "http", "name": "t", "baseUrl": "http://h", "rate": 1.0}
SQL = {"type": "sql", "name": "t", "url": "postgresql://me@h/db", "rate": 1.0}


def steps(*given: dict[str, Any]) -> dict[str, Any]:
    return {**SHOP, "scenarios": [{"name": "buy", "steps": list(given)}]}


def complaint(data: dict[str, Any]) -> str:
    try:
        READ.validate_python(data)
    except ValidationError as error:
        return "; ".join(str(problem) for problem in problems_of(error, data))
    return ""


@pytest.mark.parametrize(
    "data",
    [
        HTTP,
        {**HTTP, "stages": [{"duration": "10s", "rate": 100}, {"duration": "0s", "rate": 0}]},
        {**HTTP, "body": "{{id}} {{uuid}}", "feed": {"rows": [{"id": 1}, {"id": 2}]}},
        {**HTTP, "body": "{{whatever}}", "feed": {"file": "/data/users.csv"}},
        {**HTTP, "headers": {"Authorization": {"env": "TOKEN"}, "X": "{{uuid}}"}},
        steps(
            {"path": "/login", "extract": [{"name": "id", "jsonPath": "$.id"}]},
            {"path": "/users/{{id}}", "method": "DELETE"},
        ),
        {**SQL, "statements": [{"sql": "select :a", "params": {"a": "{{number}}"}}]},
        {"type": "redis", "name": "t", "concurrency": 2, "commands": [["INCR", "a"]]},
        {"type": "grpc", "name": "t", "host": "h", "port": 1, "rate": 1},
        {"type": "kafka", "name": "t", "servers": ["h:1"], "topic": "x", "rate": 1},
        {"type": "tcp", "name": "t", "host": "h", "port": 1, "rate": 1},
        {"type": "udp", "name": "t", "host": "h", "port": 1, "rate": 1, "workers": 2},
    ],
)
def test_a_good_document_survives_its_json(data: dict[str, Any]) -> None:
    spec = READ.validate_python(data)
    assert READ.validate_python(spec.to_json()) == spec
    assert spec.where()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "t", "url": "http://h/", "rate": 1}, "type: required"),
        ({**HTTP, "concurrency": 2}, "exactly one of rate"),
        ({**HTTP, "stages": [{"duration": "1s", "concurrency": 2}]}, "stages.0"),
        ({**HTTP, "think": "2s", "thinkMost": "1s"}, "thinkMost"),
        ({**HTTP, "body": "{{id}}"}, "body"),
        ({**HTTP, "body": "{{id}}", "feed": {"rows": [{"a": 1}]}}, "not id"),
        ({**HTTP, "feed": {"rows": [{"a": 1}, {"b": 1}]}}, "rows.1"),
        ({**HTTP, "feed": {}}, "exactly one of file and rows"),
        ({**HTTP, "basic": {"user": "a", "password": {"env": "A"}}, "bearer": {"env": "B"}}, "at"),
        ({**HTTP, "scenarios": steps({})["scenarios"]}, "exactly one of url and scenarios"),
        (steps({"path": "/{{id}}"}), "scenarios.0.steps.0"),
        (steps({"path": "/{{id}}", "extract": [{"name": "id", "header": "x"}]}), "steps.0"),
        (steps({"extract": [{"name": "id", "jsonPath": "$..[?"}]}), "extract.0.jsonPath"),
        (steps({"extract": [{"name": "id"}]}), "exactly one of jsonPath"),
        ({**SQL, "statements": []}, "statements"),
        ({"type": "tcp", "name": "t", "host": "h", "port": 1, "rate": 1, "payload": "x",
          "encoding": "hex"}, "hex"),
        ({"type": "udp", "name": "t", "host": "h", "port": 1, "rate": 1, "answer": False,
          "pattern": "x"}, "answer"),
        ({"type": "grpc", "name": "t", "host": "h", "port": 1, "rate": 1, "body": {"a": 1}}, "m"),
        ({"type": "kafka", "name": "t", "servers": ["h:1"], "topic": "x", "rate": 1, "user": "a"},
         "together"),
    ],
)  # fmt: skip
def test_a_bad_document_is_refused_where_it_is_bad(data: dict[str, Any], said: str) -> None:
    assert said in complaint(data)


@pytest.mark.parametrize(
    "data",
    [
        {**SQL, "url": "postgresql://me:hunter2@h/db", "statements": [{"sql": "select 1"}]},
        {**SQL, "url": "postgresql://h/db?password=hunter2", "statements": [{"sql": "select 1"}]},
        {**SQL, "url": "post gresql://me:hunter2@h/db", "statements": [{"sql": "select 1"}]},
        {**HTTP, "url": "http://me:hunter2@h/"},
        {**HTTP, "url": "ftp://me:hunter2@h/"},
        {**SHOP, "baseUrl": "http://me:hunter2@h/", "scenarios": steps({})["scenarios"]},
        steps({"url": "http://me:hunter2@h/"}),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(data: dict[str, Any]) -> None:
    said = complaint(data)
    assert said
    assert "hunter2" not in said


def test_the_example_of_the_page_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "traffic.md").read_text()
    document = parse(page.split("```yaml\n")[1].split("```")[0])
    traffic = read_resource(document)
    assert isinstance(traffic, Traffic)
    assert traffic.spec.where() == "scenarios at http://127.0.0.1:8080"
