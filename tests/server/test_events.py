"""Events: from now on, from behind the last one, and across what was missed."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.server.conftest import Client, Served, document, until
from tests.server.test_routes import spoiling

from faultline.server import events


@pytest.fixture
def call(served: Served) -> Client:
    return served.unix


def _to_end(stream: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for each in stream:
        found.append(each)
        if each["data"].get("phase") == "ended":
            return found
    raise AssertionError("the stream ended before the run")


def test_a_run_is_followed_to_its_verdict_and_from_where_somebody_left(call: Client) -> None:
    # Long enough that it is not over before anybody looks: then there is one event, and none later.
    name = call.post("/runs", document("followed", baseline="1s"))["metadata"]["name"]
    told = _to_end(call.events(f"/events?run={name}&since=0"))
    assert len(told) > 1
    assert {each["event"] for each in told} == {"run"}
    assert {each["data"]["name"] for each in told} == {name}
    assert told[-1]["data"]["verdict"] == "held"
    later = _to_end(call.events(f"/events?run={name}", last=told[0]["id"]))
    assert later[-1] == told[-1], "nothing that counts was missed"
    versions = [int(each["id"].partition(".")[0]) for each in told]
    assert versions == sorted(versions)


def test_what_happened_meanwhile_is_told_to_who_comes_back(call: Client, tmp_path: Path) -> None:
    stream = call.events("/events")
    call.post("/runs", document("stir", baseline="100ms"))
    heard = next(stream)
    stream.close()
    config = tmp_path / "app.conf"
    uid = call.post("/faults", spoiling(config))["uid"]
    call.delete(f"/faults/{uid}")
    again = call.events("/events", last=heard["id"])
    mine = (each for each in again if each["data"].get("uid") == uid)
    told = next(each for each in mine if each["data"]["state"] == "ended")
    assert (told["event"], told["data"]["end"]) == ("fault", "recovered")


def test_a_fault_is_told_as_it_goes(call: Client, tmp_path: Path) -> None:
    stream = call.events("/events")
    config = tmp_path / "app.conf"
    uid = call.post("/faults", spoiling(config))["uid"]
    mine = (each["data"] for each in stream if each["data"].get("uid") == uid)
    active = next(each for each in mine if each["state"] == "active")
    assert active["fault"] == "file.replace"
    call.delete(f"/faults/{uid}")
    assert next(each for each in mine if each["state"] == "ended")["end"] == "recovered"


def test_a_wrong_position_is_refused_and_so_are_too_many(
    call: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("x", "1.2.3", "-1", "9" * 30):
        assert call("GET", "/events", last_event_id=wrong).status == 400
    monkeypatch.setattr(events, "MOST", 0)
    refused = call("GET", "/events")
    assert (refused.status, refused.json()["retry"]) == (429, True)


def test_a_position_of_another_store_is_told(call: Client) -> None:
    told = list(call.events("/events", last="99999999.0"))
    assert [(each["event"], each["data"]["code"]) for each in told] == [("error", "expired")]


def test_who_has_gone_is_followed_no_more(call: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "BEAT", 0.1)
    streams = [call.events("/events?since=0") for _ in range(3)]
    for stream in streams:
        list(itertools.islice(stream, 1))
        stream.close()
    until(lambda: not any(t.name == "faultline events" for t in threading.enumerate()))
