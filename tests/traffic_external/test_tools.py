"""The real tools against servers on the loopback device, for as long as they are installed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.traffic_external.around import program, wait_for

from faultline.api.traffic import ExternalTraffic
from faultline.errors import ApplyFailed
from faultline.traffic.external.run import ExternalRun
from faultline.traffic.run import Traffics, run_of

Make = Callable[..., ExternalTraffic]


def test_wrk_runs_to_its_end(external: Make, site: str) -> None:
    program("wrk")
    run = ExternalRun(
        external("wrk", "-t1", "-c2", "-d1s", "--latency", f"{site}/bad", format="wrk")
    )
    with run:
        assert run.wait(20)
        status = run.stop()
    assert status.text == ""
    assert status.totals is not None
    assert status.totals.ok > status.totals.errors > 0
    assert status.totals.kinds == {"status": status.totals.errors}
    assert status.totals.p50
    assert not run.running


def test_wrk_that_is_stopped_still_reports(external: Make, site: str) -> None:
    program("wrk")
    run = run_of(
        external("wrk", "-t1", "-c2", "-d60s", "--latency", f"{site}/", format="wrk")
    ).start()
    assert run.snapshot().seconds == 0  # nothing is known before its end
    status = run.finish(10)
    assert status.text == ""
    assert status.totals is not None
    assert status.totals.ok > 0
    assert status.totals.seconds < 20


def test_wrk_without_a_server_says_why(external: Make) -> None:
    program("wrk")
    run = ExternalRun(external("wrk", "-d1s", "http://127.0.0.1:1/", format="wrk"))
    with pytest.raises(ApplyFailed, match=r"exit code 1: unable to connect to 127\.0\.0\.1:1"):
        run.start()
    assert not run.running


def test_hey_by_its_csv(external: Make, site: str) -> None:
    program("hey")
    words = ("hey", "-z", "2s", "-c", "2", "-q", "50", "-o", "csv", f"{site}/bad")
    with ExternalRun(external(*words, format="hey")) as run:
        assert run.wait(20)
        status = run.stop()
    assert status.totals is not None
    assert status.totals.ok + status.totals.errors == pytest.approx(200, rel=0.2)
    assert set(status.totals.kinds) == {"status 503"}
    assert 2 <= len(status.seconds) <= 4
    assert status.totals.histogram


def test_sysbench_second_by_second(external: Make) -> None:
    program("sysbench")
    words = ("sysbench", "cpu", "--time=60", "--report-interval=1", "--rate=50", "run")
    traffics = Traffics()
    try:
        traffics.start(external(*words, format="sysbench"))
        assert wait_for(lambda: len(traffics.seconds("load", 0.0)) >= 2)
        first, second = traffics.seconds("load", 0.0)[:2]
        assert second.at == pytest.approx(first.at + 1)
        assert second.ok == pytest.approx(50, abs=25)
        figures = traffics.figures("load", None)
        assert figures is not None
        assert figures.ok >= first.ok + second.ok
        assert traffics.failure("load") == ""
    finally:
        traffics.close()


def test_pgbench_second_by_second(external: Make, postgres: dict[str, str]) -> None:
    words = ("pgbench", "-P", "1", "-T", "3", "-R", "50", "postgres")
    with ExternalRun(external(*words, format="pgbench", env=postgres)) as run:
        assert run.wait(60)
        status = run.stop()
    assert status.text == ""
    assert status.totals is not None
    assert status.totals.ok >= sum(each.ok for each in status.seconds) - 1 > 0
    assert status.totals.mean
    assert all(each.mean for each in status.seconds if each.ok)


def test_redis_benchmark_second_by_second(external: Make, redis: int) -> None:
    program("redis-benchmark")
    words = ("redis-benchmark", "-p", str(redis), "-t", "ping_mbulk", "-n", "10000000", "-c", "4")
    spec = external(*words, format="redis-benchmark", duration="2500ms")
    with ExternalRun(spec) as run:
        assert run.wait(20)
        status = run.stop()
    assert status.text == ""
    assert 2 <= len(status.seconds) <= 5
    assert status.totals is not None
    assert status.totals.ok == sum(each.ok for each in status.seconds) > 1000
    assert status.totals.mean
    assert abs(status.seconds[0].at - time.time()) < 60
