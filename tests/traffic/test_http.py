"""Scenarios over HTTP/1.1 and HTTP/2 against real servers."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.traffic.harness import turns, users
from tests.traffic.servers import free_port, program, serving

from faultline.traffic.histogram import Histogram


class Shop:
    """A shop with a login, carts, and pages that misbehave."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.peers: set[Any] = set()
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application(middlewares=[self._note])
        app.add_routes(
            [
                web.post("/login", self.login),
                web.get("/me", self.me),
                web.get("/items", self.items),
                web.post("/cart/{id}", self.cart),
                web.get("/status/{code}", self.status),
                web.get("/moved/{left}", self.moved),
                web.get("/loop", self.endless),
                web.get("/slow", self.slow),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self._runner.cleanup())
        self.loop.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.peers.add(request.transport and request.transport.get_extra_info("peername"))
        self.seen.append((f"{request.method} {request.path}", dict(request.headers)))
        return await handler(request)

    async def login(self, request: web.Request) -> web.Response:
        told = await request.json()
        answer = web.json_response({"user": {"id": told["name"] * 2}, "items": [{"id": 7}]})
        answer.set_cookie("who", told["name"])
        answer.headers["X-Token"] = f"token-{told['name']}"
        return answer

    async def me(self, request: web.Request) -> web.Response:
        return web.Response(text=f"<form csrf='c-{request.cookies.get('who', 'nobody')}'>")

    async def items(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def cart(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"id": request.match_info["id"], "token": request.headers.get("X-Token")}
        )

    async def status(self, request: web.Request) -> web.Response:
        return web.Response(status=int(request.match_info["code"]))

    async def moved(self, request: web.Request) -> web.Response:
        left = int(request.match_info["left"])
        raise web.HTTPFound(f"/moved/{left - 1}" if left else "/items")

    async def endless(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/loop")

    async def slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(2)
        return web.Response()


@pytest.fixture(scope="module")
def open_shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.stop()


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    open_shop.seen.clear()
    open_shop.peers.clear()
    return open_shop


LOGIN = {
    "name": "login", "method": "POST", "path": "/login", "body": '{"name": "{{name}}"}',
    "extract": [
        {"name": "id", "jsonPath": "$.user.id"},
        {"name": "item", "jsonPath": "$.items[*].id"},
        {"name": "token", "header": "x-token"},
        {"name": "none", "jsonPath": "$.none", "default": "-"},
    ],
}  # fmt: skip
ME = {"path": "/me", "pattern": "form", "extract": [{"name": "csrf", "pattern": "csrf='([^']+)'"}]}
BUY = {
    "name": "buy", "method": "POST", "path": "cart/{{id}}-{{item}}-{{csrf}}{{none}}",
    "headers": {"X-Token": "{{token}}"}, "pattern": "token-",
}  # fmt: skip
FEED = {"rows": [{"name": "anna"}, {"name": "bert"}]}


def scenario(url: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"type": "http", "baseUrl": url, "scenarios": [{"name": "visit", "steps": list(steps)}],
            **fields}  # fmt: skip


def single(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "http", "url": url, **fields}


def test_steps_use_what_earlier_ones_found_and_have_figures_of_their_own(shop: Shop) -> None:
    tick = turns(scenario(shop.url, LOGIN, ME, BUY, feed=FEED), 4)
    assert (tick.sent, tick.ok, tick.errors) == (12, 12, {})
    assert {name: part.ok for name, part in tick.parts.items()} == {
        "visit": 4, "visit/login": 4, "visit/GET /me": 4, "visit/buy": 4,
    }  # fmt: skip
    bought = Counter(line for line, _ in shop.seen if "cart" in line)
    assert bought == {
        "POST /cart/annaanna-7-c-anna-": 2,
        "POST /cart/bertbert-7-c-bert-": 2,
    }


def test_a_failed_step_ends_the_turn_unless_it_goes_on(shop: Shop) -> None:
    steps = [{"path": "/status/503"}, {"path": "/items"}]
    tick = turns(scenario(shop.url, *steps), 2)
    assert (tick.sent, tick.errors) == (2, {"status 503": 2})
    assert (tick.parts["visit"].errors, tick.parts["visit"].ok) == (2, 0)
    going = scenario(shop.url, *steps)
    going["scenarios"][0]["continueOnFailure"] = True
    assert (turns(going, 2).sent, len(shop.seen)) == (4, 6)


def test_cookies_are_of_one_turn_or_of_one_user_or_of_nobody(shop: Shop) -> None:
    login = {**LOGIN, "extract": []}
    me = {"path": "/me", "pattern": "c-anna"}
    one = {"feed": {"rows": [{"name": "anna"}]}}
    assert turns(scenario(shop.url, login, me, **one), 2).errors == {}
    assert turns(scenario(shop.url, me), 2).errors == {"pattern": 2}
    assert turns(scenario(shop.url, login, me, cookies=False, **one), 2).errors == {"pattern": 2}
    # A user of the closed model is still known in the next turn.
    once = scenario(shop.url, {"path": "/me", "code": "200"}, login, **one)
    shop.seen.clear()
    tick = users({**once, "concurrency": 1}, 0.2)
    asked = [headers.get("Cookie") for line, headers in shop.seen if line == "GET /me"]
    assert tick.errors == {}
    assert asked[0] is None
    assert set(asked[1:]) == {"who=anna"}


def test_scenarios_are_chosen_by_their_weights(shop: Shop) -> None:
    data = scenario(shop.url)
    data["scenarios"] = [
        {"name": "often", "weight": 9, "steps": [{"path": "/items"}]},
        {"name": "seldom", "steps": [{"path": "/me"}]},
    ]
    tick = turns(data, 300)
    assert 225 <= tick.parts["often"].ok <= 299
    assert tick.parts["often"].ok + tick.parts["seldom"].ok == 300


def test_thinking_is_no_time_of_the_target(shop: Shop) -> None:
    tick = turns(scenario(shop.url, {"path": "/items"}, {"path": "/me", "think": "400ms"}), 2)
    step, whole = (
        Histogram().add(tick.parts[name].latency).largest for name in ("visit/GET /me", "visit")
    )
    assert step is not None
    assert whole is not None
    assert whole >= 0.4 > step


@pytest.mark.parametrize(
    ("path", "fields", "kinds"),
    [
        ("/status/404", {}, {"status 404": 2}),
        ("/status/404", {"code": "200-299,404"}, {}),
        ("/status/204", {"code": "200"}, {"status 204": 2}),
        ("/items", {"pattern": r"^\[\]$"}, {}),
        ("/items", {"pattern": "full"}, {"pattern": 2}),
        ("/moved/2", {}, {}),
        ("/moved/2", {"redirects": 3, "pattern": r"^\[\]$"}, {}),
        ("/loop", {"redirects": 3}, {"too many redirects": 2}),
        ("/slow", {"timeout": "200ms"}, {"timeout": 2}),
        ("/items", {"headers": {"X": "{{bad}}"}, "feed": {"rows": [{"bad": "a\r\nb: c"}]}},
         {"bad request": 2}),
    ],
)  # fmt: skip
def test_what_is_a_good_answer(
    shop: Shop, path: str, fields: dict[str, Any], kinds: dict[str, int]
) -> None:
    tick = turns(single(f"{shop.url}{path}", **fields), 2)
    assert tick.errors == kinds
    assert tick.ok == 2 - sum(kinds.values())


def test_secrets_are_sent_and_nowhere_else(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    monkeypatch.setenv("SESAME", "open")
    basic = {"user": "me", "password": {"env": "SESAME"}}
    for fields, sent in (
        ({"basic": basic}, "Basic bWU6b3Blbg=="),
        ({"bearer": {"file": str(tmp_path / "token")}}, "Bearer t0ken"),
        ({"headers": {"authorization": {"env": "SESAME"}}}, "open"),
    ):
        shop.seen.clear()
        assert turns(single(f"{shop.url}/items", **fields), 1).ok == 1
        assert shop.seen[0][1]["Authorization"] == sent


def test_connections_are_kept_bounded_or_new_each_time(shop: Shop) -> None:
    for fields, count in (({"connections": 2}, 2), ({"keepAlive": False}, 10)):
        shop.peers.clear()
        assert turns(single(f"{shop.url}/items", **fields), 10).ok == 10
        assert len(shop.peers) == count


# ---------------------------------------------------------------------------------- HTTP/2


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "index.html").write_text("welcome")
    (folder / "big").write_bytes(b"x" * 3_000_000)
    openssl = shutil.which("openssl")
    if openssl:
        words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                 "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
        files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
        subprocess.run([openssl, *words, *files], check=True, capture_output=True)
    return folder


def nghttpd(pages: Path, tmp_path: Path, *words: str) -> Any:
    server, port = program("nghttpd", "nghttp2-server"), free_port()
    given = [server, "-d", str(pages), "--echo-upload", *words, str(port)]
    return serving(given, port, tmp_path / "log")


def test_http2_asks_many_at_once_on_one_connection(pages: Path, tmp_path: Path) -> None:
    with nghttpd(pages, tmp_path, "--no-tls", "-v", "-m", "20") as port:
        data = single(f"http://127.0.0.1:{port}/index.html", http2=True, pattern="welcome")
        tick = turns({**data, "connections": 1}, 100)
        assert (tick.sent, tick.ok, tick.errors) == (100, 100, {})
        said = (tmp_path / "log").read_text()
        assert len(set(re.findall(r"\[id=(\d+)\]", said))) <= 2  # one was the look
        assert turns(data, 100).ok == 100
        big = single(f"http://127.0.0.1:{port}/big", http2=True)
        assert turns(big, 10).ok == 10, "more than a window"
        up = single(f"http://127.0.0.1:{port}/echo", http2=True, method="POST",
                    body="y" * 300_000, pattern="^y{300000}$")  # fmt: skip
        assert turns(up, 3).ok == 3
        assert turns(single(f"http://127.0.0.1:{port}/none", http2=True), 2).errors == {
            "status 404": 2
        }


def test_http2_over_tls_verifies_and_says_if_there_is_none(pages: Path, tmp_path: Path) -> None:
    key, certificate = pages / "key.pem", pages / "cert.pem"
    if not key.exists():
        pytest.skip("needs openssl to make a certificate")
    server, port = program("nghttpd", "nghttp2-server"), free_port()
    words = [server, "-d", str(pages), str(port), str(key), str(certificate)]
    with serving(words, port, tmp_path / "log"):
        data = single(f"https://127.0.0.1:{port}/index.html", http2=True, pattern="welcome")
        named = {"ca": str(certificate), "serverName": "localhost"}
        assert turns({**data, **named}, 5).ok == 5
        assert turns({**data, "verify": False}, 5).ok == 5
        assert turns(data, 2).errors == {"tls": 2}


def test_http2_of_a_server_without_it(shop: Shop) -> None:
    tick = turns(single(f"{shop.url}/items", http2=True, timeout="2s"), 2)
    assert tick.ok == 0
    assert set(tick.errors) <= {"disconnected", "bad answer", "timeout", "reset"}
    gone = single(f"http://127.0.0.1:{free_port()}/", http2=True)
    assert turns(gone, 2).errors == {"refused": 2}
