"""Messages of Kafka: against the cluster that librdkafka has for tests, which speaks the protocol
over TCP, or against the real one that FAULTLINE_KAFKA names.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.traffic.harness import turns, users
from tests.traffic.servers import free_port, program

from faultline.traffic.driver import CannotBegin

pytest.importorskip("aiokafka")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    if named := os.environ.get("FAULTLINE_KAFKA"):
        yield named.split(",")
        return
    kcat = program("kcat", "kcat")
    log = tmp_path_factory.mktemp("kafka") / "log"
    words = ["-P", "-b", "127.0.0.1:1", "-X", "test.mock.num.brokers=2", "-X", "debug=mock"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [kcat, *words, "-t", "any"], stdin=subprocess.PIPE, stdout=out, stderr=out
        )
    with process:
        yield _said(log, process)
        process.kill()


def _said(log: Path, process: subprocess.Popen[bytes]) -> list[str]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"bootstrap\.servers=(\S+)", log.read_text()):
            return found[1].split(",")
        time.sleep(0.02)
    raise AssertionError(log.read_text()[-2000:])


def kafka(servers: list[str], **fields: Any) -> dict[str, Any]:
    return {"type": "kafka", "servers": servers, "topic": "faultline-traffic", **fields}


def test_messages_come_back_or_are_only_taken(servers: list[str]) -> None:
    for given in ({}, {"mode": "produce"}, {"messageKey": "{{number}}", "acks": "leader"}):
        tick = turns(kafka(servers, **given), 10)
        assert (tick.sent, tick.ok, tick.errors) == (10, 10, {}), given
        assert tick.latency


def test_users_wait_for_their_messages(servers: list[str]) -> None:
    tick = users({**kafka(servers), "concurrency": 3}, 0.5)
    assert tick.ok == tick.sent >= 3


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(CannotBegin, match="no use of topic"):
        turns(kafka([f"127.0.0.1:{free_port()}"], timeout="300ms"), 1)
