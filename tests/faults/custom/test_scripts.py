"""Scripts with their undo, and endpoints, as faults."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.model import End
from faultline.errors import ApplyFailed, InvalidParameter, Refused
from faultline.injection import samples
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]
MINUTE = Duration.parse("1m")

SCRIPT = """#!/bin/sh
case $1 in
break) echo "broken by $FAULTLINE_UID"; touch "$2"; exit ${3:-0} ;;
mend) rm -f "$2" ;;
look) [ -e "$2" ] && echo "it is there" ;;
esac
"""


@pytest.fixture
def script(plugins: Path) -> Path:
    program = plugins / "tool"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    return program


def _order(target: Path, **more: Any) -> Order:
    given = {
        "script": ["tool", "break", str(target)],
        "undo": ["tool", "mend", str(target)],
        "observe": f"tool look '{target}'",
        **more,
    }
    return Order("custom.script", given, MINUTE, "by-script")


def test_a_script_is_undone_by_its_undo_and_what_it_said_is_kept(
    target: Path, script: Path, injector: Injector
) -> None:
    record = injector.inject(_order(target))
    assert target.exists()
    reading = injector.observe(record.uid)
    assert (str(reading.effect), reading.measured) == ("effective", "it is there")
    assert injector.get(record.uid).steps[0].made == {"said": "broken by by-script"}
    assert injector.recover(record.uid).end is End.RECOVERED
    assert not target.exists()


def test_a_script_that_fails_is_undone(target: Path, script: Path, injector: Injector) -> None:
    with pytest.raises(ApplyFailed, match="ended with 3: broken by by-script"):
        injector.inject(_order(target, script=["tool", "break", str(target), "3"]))
    assert not target.exists()


def test_without_a_script_to_look_with_the_effect_is_not_measured(
    target: Path, script: Path, injector: Injector
) -> None:
    record = injector.inject(_order(target, observe=[]))
    assert str(injector.observe(record.uid).effect) == "unmeasured"
    assert injector.recover(record.uid).end is End.RECOVERED


def test_a_script_outside_of_the_folder_is_refused(
    target: Path, script: Path, injector: Injector
) -> None:
    with pytest.raises(Refused, match="does not lie in"):
        injector.plan(_order(target, script=["/bin/true"]))
    with pytest.raises(InvalidParameter, match="no-such-script"):
        injector.plan(_order(target, undo=["no-such-script"]))


@pytest.fixture
def lamp() -> Iterator[str]:
    with samples.endpoint() as url:
        yield url


def _http(url: str, **more: Any) -> Order:
    return Order("custom.http", {"url": url, "parameters": ["level=3"], **more}, MINUTE)


def test_an_endpoint_makes_a_fault_and_undoes_it(lamp: str, injector: Injector) -> None:
    record = injector.inject(_http(lamp))
    assert str(injector.observe(record.uid).effect) == "effective"
    assert injector.residue(record.uid) != []
    assert injector.recover(record.uid).end is End.RECOVERED
    assert injector.residue(record.uid) == []


def test_an_endpoint_that_does_not_answer_is_refused_before_anything_is_done(
    injector: Injector,
) -> None:
    with pytest.raises(Refused, match="does not answer"):
        injector.plan(_http("http://127.0.0.1:9/nothing"))


@pytest.mark.parametrize(
    "url", ["ftp://here/x", "http://user:word@here/x", "http:///x", "http://here/x?y=1"]
)
def test_an_address_that_cannot_be_called_is_refused(url: str, injector: Injector) -> None:
    with pytest.raises(InvalidParameter, match="url"):
        injector.plan(_http(url))


def _serving(answer: Callable[[http.server.BaseHTTPRequestHandler], bytes]) -> Any:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            data = answer(self)
            self.send_response(200 if data else 403)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def test_the_token_is_read_from_a_file_that_only_its_owner_may_read(
    tmp_path: Path, injector: Injector
) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o644)
    server = _serving(
        lambda each: b"{}" if each.headers["Authorization"] == "Bearer secret" else b""
    )
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(Refused, match="others can read"):
            injector.plan(_http(url, token=str(token)))
        token.chmod(0o600)
        plan = injector.plan(_http(url, token=str(token)))
        assert "secret" not in str(plan.to_json())
        with pytest.raises(Refused, match="403"):
            injector.plan(_http(url))
    finally:
        server.shutdown()
        server.server_close()
