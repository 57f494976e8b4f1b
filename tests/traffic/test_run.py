"""Real load on real servers on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faultline.api.traffic import HttpTraffic
from faultline.errors import ApplyFailed, ObserveFailed
from faultline.traffic.histogram import Histogram
from faultline.traffic.run import TrafficRun, Traffics
from faultline.units import Duration

pytestmark = pytest.mark.slow  # a load needs seconds to be one

Make = Callable[..., HttpTraffic]
SOURCE = Path(__file__).resolve().parents[2] / "src"


def gone(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return True
        if text.rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.05)
    return False


def stall(pid: int, seconds: float) -> float:
    """Stop a process for a while; returns for how long it stood at least."""
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    time.sleep(seconds)
    stood = time.monotonic() - begun
    os.kill(pid, signal.SIGCONT)
    return stood


def test_the_open_model_sends_what_the_schedule_says(
    service: tuple[str, int], traffic: Make
) -> None:
    with TrafficRun(traffic(f"{service[0]}/work", rate=150.0)) as run:
        assert run.wait(20)
        status = run.stop()
    assert status.totals is not None
    assert status.text == ""
    assert status.totals.sent == status.totals.ok == 300  # 2 s at 150 per second, not one more
    assert status.totals.errors == 0
    assert status.totals.seconds == pytest.approx(2.0)
    # Evenly: a second holds its share but for what our own lag moved across the boundary.
    moved = 1 + 150 * status.totals.lag
    assert abs(status.seconds[0].sent - 150) <= moved


def test_several_generators_share_one_schedule(service: tuple[str, int], traffic: Make) -> None:
    with TrafficRun(traffic(f"{service[0]}/work", rate=101.0, workers=2)) as run:
        assert len(run.pids) == 2
        assert run.wait(20)
        status = run.stop()
    assert status.totals is not None
    assert abs(status.totals.sent - 202) <= 1
    assert status.totals.ok == status.totals.sent
    assert sum(second.sent for second in status.seconds) == status.totals.sent
    assert Histogram().add(status.totals.histogram).count == status.totals.ok


def test_a_stall_shows_in_the_percentiles_of_the_open_model(
    service: tuple[str, int], traffic: Make
) -> None:
    """Coordinated omission: of 4 s of requests those due in a stall of 1 s wait 1 s down to 0 s."""
    url, pid = service
    with TrafficRun(traffic(f"{url}/work", rate=100.0, duration="4s")) as run:
        time.sleep(1.0)
        stood = stall(pid, 1.0)
        assert run.wait(20)
        totals = run.totals()
    assert totals.ok == totals.sent == 400
    assert totals.p95 is not None
    assert totals.max is not None
    # A share of stood / 4 waited between 0 and `stood`, evenly; a twentieth of all is above p95.
    expected = stood - 4 * 0.05
    assert expected * 0.8 <= totals.p95 <= expected * 1.3 + 0.2
    assert totals.max >= stood * 0.95
    assert totals.p99 is not None
    assert totals.p99 >= (stood - 4 * 0.01) * 0.9


def test_the_same_stall_is_nearly_invisible_to_one_closed_client(
    service: tuple[str, int], traffic: Make
) -> None:
    """Why the open model is the default advice: a waiting client sends nothing and sees nothing."""
    url, pid = service
    with TrafficRun(traffic(f"{url}/work", concurrency=1, duration="3s")) as run:
        time.sleep(1.0)
        stood = stall(pid, 1.0)
        assert run.wait(20)
        totals = run.totals()
    assert totals.max is not None
    assert totals.p95 is not None
    assert totals.max >= stood * 0.95
    assert totals.p95 < stood / 2
    assert totals.sent - totals.ok == 0


def test_the_live_figures_rise_while_nothing_is_answered(
    service: tuple[str, int], traffic: Make
) -> None:
    url, pid = service
    with TrafficRun(traffic(f"{url}/work", rate=50.0, duration="10s")) as run:
        time.sleep(1.3)
        before = run.snapshot(1.0)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        during = run.snapshot(1.0)
        os.kill(pid, signal.SIGCONT)
    assert before.p95 is not None
    assert during.p95 is not None
    assert during.p95 > 0.9
    assert during.p95 > before.p95
    assert during.ok == 0


def test_the_lag_of_a_generator_that_is_held_up_is_recorded(
    service: tuple[str, int], traffic: Make
) -> None:
    with TrafficRun(traffic(f"{service[0]}/work", rate=50.0, duration="3s")) as run:
        time.sleep(1.0)
        stood = stall(run.pids[0], 0.8)
        assert run.wait(20)
        totals = run.totals()
    assert totals.lag >= stood * 0.9
    assert totals.sent == 150  # what was due meanwhile was sent late, and counted from its due time
    assert totals.max is not None
    assert totals.max >= stood * 0.9


def test_closed_clients_wait_for_each_other_never(pages: str, traffic: Make) -> None:
    with TrafficRun(traffic(f"{pages}/slow/0.2", concurrency=5)) as run:
        assert run.wait(20)
        totals = run.totals()
    # Five clients, ten requests each at most in 2 s.
    assert 25 <= totals.sent <= 50
    assert totals.p50 is not None
    assert totals.p50 >= 0.2


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/status/503", "status 503"), ("/cut/off", "cut off"), ("/slow/5", "timeout")],
)
def test_each_failure_is_counted_by_its_kind(
    pages: str, traffic: Make, path: str, kind: str
) -> None:
    fields = {"rate": 10.0, "duration": "500ms", "timeout": "300ms"}
    with TrafficRun(traffic(pages + path, **fields)) as run:
        assert run.wait(20)
        totals = run.totals()
    assert totals.kinds == {kind: 5}
    assert totals.errors == 5
    assert totals.ok == 0
    if kind == "timeout":  # a time-out is a latency too: at least that long
        assert totals.p50 is not None
        assert totals.p50 >= 0.29


def test_a_refused_connection_is_an_error_and_no_latency(traffic: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with TrafficRun(traffic(url, rate=20.0, duration="500ms")) as run:
        assert run.wait(20)
        totals = run.totals()
    assert totals.kinds == {"refused": 10}
    assert totals.p50 is None


def test_a_name_that_does_not_exist_is_told_apart(traffic: Make) -> None:
    url = "http://no-such-host.invalid/"
    with TrafficRun(traffic(url, rate=4.0, duration="500ms", timeout="5s")) as run:
        assert run.wait(30)
        totals = run.totals()
    assert set(totals.kinds) <= {"name not found", "timeout"}
    assert totals.errors == 2


def test_a_certificate_is_verified_unless_it_need_not_be(tls_pages: str, traffic: Make) -> None:
    for verify, ok, kinds in ((True, 0, {"tls": 3}), (False, 3, {})):
        fields = {"rate": 6.0, "duration": "500ms", "verify": verify}
        with TrafficRun(traffic(f"{tls_pages}/", **fields)) as run:
            assert run.wait(20)
            totals = run.totals()
        assert (totals.ok, totals.kinds) == (ok, kinds)


def test_the_seconds_of_warm_up_are_on_the_curve_but_not_in_the_total(
    service: tuple[str, int], traffic: Make
) -> None:
    with TrafficRun(traffic(service[0], rate=40.0, warmup="1s", duration="1s")) as run:
        assert run.wait(20)
        status = run.stop()
    assert status.totals is not None
    assert sum(second.sent for second in status.seconds) == 80
    assert abs(status.totals.sent - 40) <= 1 + 40 * status.totals.lag


def test_stopping_is_at_once_and_leaves_no_process(pages: str, traffic: Make) -> None:
    run = TrafficRun(traffic(f"{pages}/slow/3", rate=20.0, duration="1h", timeout="1m")).start()
    time.sleep(1.2)
    begun = time.monotonic()
    status = run.stop()
    assert time.monotonic() - begun < 2.0  # less than one answer takes
    assert all(gone(pid, 0.1) for pid in run.pids)
    assert status.totals is not None
    assert status.totals.ok == 0
    assert "left unanswered" in status.text
    assert run.stop().ended == status.ended


def test_finishing_waits_for_the_answers_under_way(pages: str, traffic: Make) -> None:
    run = TrafficRun(traffic(f"{pages}/slow/1", rate=20.0, duration="1h")).start()
    time.sleep(0.6)
    status = run.finish(10.0)
    assert status.totals is not None
    assert status.totals.sent == status.totals.ok > 0
    assert status.text == ""
    assert all(gone(pid, 0.1) for pid in run.pids)


@pytest.mark.parametrize("fields", [{"rate": 50.0}, {"concurrency": 2}])
def test_the_generators_die_with_their_parent(
    service: tuple[str, int], fields: dict[str, float]
) -> None:
    code = (
        "import sys, time\n"
        "from faultline.api.traffic import HttpTraffic\n"
        "from faultline.traffic.run import TrafficRun\n"
        f"fields = {{'type': 'http', 'name': 'x', 'url': {service[0]!r}, **{fields!r}}}\n"
        "run = TrafficRun(HttpTraffic.model_validate(fields)).start()\n"
        "print(*run.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert pids
        assert not any(gone(pid, 0.1) for pid in pids)
        parent.kill()
    assert all(gone(pid) for pid in pids)


def test_the_end_of_the_thread_that_started_it_ends_nothing(
    service: tuple[str, int], traffic: Make
) -> None:
    """The parent-death signal of Linux is sent when the starting thread ends, too."""
    run = TrafficRun(traffic(service[0], rate=20.0, duration="30s"))
    thread = threading.Thread(target=run.start)
    thread.start()
    thread.join()
    time.sleep(1.5)
    assert run.running
    assert run.snapshot().ok > 0
    run.stop()
    assert run.failure == ""


def test_a_generator_that_dies_is_a_failure_and_not_silence(
    service: tuple[str, int], traffic: Make
) -> None:
    with TrafficRun(traffic(service[0], rate=20.0, duration="30s")) as run:
        time.sleep(1.3)
        os.kill(run.pids[0], signal.SIGKILL)
        assert gone(run.pids[0])
        assert run.wait(5)
        with pytest.raises(ObserveFailed, match="status -9"):
            run.snapshot()
        assert "status -9" in run.stop().text


def test_a_load_that_is_over_has_no_live_figures(service: tuple[str, int], traffic: Make) -> None:
    with TrafficRun(traffic(service[0], rate=20.0, duration="1s")) as run:
        assert run.wait(20)
        time.sleep(3.1)
        assert run.snapshot(1.0).sent == 0
        assert run.totals().sent == 20


def test_a_generator_that_cannot_start_is_an_error_with_its_reason(
    traffic: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ApplyFailed, match="ended with status 1"):
        TrafficRun(traffic("http://127.0.0.1:1/", rate=1.0)).start()


def test_the_loads_of_a_run_are_known_by_name(service: tuple[str, int], traffic: Make) -> None:
    loads = Traffics()
    assert loads.figures("load", None) is None
    assert loads.stop("load") is None
    loads.start(traffic(service[0], rate=50.0, duration="30s"))
    time.sleep(2.4)
    figures = loads.figures("load", Duration.parse("5s"))
    assert figures is not None
    assert figures.ok > 0
    seconds = loads.seconds("load", 0.0)
    assert len(seconds) >= 2
    assert [s.at for s in loads.seconds("load", seconds[0].at)][:1] == [seconds[1].at]
    totals = loads.stop("load")
    assert totals is not None
    assert totals.sent == totals.ok
    loads.close()


def test_the_longest_time_given_by_the_engine_bounds_the_load(
    service: tuple[str, int], traffic: Make
) -> None:
    with TrafficRun(traffic(service[0], rate=20.0, duration="1h"), most=10**9) as run:
        assert run.wait(20)
        assert run.totals().sent == 20
