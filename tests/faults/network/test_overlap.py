"""Faults over each other and over what the user has there; faults whose keepers are dead."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from lanes import Lane, datagram, drain, off, on, order, passes, send, until
from netrig import Wire, three_sigma

from faultline.changes import keepers
from faultline.changes.model import End
from faultline.errors import Unsupported
from faultline.injection.injector import Injector
from faultline.injection.reading import Effect
from faultline.kernel import clock, netns, procfs, tc

COUNT = 600
KINDS: dict[str, dict[str, str]] = {
    "loss": {"percent": "15%"},
    "duplicate": {"percent": "25%"},
    "corrupt": {"percent": "15%"},
    "delay": {"latency": "30ms"},
    "reorder": {"latency": "120ms"},
    "limit": {"rate": "20mbit", "burst": "32KiB", "backlog": "4MiB"},
}
OWN_FILTER = ["u32", "match", "ip", "dport", "7777", "0xffff", "classid", "1:20"]

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


@dataclass
class Seen:
    """What a burst of datagrams was like at the other end."""

    share: float  # percent of what was sent that came, right or damaged, counted once per copy
    damaged: int
    copies: int
    shortest: float  # seconds from sending the burst to the first arrival
    seconds: float  # from the first to the last arrival
    overtaken: int


def burst(lane: Lane) -> Seen:
    sender, receiver = lane.udp()
    until(lambda: not drain(receiver, 0.2))  # what is late of the greeting
    wrong, got = lane.wrong_checksums(), list[tuple[float, bytes]]()
    begun = time.perf_counter()
    reader = threading.Thread(target=lambda: got.extend(drain(receiver, 0.5)))
    reader.start()
    for number in range(COUNT):
        sender.sendto(datagram(number, 1400), receiver.getsockname())
    reader.join()
    damaged = lane.wrong_checksums() - wrong
    arrived = [int.from_bytes(data[:4], "big") for _, data in got]
    assert all(data == datagram(n, 1400) for (_, data), n in zip(got, arrived, strict=True))
    return Seen(
        share=100 * (len(arrived) + damaged) / COUNT,
        damaged=damaged,
        copies=sum(many - 1 for many in Counter(arrived).values()),
        shortest=got[0][0] - begun,
        seconds=got[-1][0] - got[0][0],
        overtaken=sum(b < a for a, b in itertools.pairwise(dict.fromkeys(arrived))),
    )


def judge(seen: Seen, there: set[str]) -> None:
    """Each fault that is there shows, and none that is not."""
    expected = 100.0 * (0.85 if "loss" in there else 1) * (1.25 if "duplicate" in there else 1)
    assert seen.share == pytest.approx(expected, abs=3 * three_sigma(20, COUNT))
    assert (seen.damaged > 0) is ("corrupt" in there)
    assert (seen.copies > 0) is ("duplicate" in there)
    assert (seen.overtaken > 0) is ("reorder" in there)
    if "delay" in there:
        assert seen.shortest >= 0.029
    if "limit" in there:
        least = (COUNT * seen.share / 100 * 1400 * 8 - 2 * 32768 * 8) / 20_000_000
        assert seen.seconds >= 0.8 * least * (0.85 if "corrupt" in there else 1)


@pytest.mark.parametrize("few", ["wire-out-4", "wire-in-6"], indirect=True)
def test_six_faults_overlap_and_go_in_any_order(few: Lane, on_few: Injector) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    names = list(KINDS)
    chance.shuffle(names)
    uids = {
        name: on_few.inject(order(name, protocol="udp", **KINDS[name], **few.here)).uid
        for name in names
    }
    chance.shuffle(names)
    while names:
        judge(burst(few), set(names))
        off(on_few, uids[names.pop()])
        for name in names:
            reading = on_few.observe(uids[name])
            assert reading.effect is not Effect.INEFFECTIVE, (name, reading)
    judge(burst(few), set())


# ------------------------------------------------------------------------------ the user's own


def tool(*words: str) -> str:
    return subprocess.run(["tc", *words], check=True, capture_output=True, text=True).stdout


def tree() -> dict[str, str]:
    """Everything of traffic control on the device, as another program reads it."""
    return {
        what: tool("-d", what, "show", "dev", "v0", *side)
        for what, side in (("qdisc", ()), ("class", ()), ("filter", ()))
    } | {side: tool("-d", "filter", "show", "dev", "v0", side) for side in ("ingress", "egress")}


def own_tree() -> None:
    tool("qdisc", "add", "dev", "v0", "root", "handle", "1:", "htb", "default", "20")
    for minor, rate in (("1:10", "5mbit"), ("1:20", "900mbit")):
        tool("class", "add", "dev", "v0", "parent", "1:", "classid", minor, "htb", "rate", rate)
    tool("qdisc", "add", "dev", "v0", "parent", "1:20", "handle", "20:", "bfifo", "limit", "900000")


def own_filters() -> None:
    tool("qdisc", "add", "dev", "v0", "clsact")
    for side in ("ingress", "egress"):
        tool("filter", "add", "dev", "v0", side, "pref", "7", "protocol", "ip", *OWN_FILTER)


ALL = {
    **KINDS,
    "partition": {"destination": "10.77.0.9"},
}


@pytest.mark.parametrize("fault", ALL)
@pytest.mark.parametrize("with_filters", [False, True])
def test_the_users_own_tree_and_filters_stay_byte_for_byte(
    wire: Wire, injector: Injector, fault: str, with_filters: bool
) -> None:
    own_tree()
    if with_filters:
        own_filters()
    before = tree()
    root = [q for q in tc.qdiscs(wire.here.nl, wire.here.index("v0")) if q.kind != "clsact"]
    with on(injector, fault, **{"interface": "v0", "direction": "out"} | ALL[fault]):
        during = [q for q in tc.qdiscs(wire.here.nl, wire.here.index("v0")) if q.kind != "clsact"]
        assert [(q.kind, q.handle, q.parent, q.options) for q in during] == [
            (q.kind, q.handle, q.parent, q.options) for q in root
        ]
        assert tree()["class"] == before["class"]
    assert tree() == before


@pytest.mark.parametrize("fault", ["loss", "delay"])
def test_an_ingress_discipline_of_the_user_is_left_and_outgoing_faults_are_refused(
    wire: Wire, injector: Injector, fault: str
) -> None:
    tool("qdisc", "add", "dev", "v0", "handle", "ffff:", "ingress")
    where = ("parent", "ffff:", "pref", "7", "protocol", "ip")
    tool("filter", "add", "dev", "v0", *where, *OWN_FILTER)
    before = tree()
    with pytest.raises(Unsupported, match="ingress"):
        injector.inject(order(fault, interface="v0", direction="out", **KINDS[fault]))
    assert tree() == before
    with on(injector, fault, interface="v0", direction="in", **KINDS[fault]):
        pass
    # The kernel shows all filters of such a discipline under the parent that was named last.
    shown = {what: words.replace("parent ffff: ", "") for what, words in before.items()}
    assert {
        what: words.replace("filter ingress", "filter") for what, words in tree().items()
    } == shown


# -------------------------------------------------------------------------- nobody is left


def kill_keepers(injector: Injector) -> None:
    word = f"keeper:{injector.store.state}"
    found = procfs.find_by_cmdline(word, exclude=[os.getpid()])
    assert len(found) >= 2  # one may be about to start the other
    for number in (signal.SIGSTOP, signal.SIGKILL):  # or the second would start the first anew
        for each in found:
            each.id.send(number)
    until(lambda: not procfs.find_by_cmdline(word, exclude=[os.getpid()]))


def test_nobody_shares_a_socket_with_another(wire: Wire, injector: Injector) -> None:
    """Two users of one route socket take each other's answers; a keeper would wait for ever."""
    record = injector.inject(order("partition", interface="v0"))
    own = injector.netlink.fileno()
    mine = {procfs.descriptors(os.getpid())[own]}
    for keeper in procfs.find_by_cmdline(f"keeper:{injector.store.state}", exclude=[os.getpid()]):
        held = {name for name in procfs.descriptors(keeper.pid).values() if "socket:" in name}
        assert held
        assert not held & mine
        mine |= held
    off(injector, record.uid)


@pytest.mark.parametrize("few", ["lo-out-4", "wire-in-6"], indirect=True)
@pytest.mark.parametrize("fault", ["partition", "delay"])
def test_the_kernel_ends_it_on_time_with_both_keepers_dead(
    few: Lane, fault: str, tmp_path: Path
) -> None:
    asked = {
        "partition": {},
        "delay": {"latency": "400ms"},
    }[fault]
    with (
        netns.entered(few.inside.fd),
        Injector(tmp_path / "store") as injector,
        ExitStack() as stack,
    ):
        sender, receiver = few.udp()
        wanted = {"protocol": "udp", **asked, **few.here}
        record = injector.inject(order(fault, duration="3500ms", **wanted))
        stack.callback(keepers.retire, injector.store)
        stack.callback(injector.recover_all)
        kill_keepers(injector)
        assert clock.now() < record.deadline - 2_000_000_000
        cut, through = 0, 0.0
        while through == 0.0 and clock.now() < record.deadline + 5_000_000_000:
            number, sent = (cut + 1).to_bytes(4, "big"), clock.now()
            sender.sendto(number + bytes(1000), receiver.getsockname())
            cut += 1
            if number in (data[:4] for _, data in drain(receiver, 0.02)):
                through = sent
                cut -= 1
        assert cut > 20
        assert through > 0
        assert through < record.deadline + 1_000_000_000
        until(lambda: not drain(receiver, 0.5))  # what was held
        assert len(send(sender, receiver, 200)) == 200
        injector.adopt()  # the next start of anything of ours
        until(lambda: injector.get(record.uid).end is not None)
        assert injector.get(record.uid).end in (End.RECOVERED, End.NOTHING)
        assert injector.residue(record.uid) == []


def test_with_everything_of_ours_alive_the_deadline_needs_no_command(
    wire: Wire, injector: Injector
) -> None:
    record = injector.inject(order("partition", duration="1500ms", interface="v0"))
    assert not passes(wire.here, wire.there, wire.there4, 4000)
    until(lambda: injector.get(record.uid).end is not None)
    assert clock.now() >= record.deadline
    assert injector.get(record.uid).end is End.RECOVERED
    assert passes(wire.here, wire.there, wire.there4, 4000)
