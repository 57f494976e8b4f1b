"""Logs of the time of a run: files over rotation, the forms of runtimes, the journal, Loki."""

from __future__ import annotations

import http.server
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from faultline.api.watching import LogLine, LogSpec
from faultline.kernel.procfs import ProcessId
from faultline.places.container import Container
from faultline.places.output import CRI, of
from faultline.watching import files, forms, logs
from faultline.watching.files import Growth
from faultline.watching.logs import Window
from faultline.watching.run import Watched

EVER = Window(0.0, 4e9)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


def read(path: Path, change: Callable[[], None], **more: Any) -> logs.LogStatus:
    spec = LogSpec(name="log", file=str(path), **more)
    begun = logs.begin(spec)
    change()
    return logs.end(spec, begun, EVER)


# ---------------------------------------------------------------------- files


def test_only_what_was_written_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before\n")

    def change() -> None:
        with path.open("a") as file:
            file.write("one\ntwo\nno end")

    assert texts(read(path, change).lines) == ["one", "two", "no end"]


def test_a_file_is_followed_over_two_rotations(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before\n")

    def change() -> None:
        with path.open("a") as file:
            file.write("first\n")
        path.rename(tmp_path / "a.log.2")
        path.write_text("second\n")
        os.utime(tmp_path / "a.log.2", (1, 1))
        path.rename(tmp_path / "a.log.1")
        path.write_text("third\n")

    assert texts(read(path, change).lines) == ["first", "second", "third"]


def test_a_file_that_was_emptied_or_replaced_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("before, and long\n")
    emptied = read(path, lambda: path.write_text("new\n") and None)
    assert texts(emptied.lines) == ["new"]
    assert "emptied" in emptied.text

    def change() -> None:
        path.unlink()
        (tmp_path / "other").write_text("another\n")
        (tmp_path / "other").rename(path)

    replaced = read(path, change)
    assert texts(replaced.lines) == ["another"]


def test_a_file_that_comes_into_being_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "late.log"
    assert texts(read(path, lambda: path.write_text("hello\n") and None).lines) == ["hello"]


def test_what_cannot_be_read_says_why_and_raises_nothing(tmp_path: Path) -> None:
    missing = read(tmp_path / "none.log", lambda: None)
    assert "No such file" in missing.text
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in read(tmp_path / "pipe", lambda: None).text


def test_lines_without_a_time_have_that_of_their_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("")
    watched = Watched()
    spec = LogSpec(name="log", file=str(path))
    begun = watched.begin([spec], {})
    began = time.time()
    with path.open("a") as file:
        for number in range(3):
            print(f"line {number}", file=file, flush=True)
            time.sleep(1.1)
    status = watched.end([spec], begun, Window(began, time.time()))[0]
    watched.stop()
    stamps = [line.at for line in status.lines]
    assert None not in stamps
    assert [round((at or 0) - began) for at in stamps] in (
        [0, 1, 2],
        [1, 2, 3],
        [1, 1, 2],
        [0, 1, 3],
        [0, 2, 3],
    )


def test_a_log_that_is_larger_than_what_is_read_keeps_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST", 2000)
    path = tmp_path / "a.log"
    path.write_text("")
    status = read(path, lambda: path.write_text("".join(f"{n:08}\n" for n in range(5000))) and None)
    assert status.lines[0].text == "00000000"
    assert status.lines[-1].text == "00004999"
    assert "not read" in status.text


def test_a_time_before_the_run_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("")
    spec = LogSpec(name="log", file=str(path), pattern="late|early")
    begun = logs.begin(spec)
    path.write_text("2020-01-01T00:00:00Z early\n2026-01-01T00:00:01.5Z late\n2026-01-01 x\n")
    at = forms.moment("2026-01-01T00:00:00Z") or 0
    status = logs.end(spec, begun, Window(at, at + 60))
    assert [(line.at, line.text[-4:]) for line in status.lines] == [(at + 1.5, "late")]
    assert status.seen == 1


def test_growth_knows_when_a_line_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("12345")
    growth = Growth(str(path))
    growth.look()
    inode = path.stat().st_ino
    assert growth.when(inode, 3) is not None
    assert growth.when(inode, 6) is None
    assert growth.when(inode + 1, 3) is None


# ---------------------------------------------------------------------- forms of runtimes


def test_lines_of_docker_and_of_the_kubelet_are_put_together() -> None:
    docker = [
        json.dumps({"log": "half ", "stream": "stdout", "time": "2026-01-01T00:00:00.1Z"}),
        json.dumps({"log": "oops\n", "stream": "stderr", "time": "2026-01-01T00:00:00.2Z"}),
        json.dumps(
            {"log": "whole\n", "stream": "stdout", "time": "2026-01-01T00:00:00.123456789Z"}
        ),
        "{cut off",
    ]
    found = list(forms.docker(line.encode() for line in docker))
    assert [(each.text, each.stream) for each in found] == [
        ("oops", "stderr"),
        ("half whole", "stdout"),
    ]
    kubelet = [
        b"2026-01-01T00:00:00.5+00:00 stdout P half ",
        b"2026-01-01T00:00:00.6+00:00 stderr F oops",
        b"2026-01-01T00:00:01+01:00 stdout F whole",
        b"nonsense",
    ]
    found = list(forms.cri(kubelet))
    assert [each.text for each in found] == ["oops", "half whole"]
    assert found[1].at == forms.moment("2026-01-01T00:00:01+01:00")


def test_a_time_without_a_zone_is_not_guessed() -> None:
    assert forms.said("2026-01-01 00:00:00 started") is None
    assert forms.said("[2026-01-01T00:00:00,250+02:00] x") == forms.moment(
        "2025-12-31T22:00:00.25Z"
    )
    assert forms.said("nothing") is None


@pytest.mark.needs_root
def test_containers_of_a_kubelet_and_of_cri_o_are_found_by_their_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = ProcessId.current()
    crio = Container("c1", "cri-o", me, "", labels={"io.kubernetes.cri-o.LogPath": "/x/0.log"})
    assert (of(crio).form, of(crio).path) == (CRI, "/x/0.log")
    monkeypatch.setattr("faultline.places.output._PODS", tmp_path)
    folder = tmp_path / "shop_web-1_uid" / "app"
    folder.mkdir(parents=True)
    for name in ("0.log", "10.log", "2.log", "9.log.gz"):
        (folder / name).touch()
    kept = Container("c2", "containerd", me, "", pod="shop/web-1", in_pod="app")
    assert of(kept).path == str(folder / "10.log")
    alone = of(Container("c3", "containerd", me, ""))
    assert not alone.form
    assert "keeps no file" in alone.why


# ---------------------------------------------------------------------- the journal

RECORDED = [
    {"__REALTIME_TIMESTAMP": "1767225600500000", "MESSAGE": "started", "_COMM": "nginx"},
    {"__REALTIME_TIMESTAMP": "1767225601500000", "MESSAGE": [104, 105], "SYSLOG_IDENTIFIER": "app"},
    {"__REALTIME_TIMESTAMP": "1767225602500000", "MESSAGE": None},
]
"""As journalctl(1) documents `--output=json`; test_journal.py reads a real journal."""


def journalctl(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int = 0) -> Path:
    """A program of that name that prints what was recorded, and notes how it was called."""
    folder.mkdir(exist_ok=True)
    out, asked = folder / "out", folder / "asked"
    out.write_text("".join(json.dumps(each) + "\n" for each in RECORDED))
    program = folder / "journalctl"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {asked}\n'
        + (f"cat {out}\n" if not code else f"echo no journal here >&2; exit {code}\n")
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return asked


def test_the_journal_is_asked_by_a_list_of_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = journalctl(tmp_path / "bin", monkeypatch)
    hostile = 'x"; touch /tmp/owned; $(id)'
    spec = LogSpec.model_validate(
        {"name": "unit", "journal": {"unit": hostile, "pid": 7, "kernel": True}}
    )
    window = Window(1767225600.0, 1767225700.0)
    status = logs.end(spec, logs.begin(spec), window)
    assert texts(status.lines) == ["nginx: started", "app: hi", ""]
    assert status.lines[0].at == 1767225600.5
    said = asked.read_text().splitlines()
    assert f"--unit={hostile}" in said
    assert {"--output=json", "--dmesg", "_PID=7"} <= set(said)
    assert "--since=@1767225600.000000" in said


def test_a_journal_that_cannot_be_read_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journalctl(tmp_path / "bin", monkeypatch, code=1)
    spec = LogSpec.model_validate({"name": "unit", "journal": {"unit": "a.service"}})
    assert logs.end(spec, logs.begin(spec), EVER).text == "journalctl: no journal here"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no journalctl" in logs.end(spec, logs.begin(spec), EVER).text


# ---------------------------------------------------------------------- Loki


class Loki(http.server.BaseHTTPRequestHandler):
    """Answers as the HTTP API of Loki is documented; it is not Loki."""

    lines: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[tuple[dict[str, list[str]], dict[str, str]]]] = []
    code = 200

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        self.asked.append((query, {name.lower(): value for name, value in self.headers.items()}))
        start, limit = int(query["start"][0]), int(query["limit"][0])
        found = [each for each in self.lines if start <= each[0] <= int(query["end"][0])][:limit]
        halves = [found[::2], found[1::2]]
        body: Any = {
            "status": "success",
            "data": {
                "resultType": "streams",
                "result": [
                    {"stream": {"app": str(i)}, "values": [[str(at), text] for at, text in half]}
                    for i, half in enumerate(halves)
                ],
            },
        }
        data = json.dumps(body).encode() if self.code == 200 else b"parse error at line 1"
        self.send_response(self.code)
        if self.code == 302:
            self.send_header("Location", "http://127.0.0.1:9/steal")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def loki() -> Iterator[str]:
    Loki.lines, Loki.asked, Loki.code = [], [], 200
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Loki)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def asked_of(url: str, **more: Any) -> LogSpec:
    return LogSpec.model_validate(
        {"name": "loki", "loki": {"url": url, "query": '{app="shop"}', **more}}
    )


def test_loki_is_read_page_by_page_in_order(loki: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_PAGE", 10)
    Loki.lines = [(1_000_000_000 * n, f"line {n}") for n in range(1, 26)]
    monkeypatch.setenv("LOKI_TOKEN", "s3cret")
    spec = asked_of(loki, tenant="team", token={"env": "LOKI_TOKEN"})
    status = logs.end(spec, logs.begin(spec), Window(1.0, 30.0))
    assert texts(status.lines) == [f"line {n}" for n in range(1, 26)]
    assert status.text == ""
    query, headers = Loki.asked[0]
    assert len(Loki.asked) == 3
    assert query["query"] == ['{app="shop"}']
    assert query["direction"] == ["forward"]
    assert headers["x-scope-orgid"] == "team"
    assert headers["authorization"] == "Bearer s3cret"
    assert "s3cret" not in status.model_dump_json()


def test_what_loki_says_of_its_failure_is_told(loki: str) -> None:
    Loki.code = 400
    spec = asked_of(loki)
    assert "400: parse error" in logs.end(spec, logs.begin(spec), EVER).text
    Loki.code = 302
    assert "302" in logs.end(spec, logs.begin(spec), EVER).text
    gone = asked_of("http://127.0.0.1:9")
    assert "refused" in logs.end(gone, logs.begin(gone), EVER).text


def test_what_somebody_else_wants_hidden_is_hidden_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("")

    def change() -> None:
        path.write_text("card 4111 of anna\npassword=x1\nplain\n")

    status = read(path, change, mask=False, hide=[r"\d{4}", "of (anna)"])
    assert texts(status.lines) == ["card *** of ***", "password=x1", "plain"]
    assert status.masked == 1
    path.write_text("")
    assert texts(read(path, change).lines)[1] == "password=***"
