"""A device that goes down, and comes back with all that the kernel dropped with it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from lanes import connects, off, on, order, passes, until
from netrig import Wire

from faultline.changes.kind import Context
from faultline.changes.link_down import LinkDown
from faultline.changes.model import End, Undone
from faultline.errors import Protected, Refused
from faultline.injection.injector import Injector

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def ip(*words: str) -> Any:
    done = subprocess.run(["ip", "-j", *words], check=True, capture_output=True, text=True).stdout
    return json.loads(done) if done.strip() else []


def addresses() -> list[str]:
    """Every address as another program reads it, without the ages."""
    found = ip("addr", "show", "dev", "v0")[0]["addr_info"]
    volatile = {"tentative", "dadfailed"}
    return sorted(
        json.dumps({k: v for k, v in each.items() if k not in volatile}) for each in found
    )


def routes() -> list[str]:
    listed = ip("-4", "route", "show", "table", "all") + ip("-6", "route", "show", "table", "all")
    return sorted(json.dumps({**each, "flags": []}, sort_keys=True) for each in listed)


def furnish() -> None:
    """What an administrator may have set up on a device."""
    ip("addr", "add", "10.9.9.1/32", "dev", "v0", "label", "v0:x")
    ip("addr", "add", "10.77.0.31/24", "dev", "v0")
    ip("addr", "add", "fd99::1/128", "dev", "v0", "nodad")
    ip("addr", "add", "fd77::31/64", "dev", "v0", "nodad", "noprefixroute")
    ip("route", "add", "192.0.2.0/24", "via", "10.77.0.2", "metric", "77")
    ip("route", "add", "198.51.100.0/24", "dev", "v0", "src", "10.77.0.31", "mtu", "1300")
    ip("route", "add", "203.0.113.0/24", "via", "10.77.0.2", "table", "123")
    ip("-6", "route", "add", "2001:db8:1::/48", "via", "fd77::2", "metric", "55")
    ip("-6", "route", "add", "2001:db8:2::/48", "dev", "v0")
    ip("-6", "route", "add", "2001:db8:3::/48", "via", "fd77::2", "table", "123")


def test_addresses_and_routes_come_back_exactly(wire: Wire, injector: Injector) -> None:
    furnish()
    until(lambda: "tentative" not in json.dumps(ip("addr", "show", "dev", "v0")))
    before = addresses(), routes()
    assert len(before[0]) >= 6
    with on(injector, "down", interface="v0"):
        assert "UP" not in ip("link", "show", "dev", "v0")[0]["flags"]
        assert not any('"v0"' in route for route in routes() if "local" not in route)
    until(lambda: (addresses(), routes()) == before, 5)
    for host in (wire.there4, wire.there6):
        until(lambda host=host: passes(wire.here, wire.there, host, 4000))
        assert connects(wire.here, wire.there, host, 4001, 5)


def test_nobody_reaches_anybody_meanwhile_and_keepers_bring_it_back(
    wire: Wire, injector: Injector
) -> None:
    record = injector.inject(order("down", duration="1500ms", interface="v0"))
    assert not passes(wire.there, wire.here, wire.here4, 4000)
    until(lambda: injector.get(record.uid).end is not None)
    assert injector.get(record.uid).end is End.RECOVERED
    until(lambda: passes(wire.there, wire.here, wire.here4, 4000))
    until(lambda: passes(wire.there, wire.here, wire.here6, 4000))


def test_what_somebody_changed_meanwhile_is_kept(wire: Wire, injector: Injector) -> None:
    record = injector.inject(order("down", interface="v0"))
    ip("link", "set", "v0", "up")
    ip("addr", "add", "10.66.0.1/24", "dev", "v0")
    ended = injector.recover(record.uid)
    assert ended.end in (End.NOTHING, End.RECOVERED)
    assert any("10.66.0.1" in each for each in addresses())
    assert any("fd77::1" in each for each in addresses())
    assert "UP" in ip("link", "show", "dev", "v0")[0]["flags"]


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_the_device_of_the_default_route_needs_to_be_allowed(
    wire: Wire, injector: Injector, family: str
) -> None:
    via = wire.there4 if family == "-4" else wire.there6
    ip(family, "route", "add", "default", "via", via)
    before = routes()
    with pytest.raises(Protected, match="default route") as refused:
        injector.inject(order("down", interface="v0"))
    assert "--allow v0" in refused.value.hint
    assert "UP" in ip("link", "show", "dev", "v0")[0]["flags"]
    plan = injector.plan(order("down", interface="v0", allow=("v0",)))
    assert any("v0" in note for note in plan.notes)
    record = injector.carry_out(plan)
    assert "UP" not in ip("link", "show", "dev", "v0")[0]["flags"]
    off(injector, record.uid)
    until(lambda: routes() == before, 5)


def test_a_device_that_is_down_already_is_refused(wire: Wire, injector: Injector) -> None:
    ip("link", "set", "v0", "down")
    with pytest.raises(Refused, match="down already"):
        injector.inject(order("down", interface="v0"))


@pytest.mark.parametrize("alias", ["", "uplink to rack 7"])
def test_a_scan_finds_it_without_any_journal(wire: Wire, injector: Injector, alias: str) -> None:
    """By the device's alias, if that was free; somebody's own is left alone."""
    ip("link", "set", "v0", "alias", alias)
    record = injector.inject(order("down", interface="v0"))
    told = ip("link", "show", "dev", "v0")[0]["ifalias"]
    assert told == alias or record.uid in told
    kind, nl = LinkDown(), wire.here.nl
    found = list(kind.scan(nl, ()))
    assert [each.uid for each in found] == ([] if alias else [record.uid])
    for each in found:
        outcome = kind.undo(each.change.spec, each.prior, {}, Context(each.uid, each.index, 0, nl))
        assert outcome.end is Undone.UNDONE
        assert "UP" in ip("link", "show", "dev", "v0")[0]["flags"]
    injector.recover(record.uid)
    assert "UP" in ip("link", "show", "dev", "v0")[0]["flags"]
    assert ip("link", "show", "dev", "v0")[0].get("ifalias", "") == alias
