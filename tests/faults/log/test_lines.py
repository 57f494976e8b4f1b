"""Lines that tell of trouble: at the rate asked for, as the log writes them, and gone again."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.model import End
from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.injection import log_form
from faultline.injection.injector import Injector
from faultline.injection.log_form import Form, Words
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.places.find import Target
from faultline.units import Duration
from faultline.workers import line_course, line_template

TEXT = "".join(f"2026-01-01 10:00:{n:02d},500 INFO shop: order {n}\n" for n in range(40))
NOW = datetime(2026, 3, 4, 5, 6, 7, 89_000, UTC)


@pytest.fixture
def injector(tmp_path: Path) -> Iterator[Injector]:
    with Injector(tmp_path / "store") as found:
        yield found
        found.recover_all()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "app.log"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def order(fault: str, log: Path, **params: Any) -> Order:
    return Order(fault, {"path": str(log), **params}, Duration.parse("60s"))


def until(condition: Callable[[], object], patience: float = 20.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def names(log: Path) -> list[str]:
    """What lies in the folder of a log, hidden or not."""
    return sorted(each.name for each in log.parent.iterdir())


def ours(log: Path, uid: str) -> list[str]:
    return [line for line in log.read_text().splitlines() if uid in line]


# ------------------------------------------------------------------------------- the effect


def test_errors_come_at_the_rate_asked_for_and_look_like_the_log_s_own(
    injector: Injector, log: Path
) -> None:
    before = log.stat()
    record = injector.inject(order("log.storm", log, lines=40.0, logger="shop"))
    until(lambda: len(ours(log, record.uid)) >= 40)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert reading.values["measured"] == pytest.approx(reading.values["asked"], rel=0.1, abs=5)
    like = re.compile(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} ERROR shop: simulated failure \d+ "
        rf"faultline={record.uid}"
    )
    assert all(like.fullmatch(line) for line in ours(log, record.uid))
    assert injector.recover(record.uid).end is End.RECOVERED
    assert injector.residue(record.uid) == []
    after = log.stat()
    assert log.read_text() == TEXT
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(log) == ["app.log"]


def test_a_log_of_json_gets_objects_with_its_own_keys(injector: Injector, log: Path) -> None:
    own = {"ts": "2026-01-01T10:00:00.5Z", "severity": "info", "msg": "ok", "component": "shop"}
    log.write_text(json.dumps(own) + "\n")
    fields = ["status=500", "took={latency:ms}"]
    asked = order("log.storm", log, lines=100.0, count=20, message='no "luck" {n}', fields=fields)
    record = injector.inject(asked)
    until(lambda: len(ours(log, record.uid)) == 20)
    found = [json.loads(line) for line in ours(log, record.uid)]
    assert all(set(own) < set(each) for each in found)
    assert {each["severity"] for each in found} == {"error"}
    assert found[-1]["msg"] == 'no "luck" 20'
    assert found[0]["status"] == 500
    assert isinstance(found[0]["took"], int)
    assert found[0]["faultline"] == record.uid
    assert all(each["ts"].endswith("Z") for each in found)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    injector.recover(record.uid)


def test_a_share_of_the_lines_tells_of_trouble_and_the_rest_that_all_is_well(
    injector: Injector, log: Path
) -> None:
    asked = order("log.storm", log, lines=200.0, count=100, percent="30%", keep="all")
    record = injector.inject(asked)
    until(lambda: len(ours(log, record.uid)) == 100)
    assert sum(" ERROR " in line for line in ours(log, record.uid)) == 30
    assert sum(" INFO " in line for line in ours(log, record.uid)) == 70
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED
    assert len(ours(log, record.uid)) == 100, "they were to be kept"
    assert names(log) == ["app.log"]


def test_slow_calls_have_latencies_above_the_threshold_with_the_mean_asked_for(
    injector: Injector, log: Path
) -> None:
    asked = order(
        "log.slow", log, lines=500.0, count=400, percent="50%", latency="800ms", mean="1200ms"
    )
    record = injector.inject(asked)
    until(lambda: len(ours(log, record.uid)) == 400)
    took = {"WARN": list[int](), "INFO": list[int]()}
    for line in ours(log, record.uid):
        found = re.search(r" (WARN|INFO) .* latency_ms=(\d+) ", line)
        assert found, line
        took[found[1]].append(int(found[2]))
    assert len(took["WARN"]) == len(took["INFO"]) == 200
    assert min(took["WARN"]) >= 800 > max(took["INFO"])
    error = statistics.stdev(took["WARN"]) / math.sqrt(200)
    assert statistics.mean(took["WARN"]) == pytest.approx(1200, abs=4 * error)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    injector.recover(record.uid)


def test_the_marker_can_be_named_and_left_out(injector: Injector, log: Path) -> None:
    content = "{utc:%H:%M:%S} CRITICAL {n}"
    record = injector.inject(
        order("log.storm", log, content=content, marker="", count=5, lines=100.0)
    )
    until(lambda: log.read_text().count("CRITICAL") == 5)
    assert record.uid not in log.read_text()
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    injector.recover(record.uid)
    assert log.read_text() == TEXT


def test_lines_that_somebody_takes_out_are_no_effect(injector: Injector, log: Path) -> None:
    record = injector.inject(order("log.storm", log, lines=100.0, count=30))
    until(lambda: len(ours(log, record.uid)) == 30)
    os.truncate(log, 0)
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.INEFFECTIVE
    assert "taken out" in reading.reason


# ------------------------------------------------------------------- what others do meanwhile


def test_a_rotated_log_is_followed_by_its_name_and_both_files_get_rid_of_the_lines(
    injector: Injector, log: Path
) -> None:
    record = injector.inject(order("log.storm", log, lines=100.0))
    until(lambda: ours(log, record.uid))
    old = log.with_name("app.log.1")
    log.rename(old)
    time.sleep(0.3)  # nothing has the name: lines go on in the renamed file
    assert not log.exists()
    log.write_text("the new one\n")
    until(lambda: len(ours(log, record.uid)) > 20)
    with log.open("a") as own:
        own.write("an own line\n")
    reading = injector.observe(record.uid)
    assert reading.effect is Effect.EFFECTIVE, reading
    assert "in 2 files" in reading.measured
    ended = injector.recover(record.uid)
    assert ended.end is End.RECOVERED, [step.outcome for step in ended.steps]
    assert old.read_text() == TEXT
    assert log.read_text() == "the new one\nan own line\n"
    assert names(log) == ["app.log", "app.log.1"]


def test_a_log_that_is_copied_and_cut_off_gets_lines_again(injector: Injector, log: Path) -> None:
    record = injector.inject(order("log.storm", log, lines=100.0))
    until(lambda: len(ours(log, record.uid)) > 10)
    copy = log.with_name("app.log.1")
    copy.write_bytes(log.read_bytes())
    os.truncate(log, 0)
    until(lambda: len(ours(log, record.uid)) > 10)
    assert injector.observe(record.uid).effect is Effect.EFFECTIVE
    assert injector.recover(record.uid).end is End.RECOVERED
    assert log.read_text() == ""
    assert ours(copy, record.uid), "the copy is somebody else's file"


def test_what_the_application_writes_meanwhile_stays(injector: Injector, log: Path) -> None:
    record = injector.inject(order("log.storm", log, lines=200.0))
    with log.open("a") as own:
        for n in range(50):
            own.write(f"own {n}\n")
            own.flush()
            time.sleep(0.01)
    assert injector.recover(record.uid).end is End.RECOVERED
    assert log.read_text() == TEXT + "".join(f"own {n}\n" for n in range(50))


def test_a_program_that_has_the_log_open_keeps_the_lines_by_default(
    injector: Injector, log: Path
) -> None:
    record = injector.inject(order("log.storm", log, lines=100.0, count=10))
    until(lambda: len(ours(log, record.uid)) == 10)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        kept = log.open("a")
        os.write(write, b"x")
        time.sleep(60)
        os._exit(len(kept.name))
    os.read(read, 1)
    try:
        ended = injector.recover(record.uid)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
    assert ended.end is End.RECOVERED
    assert len(ours(log, record.uid)) == 10
    assert f"pid {child}" in (ended.steps[0].outcome.detail if ended.steps[0].outcome else "")


# ------------------------------------------------------------------------ in a place, refusals


@pytest.mark.needs_root
def test_in_a_place_the_path_is_that_of_its_own_root(injector: Injector, tmp_path: Path) -> None:
    from faultline.injection import scratch

    root = tmp_path / "root"
    (root / "var" / "log").mkdir(parents=True)
    log = root / "var" / "log" / "app.log"
    log.write_text(TEXT)
    root.chmod(0o755)
    with scratch.capsule(root) as inside:
        params = {"path": "/var/log/app.log", "lines": 100.0}
        asked = Order("log.storm", params, Duration.parse("60s"), target=Target(pid=inside.pid))
        record = injector.inject(asked)
        until(lambda: len(ours(log, record.uid)) > 10)
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert injector.recover(record.uid).end is End.RECOVERED
        assert log.read_text() == TEXT


def test_what_cannot_be_a_log_is_refused_and_nothing_is_touched(
    injector: Injector, log: Path
) -> None:
    with pytest.raises(TargetGone):
        injector.plan(order("log.storm", log.with_name("no.log")))
    link = log.with_name("link.log")
    link.symlink_to("/dev/null")
    with pytest.raises(Refused):
        injector.plan(order("log.storm", link))
    wrong: list[dict[str, Any]] = [
        {"marker": "mine"},
        {"marker": "a=b"},
        {"message": "{secret}"},
        {"message": "{latency:h}"},
        {"time": "yesterday"},
        {"fields": "novalue"},
        {"latency": "2s"},
        {"distribution": "pareto"},
        {"lines": 0.0},
        {"percent": "0%"},
    ]
    for each in wrong:
        with pytest.raises(InvalidParameter):
            injector.plan(order("log.storm", log, **each))
    link.unlink()
    assert log.read_text() == TEXT
    assert names(log) == ["app.log"]


# ----------------------------------------------------------------------------------- the parts


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("2026-01-01 10:00:00,123 INFO x", "2026-03-04 05:06:07,089"),
        ("2026-01-01T10:00:00Z x", "2026-03-04T05:06:07Z"),
        ("2026-01-01T10:00:00.123456Z x", "2026-03-04T05:06:07.089000Z"),
        ("[2026-01-01T10:00:00.123+00:00] x", "[2026-03-04T05:06:07.089+00:00]"),
        ('1.2.3.4 - - [01/Jan/2026:10:00:00 +0000] "GET /"', "04/Mar/2026:05:06:07 +0000"),
        ("2026/01/01 10:00:00 [error] x", "2026/03/04 05:06:07"),
        ("Jan  1 10:00:00 host cron[1]: x", "Mar  4 05:06:07"),
        ("no time at all", "2026-03-04T05:06:07.089+00:00"),
        ("", "2026-03-04T05:06:07.089+00:00"),
    ],
)
def test_times_are_written_as_the_log_writes_them(line: str, written: str) -> None:
    form = log_form.read(f"{line}\n".encode(), NOW)
    template = log_form.template(form, Words("ERROR", "", "it"))
    made = line_template.fill(line_template.check(template), NOW, 1, "u").decode()
    assert made == f"{written} ERROR it\n"


@pytest.mark.parametrize(
    ("stamp", "level", "wanted"),
    [
        (1_700_000_000, "info", '{"t":1772600767,"level":"error","msg":"it"}\n'),
        (1_700_000_000.5, "INFO", '{"t":1772600767.089,"level":"ERROR","msg":"it"}\n'),
        (1_700_000_000_000, 30, '{"t":1772600767089,"level":50,"msg":"it"}\n'),
    ],
)
def test_numbers_of_json_stay_numbers(stamp: float, level: object, wanted: str) -> None:
    own = json.dumps({"t": stamp, "level": level, "msg": "x"})
    template = log_form.template(log_form.read(own.encode(), NOW), Words("ERROR", "", "it"))
    assert line_template.fill(template, NOW, 1, "u").decode() == wanted


def test_a_marker_is_added_to_a_line_of_any_kind() -> None:
    for form, wanted in ((Form(), "it u=u1\n"), (Form("json"), '"message":"it","u":"u1"}\n')):
        template = log_form.marked(log_form.template(form, Words("E", "", "it")), "u={uid}")
        made = line_template.fill(template, NOW, 1, "u1")
        assert made.decode().endswith(wanted)
        assert line_template.pattern(template, "u1").fullmatch(made.rstrip())


@pytest.mark.parametrize("ramp", [0, 10**9, 3 * 10**9 + 7])
@pytest.mark.parametrize("interval", [10**6, 7 * 10**7, 10**8])
def test_what_is_due_and_when_agree_also_while_the_rate_grows(ramp: int, interval: int) -> None:
    times = [line_course.due(n, interval, ramp) for n in range(3000)]
    assert times == sorted(times)
    assert all(
        abs(line_course.lines_by(at, interval, ramp) - (n + 1)) <= 1 for n, at in enumerate(times)
    )
    assert line_course.lines_by(ramp + 10**9, interval, ramp) == pytest.approx(
        (ramp / 2 + 10**9) / interval, abs=2
    )


@pytest.mark.parametrize("shape", line_course.SHAPES)
def test_latencies_are_never_below_the_least_and_keep_their_mean(shape: str) -> None:
    draws = [(n + 0.5) / 20_000 for n in range(20_000)]
    found = [line_course.latency(shape, 10**8, 12 * 10**7, each) for each in draws]
    assert min(found) >= 10**8
    assert statistics.mean(found) == pytest.approx(12 * 10**7, rel=0.02)
