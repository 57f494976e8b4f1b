"""An engine that is killed at every write of a fault: it injects once and leaves nothing."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from tests.kube.operator.conftest import FAULTS
from tests.kube.runs.conftest import RUNS, Place, until

from faultline.changes.model import End, State
from faultline.engine import actions
from faultline.engine.ports import FaultOrder
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, Request, Wrapped, metadata
from faultline.operator.running.faults import ClusterFaults
from faultline.units import Duration

pytestmark = pytest.mark.needs_apiserver


class Killed(BaseException):
    """It is gone."""


class Dying(Wrapped):
    """A process that dies before, or right after, its next write."""

    after = False

    def send(self, asked: Request) -> Answer:
        if asked.method == "GET":
            return super().send(asked)
        if self.after:
            super().send(asked)
        raise Killed


def order(run: Any) -> FaultOrder:
    return FaultOrder(
        "network.delay", {"latency": "100ms"}, Duration.parse("60s"),
        f"{metadata(run)['uid'][:12]}-slow", run=metadata(run)["name"],
        selector={"pods": {"labels": {"app": "web"}}, "mode": "all"},
    )  # fmt: skip


@pytest.mark.parametrize("after", [False, True])
def test_it_goes_on_where_it_was(place: Place, after: bool) -> None:
    place.bench.operate()
    # Somebody else's: the operator begins what nobody has made, and this test is the engine.
    asked = order(place.put(RUNS, "r", {"experiment": "e"}, labels={"engine": "host"}))
    space = place.bench.namespace
    rest = place.bench.connect()
    dying = Dying(rest)
    dying.after = after
    with closing(Client(dying)) as dead, closing(Client(place.bench.connect())) as alive:
        killed = ClusterFaults(dead, space, lambda *_: "all")
        well = ClusterFaults(alive, space, lambda *_: "all")
        with pytest.raises(Killed):
            actions._inject(asked, killed, goes_on=True)
        made = actions._inject(asked, well, goes_on=True)
        uids = {metadata(each)["uid"] for each in place.faults()}
        assert len(uids) == 1
        again = actions._inject(asked, well, goes_on=True)
        assert (made.ended, again.adopted) == (False, True)
        assert {metadata(each)["uid"] for each in place.faults()} == uids
        reading = until(lambda: (r := well.observe(asked.uid)).measured and r)
        assert "6 of 6" in reading.measured
        with pytest.raises(Killed):
            killed.recover(asked.uid)
        record = well.recover(asked.uid)
        assert (record.state, record.end) == (State.ENDED, End.RECOVERED)
        assert well.recover(asked.uid).end is End.RECOVERED, "twice is harmless"
        with pytest.raises(Killed):
            killed.residue(asked.uid)
        assert well.residue(asked.uid) == []
        until(lambda: well.find(asked.uid) is None)
        assert well.residue(asked.uid) == []
    assert place.bench.agents is not None
    assert place.bench.agents.suffering() == 0
    assert list(place.client.every(FAULTS, space)) == []
