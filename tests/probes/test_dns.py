"""dns against a real name server, and against one of our own that misbehaves."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.api.probe import Measurement
from faultline.probes import dnswire

Measure = Callable[..., Measurement]
Answering = Callable[[Callable[[bytes], list[bytes]]], str]


@pytest.mark.parametrize(
    ("record", "query", "answers"),
    [
        ("A", "web.test", ["192.0.2.7"]),
        ("A", "www.test", ["192.0.2.7"]),  # over a CNAME
        ("AAAA", "web.test", ["2001:db8::7"]),
        ("CNAME", "www.test", ["web.test"]),
        ("MX", "test", ["10 mail.test"]),
        ("TXT", "note.test", ["v=spf1 -allsecond"]),
        ("SRV", "_sip._tcp.test", ["1 2 5060 sip.test"]),
        ("PTR", "192.0.2.7", ["web.test"]),
    ],
)
def test_every_record_of_a_real_server_is_read(
    measure: Measure, name_server: str, record: str, query: str, answers: list[str]
) -> None:
    found = measure("dns", query=query, record=record, server=name_server)
    assert found.ok is True, found.text
    assert found.result["answers"] == answers
    assert found.value is not None
    assert 0 < found.value < 5


def test_a_long_answer_is_fetched_over_tcp(measure: Measure, name_server: str) -> None:
    found = measure("dns", query="many.test", server=name_server)
    assert found.ok is True
    assert len(found.result["answers"]) == 120


def test_a_name_that_does_not_exist_is_false(measure: Measure, name_server: str) -> None:
    found = measure("dns", query="nobody.test", server=name_server)
    assert found.ok is False
    assert "NXDOMAIN" in found.text


def test_a_record_that_does_not_exist_is_false(measure: Measure, name_server: str) -> None:
    found = measure("dns", query="note.test", record="A", server=name_server)
    assert found.ok is False


def test_expected_answers_must_be_among_those_received(measure: Measure, name_server: str) -> None:
    fields = {"query": "WEB.test.", "server": name_server, "record": "AAAA"}
    assert measure("dns", answers=["2001:0DB8:0::7"], **fields).ok is True
    wrong = measure("dns", answers=["2001:db8::8"], **fields)
    assert wrong.ok is False
    assert "missing: 2001:db8::8" in wrong.text


@pytest.fixture
def answering() -> Iterator[Answering]:
    """A UDP server that sends what a function makes of each query."""
    wires: list[tuple[socket.socket, threading.Thread]] = []

    def serve(replies: Callable[[bytes], list[bytes]]) -> str:
        wire = socket.socket(type=socket.SOCK_DGRAM)
        wire.bind(("127.0.0.1", 0))

        def loop() -> None:
            while True:
                data, where = wire.recvfrom(4096)
                if not data:
                    return
                for reply in replies(data):
                    wire.sendto(reply, where)

        thread = threading.Thread(target=loop)
        thread.start()
        wires.append((wire, thread))
        return f"127.0.0.1:{wire.getsockname()[1]}"

    yield serve
    for wire, thread in wires:
        with socket.socket(type=socket.SOCK_DGRAM) as ender:
            ender.sendto(b"", wire.getsockname())
        thread.join()
        wire.close()


def reply_to(query: bytes, address: bytes = b"\xc0\x00\x02\x01", code: int = 0) -> bytes:
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, 1, 0, 0)
    return head + query[12:] + b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + address


def test_only_the_answer_to_this_question_counts(measure: Measure, answering: Answering) -> None:
    def replies(query: bytes) -> list[bytes]:
        other = bytes([query[0] ^ 1]) + reply_to(query, b"\x01\x01\x01\x01")[1:]
        return [b"\0", other, reply_to(query)]

    found = measure("dns", query="a.test", server=answering(replies))
    assert found.ok is True
    assert found.result["answers"] == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (lambda query: [], "no answer within 0.3 s"),
        (lambda query: [reply_to(query, code=2)], "SERVFAIL"),
        (lambda query: [reply_to(query)[:-2]], "broken answer"),
        (lambda query: [reply_to(query).replace(b"\xc0\x0c", b"\xc0\xff")], "broken answer"),
    ],
)
def test_what_a_bad_server_does_is_the_service_failing(
    measure: Measure, answering: Answering, replies: Callable[[bytes], list[bytes]], said: str
) -> None:
    found = measure("dns", query="a.test", server=answering(replies), timeout="300ms")
    assert found.ok is False
    assert said in found.text


def test_a_port_without_a_server_is_the_service_failing(measure: Measure, closed_port: int) -> None:
    found = measure("dns", query="a.test", server=f"127.0.0.1:{closed_port}")
    assert found.ok is False
    assert "connection refused" in found.text


@pytest.mark.parametrize("query", ["a..test", "x" * 64 + ".test", ".".join(["abcdefg"] * 40)])
def test_a_name_that_cannot_be_asked_for_is_unmeasured(measure: Measure, query: str) -> None:
    assert measure("dns", query=query, server="127.0.0.1:9").ok is None


@given(st.binary(max_size=300))
def test_no_bytes_whatever_break_the_reader(data: bytes) -> None:
    asked = dnswire.question("a.test", "TXT", 0x1234)
    for message in (data, asked[:2] + b"\x81\x80\x00\x01\x00\x02\0\0\0\0" + asked[12:] + data):
        try:
            dnswire.reply(message, asked)
        except dnswire.Malformed:
            continue
