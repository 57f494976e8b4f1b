"""What we write, an independent netlink library reads the same, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from netrig import LO, UDP, Net, add, mark
from pyroute2 import IPRoute

from faultline.kernel import hop, link, netns, route, tc
from faultline.kernel.match import Action, ActionKind
from faultline.kernel.shaping import Netem, Tbf
from faultline.kernel.tc import Direction

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.both_kernels,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def oracle(net: Net) -> Iterator[Any]:
    with netns.entered(net.fd):
        opened = IPRoute()
    yield opened
    opened.close()


def test_links_are_listed_the_same(net: Net, oracle: Any) -> None:
    hop.create(net.nl, link.get(net.nl, "lo"), mark(), None)
    link.add_simple(net.nl, "ifbtest", "ifb", "an alias")
    theirs = {
        (m["index"], m.get_attr("IFLA_IFNAME"), m["flags"], m.get_attr("IFLA_MTU"),
         m.get_attr("IFLA_IFALIAS") or "", (m.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""),
         m["ifi_type"])
        for m in oracle.get_links()
    }  # fmt: skip
    ours = {(o.index, o.name, o.flags, o.mtu, o.alias, o.kind, o.type) for o in link.links(net.nl)}
    assert ours == theirs


def test_our_filter_is_read_as_we_meant_it(net: Net, oracle: Any) -> None:
    attached = add(net, Direction.INGRESS, UDP, Action(ActionKind.DROP))
    (theirs,) = [m for m in oracle.get_filters(LO, parent=Direction.INGRESS.parent) if m["handle"]]
    options = theirs.get_attr("TCA_OPTIONS")
    assert theirs.get_attr("TCA_KIND") == "bpf"
    assert options.get_attr("TCA_BPF_NAME") == "faultline:test:1:made"
    assert options.get_attr("TCA_BPF_FLAGS") == 1
    assert theirs["info"] >> 16 == attached.filter.priority
    assert tc.ingress_kind(net.nl, LO) == "clsact"
    assert "clsact" in {q.get_attr("TCA_KIND") for q in oracle.get_qdiscs(LO)}


@pytest.mark.usefixtures("netem")
def test_our_netem_is_read_as_we_meant_it(net: Net, oracle: Any) -> None:
    shape = Netem(
        delay=123_456_789, jitter=7_000_000, correlation=25, loss=1.5, duplicate=2, corrupt=3,
        reorder=10, gap=5, rate=8_000_000, limit=77,
    )  # fmt: skip
    made = hop.create(net.nl, link.get(net.nl, "lo"), mark(), shape)
    (theirs,) = [m for m in oracle.get_qdiscs(made.near.index) if m["parent"] == tc.ROOT]
    options = theirs.get_attr("TCA_OPTIONS")
    assert theirs.get_attr("TCA_KIND") == "netem"
    assert (options["limit"], options["gap"]) == (77, 5)
    share = 2**32 / 100
    assert options["loss"] == pytest.approx(1.5 * share, abs=1)
    assert options["duplicate"] == pytest.approx(2 * share, abs=1)
    assert options["delay"] == 123_456_789 // 64
    assert options.get_attr("TCA_NETEM_CORRUPT")["prob_corrupt"] == pytest.approx(3 * share, abs=1)
    assert options.get_attr("TCA_NETEM_REORDER")["prob_reorder"] == pytest.approx(10 * share, abs=1)
    assert options.get_attr("TCA_NETEM_RATE")["rate"] == 1_000_000


def test_our_token_bucket_is_read_as_we_meant_it(net: Net, oracle: Any) -> None:
    made = hop.create(net.nl, link.get(net.nl, "lo"), mark(), Tbf(rate=80_000_000, burst=90_000))
    (theirs,) = [m for m in oracle.get_qdiscs(made.near.index) if m["parent"] == tc.ROOT]
    parameters = theirs.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    assert parameters["rate"] == 10_000_000
    assert parameters["limit"] == 4_000_000


def test_what_the_library_made_we_read_the_same(net: Net, oracle: Any) -> None:
    oracle.link("add", ifname="p0", kind="veth", peer={"ifname": "p1"})
    ours = link.get(net.nl, "p0")
    assert (ours.kind, ours.up) == ("veth", False)
    oracle.tc("add", "tbf", ours.index, rate=1_000_000, burst=20_000, latency="50ms")
    root = tc.root(net.nl, ours.index)
    assert root is not None
    assert root.kind == "tbf"
    oracle.tc("add", "clsact", ours.index)
    assert tc.ingress_kind(net.nl, ours.index) == "clsact"
    oracle.link("set", index=ours.index, state="up")
    oracle.addr("add", index=ours.index, address="10.9.8.7", prefixlen=24)
    found = [(a.address, a.prefix) for a in route.addresses(net.nl, ours.index)]
    assert ("10.9.8.7", 24) in found
    assert tc.delete_qdisc(net.nl, ours.index)
    assert {q.get_attr("TCA_KIND") for q in oracle.get_qdiscs(ours.index)}.isdisjoint({"tbf"})
