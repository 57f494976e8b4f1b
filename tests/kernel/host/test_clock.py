"""The clock that deadlines are kept on."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from faultline.kernel import clock

pytestmark = pytest.mark.both_kernels


def test_now_is_the_boot_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= clock.now() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(clock.now() / 1e9 - uptime) < 1


def test_the_boot_id_is_a_uuid_and_stays() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", clock.boot_id())
    assert clock.boot_id() == clock.boot_id()


def test_a_sleep_never_ends_early() -> None:
    deadline = clock.now() + 80_000_000
    clock.sleep_until(deadline)
    assert clock.now() >= deadline


def test_a_deadline_in_the_past_is_not_waited_for() -> None:
    begin = clock.now()
    clock.sleep_until(begin - 10**9)
    clock.sleep_until(0)
    assert clock.now() - begin < 10**9


def test_a_timer_expires_again_and_again() -> None:
    with clock.BootTimer() as timer:
        assert not timer.wait(0.02)
        timer.set(clock.now() + 20_000_000, interval=20_000_000)
        assert timer.wait(5)
        assert timer.wait(5)
        timer.set(0)
        assert not timer.wait(0.05)


def test_a_signal_handler_that_raises_ends_the_sleep() -> None:
    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            clock.sleep_until(clock.now() + 30 * 10**9)
    finally:
        signal.signal(signal.SIGALRM, old)


def test_outside_a_time_namespace_nothing_is_added() -> None:
    assert clock.namespace_offset() == 0
