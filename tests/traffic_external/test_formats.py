"""Each format on what its tool really said, recorded; numbers were read off by eye."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faultline.api.traffic import ExternalTraffic
from faultline.testing.sampling import examples
from faultline.traffic.external.course import Course
from faultline.traffic.external.formats import READERS, reader_for
from faultline.traffic.external.pieces import Period, Sample
from faultline.traffic.external.reader import Reader, duration

DATA = Path(__file__).parent / "data"


def external(**fields: Any) -> ExternalTraffic:
    given = {"type": "external", "name": "load", "command": ["tool"], **fields}
    return ExternalTraffic.model_validate(given)


def replay(form: str, name: str, started: float = 0.0, pace: str = "", step: float = 1.0) -> Any:
    """Reader and course after a recording; lines that match `pace` are `step` seconds apart."""
    reader, course = reader_for(external(format=form), started), Course(started, 0.0)
    at = 0.5
    for line in re.split(r"[\r\n]", (DATA / name).read_bytes().decode()):
        if pace and re.search(pace, line):
            at += step
        for piece in reader.line(line, at):
            course.add(piece)
    course.close()
    return reader, course


def counts(course: Course) -> list[tuple[int, int]]:
    return [(each.ok, each.errors) for each in course.seconds]


def test_wrk() -> None:
    reader, course = replay("wrk", "wrk-latency.txt")
    totals = course.totals(reader.report())
    assert (totals.ok, totals.errors, totals.seconds) == (88197, 0, 3.1)
    assert (totals.p50, totals.p99, totals.max) == pytest.approx((121e-6, 560e-6, 3.98e-3))
    assert totals.p95 is None
    assert totals.mean == pytest.approx(147.21e-6)
    assert course.seconds == []


def test_wrk_with_bad_answers_and_cut_connections() -> None:
    bad = replay("wrk", "wrk-errors.txt")[0].report()
    assert (bad.ok, bad.errors, bad.kinds) == (61309 - 12187, 12187, {"status": 12187})
    assert bad.times.p50 is None
    cut = replay("wrk", "wrk-cut.txt")[0].report()
    assert (cut.ok, cut.kinds) == (42905, {"read": 2241})
    assert replay("wrk", "wrk-refused.txt")[0].report() is None


def test_hey() -> None:
    reader, course = replay("hey", "hey.txt")
    totals = course.totals(reader.report())
    assert (totals.ok, totals.errors, totals.kinds) == (33995, 8510, {"status 503": 8510})
    assert (totals.p50, totals.p95, totals.max) == (0.0002, 0.0007, 0.0196)
    refused = replay("hey", "hey-refused.txt")[0].report()
    assert (refused.ok, refused.kinds, refused.times.max) == (0, {"refused": 20}, None)


def test_the_csv_of_hey_gives_a_series_from_single_requests() -> None:
    _, course = replay("hey", "hey.csv")
    totals = course.totals(None)
    assert counts(course) == [(60, 0)]
    assert totals.p50 == pytest.approx(0.0512, abs=1e-4)
    assert totals.histogram


def test_pgbench() -> None:
    reader, course = replay("pgbench", "pgbench.txt", pace="^progress", step=1.0)
    assert sum(ok for ok, _ in counts(course)) == 2632  # 537.8 + 756.1 + 693.9 + 644.1
    report = reader.report()
    assert (report.ok, report.times.mean) == (2634, pytest.approx(3.005e-3))
    assert report.seconds == pytest.approx(3.967, abs=1e-3)


def test_pgbench_whose_server_dies_keeps_what_was_told() -> None:
    reader, course = replay("pgbench", "pgbench-dead.txt", pace="^progress")
    assert sum(ok for ok, _ in counts(course)) == 1506
    assert reader.report().ok == 1559
    reader, course = replay("pgbench", "pgbench-rate.txt", pace="^progress")
    assert [round(each.mean * 1e6) for each in course.seconds][1] == 2990


def test_pgbench_with_failures_skips_and_time_stamps() -> None:
    reader = reader_for(external(format="pgbench"), started=1_700_000_000.0)
    first = reader.line(
        "progress: 1700000002.000 s, 10.0 tps, lat 5.0 ms stddev 1.0, 3 failed, lag 1.0 ms, "
        "2 skipped",
        2.0,
    )
    assert first == [Period(1.0, 2.0, 10.0, 5.0, first[0].times, {"failed": 3.0, "skipped": 2.0})]  # type: ignore[union-attr]
    none = reader.line("progress: 1700000003.000 s, 0.0 tps, lat 0.000 ms stddev -nan", 3.0)[0]
    assert isinstance(none, Period)
    assert (none.begin, none.ok, none.times.mean) == (2.0, 0.0, None)


def test_sysbench() -> None:
    reader, course = replay("sysbench", "sysbench-oltp.txt", pace="^.. ..s ")
    assert counts(course) == [(8, 2), (70, 2), (19, 3), (54, 1)]
    assert [round(each.p95, 5) for each in course.seconds] == [0.02717, 1.0136, 1.03201, 0.99551]
    report = reader.report()
    assert (report.ok, report.errors, report.kinds) == (155, 10, {"error": 10})
    assert report.times.p95 == pytest.approx(1.0136)
    cpu = replay("sysbench", "sysbench-cpu.txt")[0].report()
    assert (cpu.ok, cpu.seconds, cpu.times.max) == (168273, 4.0003, pytest.approx(2.55e-3))


def test_redis_benchmark() -> None:
    reader, course = replay("redis-benchmark", "redis-benchmark.txt", pace="rps=", step=0.25)
    report = reader.report()
    assert (report.ok, round(report.seconds, 2)) == (800000, 17.65)
    assert report.times.p99 == pytest.approx(0.000399)
    assert sum(ok for ok, _ in counts(course)) == pytest.approx(800000, rel=0.03)
    assert replay("redis-benchmark", "redis-quiet.txt", pace="rps=", step=0.25)[0].report() is None


def test_the_summariser_of_jmeter() -> None:
    reader, course = replay("jmeter", "jmeter-summariser.txt", pace=r"summary \+", step=6.0)
    report = reader.report()
    assert (report.ok, report.errors, report.seconds) == (2620 - 523, 523, 20)
    assert (report.times.max, report.times.mean) == (0.134, 0.001)
    assert sum(ok + bad for ok, bad in counts(course)) == 2620
    assert sum(bad for _, bad in counts(course)) == 523


def test_the_summariser_of_an_older_jmeter_and_one_line_alone() -> None:
    reader = reader_for(external(format="jmeter"), 0.0)
    text = (
        "summary =    120 in     6s =   20.0/s Avg:    12 Min:     1 Max:    55 Err:     3 (2.50%)"
    )
    (period,) = reader.line(text, 8.0)
    assert isinstance(period, Period)
    assert (period.begin, period.end, period.ok, period.errors) == (2.0, 8.0, 117.0, 3.0)


@pytest.mark.parametrize(
    ("name", "started", "ok", "bad"),
    [("jmeter.jtl", 1795274570.2, 49, 10), ("jmeter-stdout.txt", 1795274597.3, 37, 13)],
)
def test_a_jtl_of_jmeter(name: str, started: float, ok: int, bad: int) -> None:
    """With a header, and without one among what else is printed."""
    _, course = replay("jmeter", name, started)
    totals = course.totals(None)
    assert (totals.ok, totals.errors, totals.kinds) == (ok, bad, {"status 503": bad})
    assert 1.0 < course.seconds[0].at - started + 0.2 < 1.3  # of the first request, not of the JVM
    assert totals.histogram


def test_k6() -> None:
    report = replay("k6", "k6.txt")[0].report()
    assert (report.ok, report.errors) == (433, 106)
    assert report.times.p50 == pytest.approx(623.86e-6)
    assert report.times.p95 == pytest.approx(3.07e-3)
    assert report.seconds == pytest.approx(4.0, abs=0.01)


def test_the_points_of_k6_agree_with_its_summary() -> None:
    _, course = replay("k6", "k6.json", 1795274746.5)
    report = replay("k6", "k6-small.txt")[0].report()
    totals = course.totals(report)
    assert (totals.ok, totals.errors) == (report.ok, report.errors) == (13, 8)
    assert totals.kinds == {"refused": 6, "status 503": 2}
    assert len(course.seconds) == 3


def test_the_summary_of_an_older_k6() -> None:
    reader = reader_for(external(format="k6"), 0.0)
    for line in (
        "     http_req_duration.....: avg=11.2ms min=1ms med=9ms max=1.2s p(90)=20ms p(95)=25.5ms",
        "       { expected_response:true }...: avg=1ms min=1ms med=1ms max=1ms p(90)=1ms p(95)=1ms",
        "   ✗ http_req_failed................: 10.00% ✓ 20       ✗ 180",
        "     http_reqs......................: 200    39.9/s",
    ):
        reader.line(line, 1.0)
    report = reader.report()
    assert report is not None
    assert (report.ok, report.errors, report.times.max) == (180, 20, 1.2)
    assert report.times.p95 == pytest.approx(0.0255)


def test_locust_tables() -> None:
    reader, course = replay("locust", "locust.txt", pace="Aggregated .* \\|", step=2.0)
    report = reader.report()
    assert (report.ok, report.errors, report.kinds) == (666 - 47, 47, {"status 503": 47})
    assert (report.times.p95, report.times.p99, report.times.max) == pytest.approx(
        (0.051, 0.077, 0.6)
    )
    assert sum(ok + bad for ok, bad in counts(course)) == 666


def test_locust_history() -> None:
    _, course = replay("locust", "locust-history.csv", 1795274148.5)
    assert counts(course) == [(167, 9), (158, 9), (138, 8), (167, 15), (144, 5)]
    last = course.seconds[-1]
    assert last.mean == pytest.approx((9.604631 * 820 - 8.991146 * 671) / 149 / 1e3, abs=1e-5)
    assert last.p95 == 0.041


def test_lines_by_a_regular_expression() -> None:
    spec = external(
        format="regex", pattern=r"rps=(?P<rate>[\d.,]+) bad=(?P<errors>\d+) p99=(?P<p99>\S+)ms"
    )
    reader, course = reader_for(spec, 0.0), Course(0.0, 0.0)
    for at, line in ((1.02, "rps=1,200.5 bad=2 p99=7.5ms"), (1.99, "rps=900 bad=0 p99=4ms"),
                     (2.5, "nothing"), (3.04, "rps=0 bad=0 p99=nanms")):  # fmt: skip
        for piece in reader.line(line, at):
            course.add(piece)
    course.close()
    assert counts(course) == [(1199, 2), (900, 0), (0, 0)]
    assert course.seconds[0].p99 == 0.0075
    assert course.seconds[2].p99 is None


def test_json_lines_with_paths_and_their_own_clock() -> None:
    spec = external(
        format="json-lines",
        fields={"ok": "n.good", "errors": "n.bad.0", "p50": "t.p50", "at": "when"},
        unit="us",
        interval="2s",
    )
    reader = reader_for(spec, 1_700_000_000.0)
    line = '{"when": 1700000004000, "n": {"good": 10, "bad": [1]}, "t": {"p50": 250}}'
    (piece,) = reader.line(line, 9.0)
    assert isinstance(piece, Period)
    assert (piece.begin, piece.end, piece.ok, piece.errors) == (2.0, 4.0, 20.0, 2.0)
    assert piece.times.p50 == pytest.approx(250e-6)
    (later,) = reader.line('{"when": "2023-11-14T22:13:26Z", "n": {"good": 1, "bad": [0]}}', 9.5)
    assert isinstance(later, Period)
    assert (later.begin, later.end) == (4.0, 6.0)
    assert reader.line('{"n": {"good": null}}', 9.5) == ()
    assert reader.line("{broken", 9.5) == ()


def test_durations() -> None:
    assert duration("1m30s") == 90.0
    assert duration("121.00us") == pytest.approx(121e-6)
    assert duration("7.8µs") == pytest.approx(7.8e-6)
    assert duration("1.5x") is None
    assert duration("") is None


@settings(max_examples=examples(40, 400), deadline=None)
@given(st.sampled_from(sorted(READERS)), st.lists(st.text(max_size=60), max_size=20), st.data())
def test_no_output_breaks_a_reader(form: str, lines: list[str], data: st.DataObject) -> None:
    """Recorded lines with parts of them replaced, and any text at all."""
    fields = {"pattern": "(?P<rate>.*)"} if form == "regex" else {}
    reader: Reader = reader_for(external(format=form, **fields), 0.0)
    files = sorted(DATA.glob(f"{form.partition('-')[0]}*"))
    if files:
        recorded = re.split(r"[\r\n]", data.draw(st.sampled_from(files)).read_text())
        begin = data.draw(st.integers(0, len(recorded) - 1))
        cut = data.draw(st.integers(0, 80))
        lines = [*lines, *recorded[begin : begin + 3], recorded[begin][:cut], recorded[begin][cut:]]
    course = Course(0.0, 0.0)
    for number, line in enumerate(lines):
        for piece in reader.line(line, number * 0.3):
            if isinstance(piece, Sample) and piece.at > 1e6:
                continue  # recorded at another time
            course.add(piece)
    course.close()
    course.totals(reader.report())
