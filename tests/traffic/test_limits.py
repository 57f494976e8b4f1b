"""Whether the generator was the limit, and figures of several hosts as one. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from faultline.api.traffic import HttpTraffic, TrafficFigures
from faultline.errors import ApplyFailed, Unsupported
from faultline.traffic import limits, load, summary
from faultline.traffic.histogram import Histogram
from faultline.traffic.model import SECOND, Part, Tick
from faultline.traffic.run import TrafficRun
from faultline.traffic.series import Series

Make = Callable[..., HttpTraffic]


def encoded(*values: float) -> str:
    histogram = Histogram()
    for value in values:
        histogram.record(round(value * SECOND))
    return histogram.encode()


def tick(index: int = 0, **fields: Any) -> Tick:
    given: dict[str, Any] = {
        "sent": 100, "ok": 100, "errors": {}, "waiting": (), "latency": encoded(0.01),
        "lag_max": 0, "cpu": (SECOND // 10,), "until": (index + 1) * SECOND,
    }  # fmt: skip
    return Tick(index=index, **{**given, **fields})


def test_a_generator_that_kept_its_time_says_nothing() -> None:
    assert limits.told([], closed=False) == ""
    assert limits.told([tick(), tick(1)], closed=False) == ""
    late = tick(late=1, lag_max=SECOND)
    assert limits.told([late], closed=False) == "", "one in a hundred is not a limit"


def test_a_generator_without_a_core_of_its_own_is_the_limit() -> None:
    full = tick(late=40, lag_max=1_234_000_000, cpu=(SECOND // 10, SECOND * 95 // 100))
    said = limits.told([full, tick(1)], closed=False)
    assert "The generator, not the target, was the limit" in said
    assert "20% of the requests left more than 10ms late, by up to 1234ms" in said
    assert "all of its core in 1 of 2 seconds" in said
    assert "More workers" in said


def test_a_busy_machine_is_told_from_a_busy_generator() -> None:
    said = limits.told([tick(late=40, lag_max=SECOND)], closed=False)
    assert "busy with something else" in said
    assert "More workers" not in said


def test_users_who_fill_the_core_of_their_generator_are_its_limit() -> None:
    full = tick(cpu=(SECOND * 98 // 100,))
    assert "all of its core in 2 of 2 seconds" in limits.told([full, full], closed=True)
    assert limits.told([full, tick(), tick()], closed=True) == ""


def test_what_this_machine_lacks_and_what_was_not_sent_is_said() -> None:
    said = limits.told([tick(errors={"no local port": 7, "not sent": 3})], closed=False)
    assert "7 times no local port" in said
    assert "3 requests were not sent" in said


def test_parts_are_added_up_over_generators_and_seconds_without_warm_up() -> None:
    def of(ok: int, *values: float) -> dict[str, Part]:
        return {"buy": Part(ok, ok, 0, encoded(*values))}

    first = [tick(0, parts=of(9, 5.0)), tick(1, parts=of(1, 0.1)), tick(2, parts=of(2, 0.2, 0.2))]
    second = [tick(0), tick(1, parts=of(1, 0.4)), tick(2)]
    series = Series(SECOND)
    series.extend([first, second], 2, 0.0)
    (part,) = series.totals().parts
    assert (part.name, part.sent, part.ok) == ("buy", 4, 4)
    assert part.max == pytest.approx(0.4, rel=0.01)
    assert Histogram().add(part.histogram).count == 4


def test_figures_of_hosts_are_those_of_all_requests_together() -> None:
    fast = [0.001 * n for n in range(1, 901)]
    slow = [5.0 + 0.01 * n for n in range(100)]
    hosts = []
    for values in (fast, slow):
        series = Series(0)
        parts = {"a": Part(len(values), len(values), 0, encoded(*values))}
        both = replace(tick(), latency=encoded(*values), sent=len(values), ok=len(values))
        series.extend([[replace(both, parts=parts, errors={"reset": 1})]], 0, 0.0)
        hosts.append(series.totals())
    whole = summary.over_hosts(hosts)
    once = Histogram.merged([encoded(*fast, *slow)])
    assert (whole.sent, whole.ok, whole.errors, whole.kinds) == (1000, 1000, 2, {"reset": 2})
    assert whole.p95 == once.percentiles([95.0])[95.0]
    assert whole.parts[0].p95 == whole.p95
    assert whole.seconds == 1.0
    assert summary.over_hosts([]).model_dump() == TrafficFigures().model_dump()


def test_a_library_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, traffic: Make
) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="aiohttp") as caught:
        TrafficRun(traffic("http://127.0.0.1/", rate=1.0))
    assert caught.value.hint == "pip install 'faultline[experiments]'"


def test_a_feed_is_looked_at_before_anything_is_sent(traffic: Make, tmp_path: Any) -> None:
    path = tmp_path / "users.csv"
    fields = {"rate": 1.0, "body": "{{id}}", "feed": {"file": str(path)}}
    with pytest.raises(ApplyFailed, match="cannot be read"):
        TrafficRun(traffic("http://127.0.0.1/", **fields))
    path.write_text("name\nanna\n")
    with pytest.raises(ApplyFailed, match="no column id") as caught:
        TrafficRun(traffic("http://127.0.0.1/", **fields))
    assert caught.value.hint == "it has name"


def test_a_secret_that_is_not_there_is_said_before_anything_is_sent(traffic: Make) -> None:
    with pytest.raises(ApplyFailed, match="no variable FAULTLINE_NO_SUCH"):
        TrafficRun(traffic("http://127.0.0.1/", rate=1.0, bearer={"env": "FAULTLINE_NO_SUCH"}))


@pytest.mark.slow
def test_a_rate_beyond_the_generator_is_told_as_its_own_limit(
    service: tuple[str, int], traffic: Make
) -> None:
    with TrafficRun(traffic(f"{service[0]}/health", rate=40_000.0, duration="2s")) as run:
        run.wait(4)
        status = run.stop()
    assert status.totals is not None
    assert "The generator, not the target, was the limit" in status.totals.text
    assert status.totals.late > 0


@pytest.mark.slow
def test_stages_go_up_and_down(service: tuple[str, int], traffic: Make) -> None:
    stages = [{"duration": "2s", "rate": 200}, {"duration": "0s", "rate": 50}]
    given = {"rate": 10.0, "stages": stages, "duration": "3s", "workers": 2}
    with TrafficRun(traffic(f"{service[0]}/health", **given)) as run:
        assert run.wait(20)
        status = run.stop()
    assert status.totals is not None
    assert status.totals.sent == pytest.approx(210 + 50, abs=2)
    first, second, third = (each.sent for each in status.seconds)
    if status.totals.lag < 0.1:
        assert first == pytest.approx(57, abs=25)
        assert second == pytest.approx(152, abs=25)
        assert third == pytest.approx(50, abs=25)


@pytest.mark.slow
def test_users_think_and_rows_end_the_load(service: tuple[str, int], traffic: Make) -> None:
    feed = {"rows": [{"n": n} for n in range(6)], "order": "unique"}
    given = {"concurrency": 2, "think": "100ms", "workers": 2, "feed": feed, "duration": "1h"}
    begun = time.monotonic()
    with TrafficRun(traffic(f"{service[0]}/health?n={{{{n}}}}", **given)) as run:
        assert run.wait(20)
        status = run.stop()
    assert status.totals is not None
    assert (status.totals.sent, status.totals.ok, status.text) == (6, 6, "")
    assert time.monotonic() - begun < 15
    assert status.totals.seconds < 5
