"""Files of other tools, and what becomes of each of their parts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from faultline.api.document import read
from faultline.api.traffic import HttpTraffic, Traffic
from faultline.engine.runs import validate
from faultline.errors import InvalidDocument
from faultline.traffic.importing import reading

DATA = Path(__file__).parent / "data"


def spec_of(name: str) -> tuple[dict[str, Any], list[str]]:
    """The `spec` made from a file, which is valid, and the notes."""
    document, plan = reading.imported(DATA / name)
    assert isinstance(read(Traffic, document).spec, HttpTraffic)
    assert yaml.safe_load(reading.write(document, plan)) == document
    return document["spec"], plan.notes.lines()


def steps_of(spec: dict[str, Any], scenario: int = 0) -> list[dict[str, Any]]:
    return spec["scenarios"][scenario]["steps"]


def test_a_plan_of_jmeter() -> None:
    spec, _ = spec_of("shop.jmx")
    assert spec["baseUrl"] == "https://shop.example:8443"
    assert spec["concurrency"] == 1
    assert spec["stages"] == [{"duration": "15s", "concurrency": 40}]
    assert spec["duration"] == "120s"
    assert spec["redirects"] == 5
    assert "cookies" not in spec  # it has a cookie manager
    assert [each["name"] for each in spec["scenarios"]] == ["buyers", "robots"]
    assert [each["weight"] for each in spec["scenarios"]] == [30, 10]
    assert [each.get("continueOnFailure") for each in spec["scenarios"]] == [None, True]
    names = [step["name"] for step in steps_of(spec)]
    assert names == ["Login", "Look", "Look", "Buy", "Elsewhere"]  # a loop of two


def test_what_the_requests_of_jmeter_have() -> None:
    spec, _ = spec_of("shop.jmx")
    login, look, _, buy, elsewhere = steps_of(spec)
    assert login["body"] == "user={{name}}&why=a%20%26%20b"
    assert login["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
    assert login["code"] == "200,201"
    assert login["extract"] == [
        {"name": "token", "jsonPath": "$.token"},
        {"name": "basket", "jsonPath": "$.baskets[0].id", "default": "none"},
    ]
    assert look["path"] == "/items?q=red%20shoes"
    assert look["headers"]["Authorization"] == "Bearer {{token}}"  # an answer gave it
    assert re.search(look["pattern"], '{"items": [\n"shoe"]}')
    assert not re.search(look["pattern"], '{"items": []}')
    assert buy["think"] == "600ms"
    assert '"basket": "{{basket}}", "id": "{{uuid}}", "cents": {{price}}' in buy["body"]
    assert buy["extract"] == [{"name": "order", "pattern": '"order":(\\d+)', "default": "0"}]
    assert elsewhere["url"] == "http://pay.example/orders/{{order}}"
    assert steps_of(spec, 1)[0]["path"] == "/sitemap.xml"
    assert spec["headers"] == {"Accept": "application/json"}
    assert login["headers"]["X-Api-Key"] == {"env": "X_API_KEY"}  # two places: not for all


def test_rows_of_jmeter_and_texts_that_only_look_like_places() -> None:
    spec, notes = spec_of("shop.jmx")
    assert '"form": "{{text1}}"' in steps_of(spec)[3]["body"]
    first, second = spec["feed"]["rows"]
    assert first == {"name": "anna", "password": "one", "price": "", "text1": "{{plain}}"}
    assert second["name"] == "bert"
    assert any("no value for price" in note for note in notes)


def test_nothing_of_jmeter_is_dropped_in_silence() -> None:
    _, notes = spec_of("shop.jmx")
    for word in ("View Results Tree", "Prepare", "By XPath", "Sometimes", "Thinks", "Groovy", "Old",
                 "Come in", "X-Api-Key"):  # fmt: skip
        assert any(word in note for note in notes), word


def test_a_har() -> None:
    spec, notes = spec_of("shop.har")
    first, script, login, put = steps_of(spec)
    assert spec["headers"] == {"User-Agent": "Browser/1"}
    assert first == {"path": "/", "headers": {"Accept": "text/html"}}
    assert script == {"url": "https://cdn.example/app.js?v={{text1}}", "code": "200-399,404"}
    assert (login["think"], login["body"]) == ("4s", "user=anna+b&password=one")
    assert login["headers"]["X-CSRF-Token"] == {"env": "SHOP_EXAMPLE_X_CSRF_TOKEN"}
    assert (put["method"], put["path"], put["think"]) == ("PUT", "/basket?item=7", "800ms")
    assert put["headers"]["Authorization"] == {"env": "SHOP_EXAMPLE_AUTHORIZATION"}
    assert spec["feed"]["rows"] == [{"text1": "{{hash}}", "text2": "{{name}}"}]
    for word in ("Cookie", "WebSocket", "PROPFIND", "404", "secret as it was recorded"):
        assert any(word in note for note in notes), word


def test_a_collection_of_postman() -> None:
    spec, notes = spec_of("shop.postman.json")
    assert spec["baseUrl"] == "https://shop.example"
    assert spec["bearer"] == {"env": "API_TOKEN"}
    assert [each["name"] for each in spec["scenarios"]] == ["catalogue", "orders", "shop-api"]
    listed, one = steps_of(spec)
    assert listed["path"] == "/api/items?size=20&q=a%20b"
    assert listed["headers"] == {"Accept": "application/json"}
    assert listed["extract"] == [{"name": "itemId", "jsonPath": "$.items[0].id"}]
    assert listed["code"] == "200"
    assert one["path"] == "/api/items/{{itemId}}"
    order, form, graph, upload = steps_of(spec, 1)
    assert order["body"] == '{"id": "{{uuid}}", "n": {{count}}}'
    assert order["headers"] == {"Content-Type": "application/json"}
    assert (form["url"], form["body"]) == ("http://shop.example/form", "a=1%20%26%202&b=20")
    assert graph["body"].startswith('{"query": "query { item(id: \\"{{itemNo}}\\") { name } }"')
    assert "body" not in upload
    for word in ("apiToken", "prerequest", "kind file", "count", "itemNo"):
        assert any(word in note for note in notes), word


def test_folders_of_postman_that_pass_values_are_one_scenario(tmp_path: Path) -> None:
    script = {"listen": "test", "script": {"exec": "pm.globals.set('t', res.data['a b'].t)"}}
    login = {"name": "Login", "event": [script], "request": "http://x.example/login"}
    auth = {"type": "bearer", "bearer": {"token": "{{t}}"}}
    use = {"name": "Use", "request": {"method": "GET", "url": "http://x.example/use", "auth": auth}}
    folders = [{"name": "A", "item": [login]}, {"name": "B", "item": [use]}]
    file = tmp_path / "two.json"
    file.write_text(yaml.safe_dump({"info": {"name": "Two"}, "item": folders}))
    document, plan = reading.imported(file)
    (scenario,) = document["spec"]["scenarios"]
    first, second = scenario["steps"]
    assert first["extract"] == [{"name": "t", "jsonPath": "$.data.'a b'.t"}]
    assert second["headers"] == {"Authorization": "Bearer {{t}}"}
    assert any("one scenario" in note for note in plan.notes.lines())


def test_an_openapi_document() -> None:
    spec, notes = spec_of("shop.openapi.yaml")
    assert spec["baseUrl"] == "https://eu.shop.example"
    names = [each["name"] for each in spec["scenarios"]]
    assert names == ["list-items", "post-items", "one-item", "login"]
    assert all("weight" not in each for each in spec["scenarios"])
    (listed,), (made,), (one,), (login,) = (each["steps"] for each in spec["scenarios"])
    assert listed["path"] == "/v1/items?size=5"
    assert listed["headers"] == {"tenant": "acme", "X-Shop-Key": {"env": "KEY"}}
    assert yaml.safe_load(made["body"]) == {
        "name": "text", "price": 1, "kind": "shoe", "tags": ["textxx", "textxx"],
        "made": "2024-01-01T00:00:00Z", "parent": {"of": None}, "weight": -3,
    }  # fmt: skip
    assert made["code"] == "200-299,201"
    assert one["path"].startswith("/v1/items/00000000-")
    assert "headers" not in one  # it wants no key
    assert login["headers"]["Authorization"] == {"env": "WEB"}
    assert login["body"] == "user=anna&why=a+%26+b"
    for word in ("example of size", "deprecated", "may change data: post /items, login", "$WEB"):
        assert any(word in note for note in notes), word


def test_a_token_that_every_operation_wants_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(
        "openapi: 3.0.3\ninfo: {title: T, version: '1'}\nsecurity: [{jwt: []}]\n"
        "paths: {/a: {get: {responses: {200: {description: ok}}}}, /b: {get: {responses: {}}}}\n"
        "components: {securitySchemes: {jwt: {type: http, scheme: bearer}}}\n"
    )
    spec = reading.imported(file)[0]["spec"]
    assert spec["bearer"] == {"env": "JWT"}
    assert [step["url"] for each in spec["scenarios"] for step in each["steps"]] == [
        "http://{{host}}/a",
        "http://{{host}}/b",
    ]
    assert spec["feed"]["rows"] == [{"host": ""}]


def test_many_operations_become_fewer_scenarios(tmp_path: Path) -> None:
    paths = {f"/p{n}": {"get": {"responses": {}}} for n in range(120)}
    file = tmp_path / "api.json"
    servers = [{"url": "https://a.example"}]
    file.write_text(yaml.safe_dump({"openapi": "3.0.0", "servers": servers, "paths": paths}))
    spec = reading.imported(file)[0]["spec"]
    assert len(spec["scenarios"]) == 40
    assert sum(len(each["steps"]) for each in spec["scenarios"]) == 120


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "haha"><!ENTITY c "&b;&b;&b;">]>
<jmeterTestPlan><hashTree>&c;</hashTree></jmeterTestPlan>"""
FETCHES = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<jmeterTestPlan>&x;</jmeterTestPlan>"""


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (LAUGHS, "has a document type"),
        (LAUGHS.decode().encode("utf-16"), "is not YAML"),
        (FETCHES, "has a document type"),
        (b"<a>", "is not XML"),
        (b"<a>" * 1000, "nested too deeply"),
        (b"<jmeterTestPlan/>", "no request that could be sent"),
        (b"", "not a mapping"),
        (b"{", "is not JSON"),
        (b"[1]", "not a mapping"),
        (b"a: 1", "neither a plan of JMeter, a HAR, a collection of Postman nor OpenAPI"),
        (b'{"swagger": "2.0"}', "version 2.0; 3.x is read"),
        (b'{"log": {"entries": []}}', "no request that could be sent in a HAR"),
        (b'{"item": [{"name": "x"}]}', "neither a folder nor a request"),
        (b'{"a":' * 100_000, "is not JSON|nested too deeply"),
    ],
)
def test_what_cannot_be_imported_says_why(tmp_path: Path, content: bytes, wanted: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InvalidDocument) as caught:
        reading.imported(file)
    assert re.search(wanted, str(caught.value))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="cannot be read: No such file"):
        reading.imported(tmp_path / "not")


def test_the_written_document_passes_validate(tmp_path: Path) -> None:
    for name in ("shop.jmx", "shop.har", "shop.postman.json", "shop.openapi.yaml"):
        document, plan = reading.imported(DATA / name)
        file = tmp_path / "made.yaml"
        file.write_text(reading.write(document, plan))
        assert validate(file, lambda *_: []) == []
