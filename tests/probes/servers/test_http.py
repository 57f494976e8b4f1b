"""http in all it can do, against web servers with real certificates."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from faultline.api.probe import Measurement

Measure = Callable[..., Measurement]
Handler = http.server.BaseHTTPRequestHandler
Web = Callable[..., str]
DAY = 86400


def page(
    handler: Handler, body: bytes = b"fine", code: int = 200, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def as_json(data: Any) -> Callable[[Handler], None]:
    return lambda handler: page(handler, json.dumps(data).encode())


# --------------------------------------------------------------------------- JSON

ORDERS = {
    "count": 3,
    "open": True,
    "rate": "12.5",
    "items": [{"id": 1, "state": "new"}, {"id": 2, "state": "sent"}],
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.count", 3),
        ("$.open", 1),
        ("$.rate", 12.5),
        ("$.items", 2),
        ("$.items.`len`", 2),
        ("$.items[?(@.state=='sent')].id", 2),
    ],
)
def test_a_number_of_the_body_is_the_value(
    measure: Measure, web: Web, path: str, value: float
) -> None:
    found = measure("http", url=web(as_json(ORDERS)), jsonPath=path, measure="json")
    assert (found.ok, found.value) == (True, value), found.text


@pytest.mark.parametrize(
    ("path", "equals", "ok"),
    [
        ("$.count", 3, True),
        ("$.count", 4, False),
        ("$.open", True, True),
        ("$.open", 1, False),  # true is not 1 in JSON
        ("$.items[*].state", "new", False),  # all that is found must be equal
        ("$.items[0].state", "new", True),
        ("$.missing", None, False),
        ("$.none", None, True),
    ],
)
def test_what_stands_at_a_path_is_compared(
    measure: Measure, web: Web, path: str, equals: Any, ok: bool
) -> None:
    found = measure("http", url=web(as_json(ORDERS)), jsonPath=path, equals=equals)
    assert found.ok is ok, found.text
    assert path in found.text
    assert found.value == found.latency


@pytest.mark.parametrize(
    ("body", "path", "ok", "said"),
    [
        (b"<html>", "$.count", False, "not JSON"),
        (b'{"count": "many"}', "$.count", False, "no number"),
        (b'{"count": NaN}', "$.count", False, "nan"),
        (b'{"count": [1, 2]}', "$.count[*]", None, "2 values"),
        (b"[" * 200_000, "$.count", False, "not JSON"),
        (b'{"count": ' + b"9" * 5000 + b"}", "$.count", False, "not JSON"),
        (b'{"pad": "' + b"x" * (1 << 20) + b'"}', "$.count", None, "bytes"),
    ],
)
def test_a_body_without_that_number_is_told_apart(
    measure: Measure, web: Web, body: bytes, path: str, ok: bool | None, said: str
) -> None:
    url = web(lambda handler: page(handler, body))
    found = measure("http", url=url, jsonPath=path, measure="json")
    assert (found.ok, found.value) == (ok, None)
    assert said in found.text


def test_what_is_nested_deeply_is_shown_as_far_as_documents_go(measure: Measure, web: Web) -> None:
    body = b'{"a": ' * 300 + b"1" + b"}" * 300
    found = measure("http", url=web(lambda handler: page(handler, body)), jsonPath="$.a")
    assert found.ok is True
    assert "..." in str(Measurement.model_validate_json(found.model_dump_json()).result["json"])


# --------------------------------------------------------------------------- secrets


def test_secrets_are_sent_and_never_shown(
    measure: Measure, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    secret = 's3 "cret" & more/'
    monkeypatch.setenv("TOKEN", secret)
    (tmp_path / "password").write_text(secret + "\n")
    seen: list[dict[str, str]] = []

    def echo(handler: Handler) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items()})
        body = json.dumps({"you": dict(seen[-1]), "long": ("x" * 100 + secret) * 300})
        page(handler, body.encode(), headers={"X-Echo": secret})

    url = web(echo)
    for fields in (
        {"headers": {"X-Token": {"env": "TOKEN"}, "X-Plain": "plain"}},
        {"basic": {"user": "bob", "password": {"file": str(tmp_path / "password")}}},
        {"bearer": {"env": "TOKEN"}},
    ):
        for extra in ({}, {"pattern": "not there"}, {"jsonPath": "$.you"}):
            found = measure("http", url=url, **fields, **extra)
            told = found.model_dump_json()
            for form in (secret, json.dumps(secret)[1:-1], "cret", "Ym9iO", "%22cret"):
                assert form not in told
            assert "***" in told
    assert seen[0]["x-token"] == secret
    assert seen[0]["x-plain"] == "plain"
    assert seen[3]["authorization"].startswith("Basic Ym9iOn")
    assert seen[-1]["authorization"] == f"Bearer {secret}"


def test_a_secret_with_a_line_break_is_not_sent(
    measure: Measure, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "one\r\nX-Injected: two")
    found = measure("http", url=web(page), headers={"X-Token": {"env": "TOKEN"}})
    assert found.ok is None
    assert "line break" in found.text
    assert "Injected" not in found.text


# --------------------------------------------------------------------------- redirects


def test_redirects_are_followed_as_far_as_wanted(measure: Measure, web: Web) -> None:
    def hop(handler: Handler) -> None:
        number = int(handler.path.rpartition("/")[2])
        if number == 3:
            return page(handler, b"there, " + handler.command.encode())
        return page(handler, b"", 302, {"Location": f"/{number + 1}"})

    url = web(hop) + "/0"
    assert measure("http", url=url).result["code"] == 302
    found = measure("http", url=url, redirects=3, method="POST", body="x", code="200")
    assert (found.ok, found.result["body"]) == (True, "there, GET")
    assert found.result["url"].endswith("/3")
    found = measure("http", url=url, redirects=2)
    assert found.ok is False
    assert "more than 2 redirects" in found.text


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "http://[", "http://x:99999999/", "ftp://x"]
)
def test_a_redirect_to_what_is_not_http_is_not_followed(
    measure: Measure, web: Web, place: str
) -> None:
    url = web(lambda handler: page(handler, b"", 302, {"Location": place}))
    assert measure("http", url=url, redirects=5).ok is not True


def test_a_secret_is_not_sent_to_another_server(
    measure: Measure, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "the-secret-token")
    seen: list[Any] = []

    def other(handler: Handler) -> None:
        seen.append(dict(handler.headers.items()))
        page(handler)

    there = web(other)
    first = web(lambda handler: page(handler, b"", 307, {"Location": there + "/x"}))
    fields = {"bearer": {"env": "TOKEN"}, "headers": {"X-A": "1", "X-Key": {"env": "TOKEN"}}}
    assert measure("http", url=first, redirects=1, **fields).ok is True
    assert seen[0]["X-A"] == "1"
    assert "the-secret-token" not in str(seen)


# --------------------------------------------------------------------------- TLS


def test_a_ca_of_ones_own_is_trusted(measure: Measure, web: Web, authority: Any) -> None:
    url = web(page, tls=True)
    found = measure("http", url=url)
    assert (found.ok, found.value) == (False, None)
    assert found.text.startswith("TLS: ")
    assert measure("http", url=url, ca=authority.path("ca")).ok is True
    wrong = measure("http", url=url, ca=authority.path("ca"), serverName="other.test")
    assert wrong.ok is False
    assert "other.test" in wrong.text
    assert measure("http", url=url, ca=authority.path("ca"), serverName="shop.test").ok is True
    assert measure("http", url=url, ca="/nowhere.pem").ok is None


def test_the_value_is_how_long_the_certificate_is_valid(
    measure: Measure, web: Web, authority: Any
) -> None:
    for fields in ({"ca": authority.path("ca")}, {"verify": False}):
        found = measure("http", url=web(page, tls=True), measure="tlsExpiry", **fields)
        assert found.ok is True
        assert found.value is not None
        assert DAY - 3600 < found.value <= DAY
        assert found.result["tls"]["version"].startswith("TLSv1.")


def test_a_client_shows_its_certificate(
    measure: Measure, web: Web, authority: Any, password: dict[str, str]
) -> None:
    url, ca = web(page, tls=True, client=True), authority.path("ca")
    assert measure("http", url=url, ca=ca).ok is False
    shown = {"certificate": authority.path("client"), "key": authority.path("client-key")}
    assert measure("http", url=url, ca=ca, **shown, keyPassword=password).ok is True
    assert measure("http", url=url, ca=ca, **shown).ok is None  # never asked for at the terminal


# --------------------------------------------------------------------------- HTTP/2


def second(wire: Any) -> None:
    """Answers one request by HTTP/2."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, RequestReceived, StreamEnded

    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    wire.sendall(connection.data_to_send())
    asked: dict[str, str] = {}
    got = 0
    while data := wire.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, RequestReceived):
                asked = dict(event.headers)
            elif isinstance(event, DataReceived):
                got += len(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, StreamEnded):
                body = json.dumps(
                    {"path": asked[":path"], "got": got, "x": asked.get("x-a")}
                ).encode()
                connection.send_headers(1, [(":status", "200"), ("content-type", "json")])
                connection.send_data(1, body, end_stream=True)
        wire.sendall(connection.data_to_send())


def test_http2_with_and_without_tls(
    measure: Measure, raw: Callable[[Callable[[socket.socket], None]], int], authority: Any
) -> None:
    pytest.importorskip("h2", reason="needs h2")

    def secure(wire: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.path("server"), authority.path("server-key"))
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(wire, server_side=True) as encrypted:
            second(encrypted)

    plain = f"http://127.0.0.1:{raw(second)}/a?b=c"
    encrypted = f"https://127.0.0.1:{raw(secure)}/a?b=c"
    body = "x" * 200_000  # more than the server lets us send at once
    for url, fields in ((plain, {}), (encrypted, {"ca": authority.path("ca")})):
        found = measure(
            "http", url=url, http2=True, method="POST", body=body, headers={"X-A": "1"}, **fields
        )
        assert found.ok is True, found.text
        assert found.result["version"] == "2"
        assert json.loads(found.result["body"]) == {"path": "/a?b=c", "got": len(body), "x": "1"}


def test_a_server_that_knows_no_http2_is_asked_by_http1_over_tls(
    measure: Measure, web: Web, authority: Any
) -> None:
    found = measure("http", url=web(page, tls=True), http2=True, ca=authority.path("ca"))
    assert (found.ok, found.result["version"]) == (True, "1.1")
    assert measure("http", url=web(page), http2=True).ok is False
