"""Faults that end when nobody renews their lease, whoever else is alive."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from lifeground import SECOND, Ground, keepers_of, kill, until

from faultline.changes import lease
from faultline.changes.model import End, Record
from faultline.errors import NotRecorded
from faultline.kernel import clock

pytestmark = [pytest.mark.both_kernels, pytest.mark.needs_root]


def inject(ground: Ground, seconds: float, uid: str = "leased") -> None:
    """A fault of a minute with a lease that holds for so long from now on."""
    renew(ground, 60.0)
    with ground.injector() as injector:
        injector.lease = "somebody"
        injector.inject(ground.order(60.0, uid=uid))
    assert ground.target.exists()
    renew(ground, seconds)


def renew(ground: Ground, seconds: float) -> None:
    lease.renew(ground.store.run, "somebody", clock.now() + round(seconds * SECOND))


def test_it_ends_with_its_lease(ground: Ground) -> None:
    inject(ground, 0.5)
    assert until(lambda: not ground.target.exists())
    assert ground.ended("leased") is End.RECOVERED
    with ground.injector() as injector:
        assert injector.get("leased").note == "ended with the lease somebody"


def test_others_do_not_end_with_it(ground: Ground) -> None:
    renew(ground, 0.0)
    with ground.injector() as injector:
        injector.inject(ground.order(60.0, uid="lasting"))
        time.sleep(1.5)
        assert ground.target.exists()
        injector.recover("lasting")


def test_it_goes_on_while_it_is_renewed(ground: Ground) -> None:
    inject(ground, 1.0)
    for _ in range(10):
        renew(ground, 1.0)
        time.sleep(0.2)
    assert ground.target.exists()
    renew(ground, 0.0)  # it can be ended at once, too
    assert until(lambda: not ground.target.exists())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_keeper_is_enough(ground: Ground, number: signal.Signals) -> None:
    inject(ground, 2.0)
    keepers_of(ground.store)["a"].id.send(number)
    assert until(lambda: not ground.target.exists())


def test_keepers_that_come_later_read_it_too(ground: Ground) -> None:
    inject(ground, 3.0)
    for each in keepers_of(ground.store).values():
        kill(each)
    with ground.injector() as injector:
        injector.adopt()
    assert until(lambda: not ground.target.exists())
    assert until(lambda: ground.ended("leased") is End.RECOVERED)


def test_nothing_begins_with_a_lease_that_is_over(ground: Ground) -> None:
    renew(ground, -1.0)
    with ground.injector() as injector:
        injector.lease = "somebody"
        with pytest.raises(NotRecorded, match="lease"):
            injector.inject(ground.order(60.0, uid="late"))
    assert not ground.target.exists()
    lease.path(ground.store.run, "somebody").unlink()
    with ground.injector() as injector:
        injector.lease = "somebody"
        with pytest.raises(NotRecorded, match="lease"):
            injector.inject(ground.order(60.0, uid="again"))


def test_a_torn_write_is_seen(tmp_path: Path) -> None:
    lease.renew(tmp_path, "x", 5_000)
    held = lease.Lease(tmp_path, "x")
    assert held.until() == 5_000
    file = lease.path(tmp_path, "x")
    fd = os.open(file, os.O_WRONLY)
    os.pwrite(fd, f"{9_000:020d}".encode(), 0)  # the second half is still to come
    os.close(fd)
    assert held.until() == 5_000
    lease.renew(tmp_path, "x", 9_000)
    assert held.until() == 9_000
    held.close()
    held.close()
    assert lease.Lease(tmp_path, "y").until() == 0


def test_a_record_without_one_is_as_before() -> None:
    made = Record("u", "f.x", {}, {}, [], 1, 2, "b", 0.0)
    assert "lease" not in made.to_json()
    made.lease = "somebody"
    assert Record.from_json(made.to_json()) == made
