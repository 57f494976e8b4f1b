"""The packet engine on real devices: nothing here looks at a clock to say "too slow"."""

from __future__ import annotations

import errno
import math
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import rig as rigs
from rig import Rig, drain, one_way, ping

from faultline.kernel import classifier, clock, link, syscalls, tc
from faultline.kernel.tap import Tap
from faultline.kernel.tc import Direction

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]

MS = 1_000_000
BOTH = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
WAYS = pytest.mark.parametrize("direction", list(Direction))
EARLY = 0.5  # milliseconds that a packet may be early: the engine makes up for late wake-ups


@BOTH
@WAYS
def test_udp_on_the_loopback_device_is_delayed_once(
    rig: Rig, address: str, direction: Direction
) -> None:
    engine = rig.start(direction=direction, shape={"delay": 30 * MS})
    pair = rig.pair(address)
    for size in (1, 1400, 30_000):
        took = one_way(pair, b"x" * size)
        assert took is not None
        assert took >= 30 - EARLY
    assert engine.matched() == 3
    assert engine.statistics().fields["released"] == 3


@BOTH
@WAYS
def test_icmp_is_delayed_on_both_of_its_ways(rig: Rig, address: str, direction: Direction) -> None:
    rig.start(direction=direction, shape={"delay": 20 * MS})
    with rig.inside():
        took = ping(address)
    assert took is not None
    assert took >= 40 - 2 * EARLY


@BOTH
@WAYS
def test_tcp_carries_large_packets_through_unharmed(
    rig: Rig, address: str, direction: Direction
) -> None:
    engine = rig.start(direction=direction, shape={"delay": 2 * MS})
    _, counts = rigs.transfer(rig, address, 8 * 1024 * 1024)
    fields = engine.statistics().fields
    assert fields["refused"] == fields["overflowed"] == 0
    assert fields["released"] + fields["held"] == fields["matched"]
    # The kernel cuts what is longer than 64 KiB (two segments of the loopback device) in two.
    assert fields["matched"] >= engine.matched() - 5 > 100
    # 8 MiB in packets of 64 KiB and the acknowledgements, not 5,800 packets of 1,448 bytes.
    assert fields["released"] < 2000
    assert counts["retransmits"] <= 2


@pytest.mark.parametrize("address", ["10.77.0.2", "fd77::2"])
@WAYS
def test_tcp_over_a_cable_keeps_its_segments_together(
    rig: Rig, address: str, direction: Direction
) -> None:
    with rigs.cable(rig) as far:
        engine = rig.start("va", direction, shape={"delay": 2 * MS})
        rigs.transfer(rig, address, 4 * 1024 * 1024, far)
        fields = engine.statistics().fields
        assert fields["refused"] == fields["overflowed"] == 0
        assert fields["released"] + fields["held"] == fields["matched"]
        assert fields["matched"] >= engine.matched() - 5 > 0
        if direction is Direction.EGRESS:
            assert fields["released"] < 4 * 1024 * 1024 / 1448


def test_the_users_own_queue_is_still_passed(rig: Rig) -> None:
    with rigs.cable(rig) as far:
        subprocess.run(
            ["nsenter", f"--net=/proc/self/fd/{rig.fd}", "tc", "qdisc", "add", "dev", "va",
             "root", "handle", "7:", "pfifo", "limit", "100"],
            check=True, pass_fds=(rig.fd,),
        )  # fmt: skip
        index = link.get(rig.netlink, "va").index
        rig.start("va", shape={"delay": 5 * MS})

        def passed() -> int:
            mine = next(q for q in tc.qdiscs(rig.netlink, index) if q.handle == 7 << 16)
            return mine.stats.packets

        before = passed()
        receiver, sender = rig.socket(socket.AF_INET, far), rig.socket(socket.AF_INET)
        receiver.bind(("10.77.0.2", 0))
        for _ in range(20):
            sender.sendto(b"x", receiver.getsockname())
        assert len(drain(receiver)) == 20
        assert passed() - before >= 20


def test_delays_of_several_faults_add_up_and_go_in_any_order(rig: Rig) -> None:
    first = rig.start(shape={"delay": 20 * MS})
    second = rig.start(shape={"delay": 30 * MS})
    third = rig.start(direction=Direction.INGRESS, shape={"delay": 40 * MS})
    pair = rig.pair()

    def lowest() -> float:
        return min(one_way(pair) or math.inf for _ in range(5))

    assert 90 - 3 * EARLY <= lowest() < math.inf
    assert [one.matched() for one in (first, second, third)] == [5, 5, 5]
    for gone, left in ((second, 60), (first, 40), (third, 0)):
        gone.process.terminate()
        assert gone.process.wait(10) == 0
        rig.detach(gone)
        assert left - 3 * EARLY <= lowest() < math.inf


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_traffic_flows_again_when_the_worker_is_dead_or_stopped(
    rig: Rig, how: signal.Signals
) -> None:
    engine = rig.start(shape={"delay": 10 * MS})
    receiver, sender = rig.pair()
    sender.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: tell the sender of local drops
    assert one_way((receiver, sender)) is not None
    receiver.settimeout(0.002)
    engine.process.send_signal(how)
    began = time.monotonic()
    while time.monotonic() - began < 10:
        sender.send(b"x")  # raises when the sender gets an error
        try:
            receiver.recv(10)
        except TimeoutError:
            continue
        break
    else:
        pytest.fail("nothing passes the classifier of a silent worker")
    for _ in range(50):
        sender.send(b"y")
    assert drain(receiver).count(b"y") == 50
    if how is signal.SIGSTOP:
        engine.process.send_signal(signal.SIGCONT)
        rig.settle(engine.attached)


@pytest.mark.parametrize("when", ["due", "now"])
def test_a_worker_that_is_told_to_end_releases_what_it_holds(rig: Rig, when: str) -> None:
    engine = rig.start(shape={"delay": 400 * MS}, drain=when)
    receiver, sender = rig.pair()
    began = time.perf_counter()
    for number in range(100):
        sender.send(b"%d" % number)
    engine.process.terminate()
    first = receiver.recv(10)
    took = time.perf_counter() - began
    assert [first, *drain(receiver, 1)] == [b"%d" % number for number in range(100)]
    assert engine.process.wait(10) == 0
    if when == "due":
        assert took >= 0.4 - EARLY / 1000
    assert link.find(rig.netlink, engine.ready["tap"]) is None


def test_telling_the_worker_to_end_opens_the_way_at_once(rig: Rig) -> None:
    engine = rig.start(shape={"delay": 300 * MS})
    receiver, sender = rig.pair()
    sender.send(b"held")
    engine.process.terminate()
    memory = classifier.heartbeat(engine.attached)
    while memory[:8] != bytes(8):
        time.sleep(0.001)
    memory.close()
    sender.send(b"free")
    assert receiver.recv(10) == b"free"
    assert receiver.recv(10) == b"held"


def test_the_worker_ends_before_its_deadline_and_holds_nothing_beyond(rig: Rig) -> None:
    deadline = clock.now() + 2_000 * MS
    engine = rig.start(shape={"delay": 100 * MS}, deadline=deadline)
    receiver, sender = rig.pair()
    sender.send(b"x")
    assert receiver.recv(10) == b"x"
    assert engine.process.wait(20) == 0
    assert one_way((receiver, sender)) is not None  # although the filter is still there


def test_loss_keeps_its_share_and_senders_see_no_error(rig: Rig) -> None:
    engine = rig.start(shape={"loss": 0.2})
    receiver, sender = rig.pair()
    sender.setsockopt(socket.IPPROTO_IP, 11, 1)
    count = 4000
    for number in range(count):
        sender.send(b"x")
        if number % 50 == 0:
            time.sleep(0.002)
    got = len(drain(receiver))
    lost = engine.statistics().fields["lost"]
    assert got == count - lost
    assert abs(lost / count - 0.2) < 5 * math.sqrt(0.2 * 0.8 / count)


def test_lost_packets_look_to_tcp_as_if_the_network_had_lost_them(rig: Rig) -> None:
    engine = rig.start(shape={"loss": 0.05, "delay": MS}, seed=3)
    before = rigs.snmp(rig, "Tcp", "RetransSegs")
    rigs.transfer(rig, "127.0.0.1", 16 * 1024 * 1024)
    assert engine.statistics().fields["lost"] > 0
    assert rigs.snmp(rig, "Tcp", "RetransSegs") > before


@pytest.mark.parametrize("size", [10, 1200, 30_000])
def test_corrupted_packets_are_dropped_by_the_receivers_checksum(rig: Rig, size: int) -> None:
    engine = rig.start(shape={"corrupt": 0.5})
    receiver, sender = rig.pair()
    for _ in range(100):
        sender.send(b"x" * size)
        time.sleep(0.001)
    got = drain(receiver)
    corrupted = engine.statistics().fields["corrupted"]
    assert 20 < corrupted < 80
    assert len(got) == 100 - corrupted
    assert set(got) == {b"x" * size}
    assert rigs.snmp(rig, "Udp", "InCsumErrors") == corrupted


def test_corrupted_packets_are_delivered_when_that_is_asked(rig: Rig) -> None:
    engine = rig.start(shape={"corrupt": 1.0, "checksum": "fixed"})
    receiver, sender = rig.pair()
    for _ in range(20):
        sender.send(bytes(100))
    got = drain(receiver)
    assert engine.statistics().fields["corrupted"] == len(got) == 20
    assert {sum(byte.bit_count() for byte in one) for one in got} == {1}


def test_duplicates_arrive_as_often_as_they_are_made(rig: Rig) -> None:
    engine = rig.start(shape={"duplicate": 0.3})
    receiver, sender = rig.pair()
    for _ in range(500):
        sender.send(b"x")
    got = len(drain(receiver))
    assert got == 500 + engine.statistics().fields["duplicated"] > 500


def test_every_fifth_packet_overtakes_the_others(rig: Rig) -> None:
    rig.start(shape={"delay": 300 * MS, "gap": 5})
    receiver, sender = rig.pair()
    for number in range(20):
        sender.send(b"%d" % number)
    got = [int(one) for one in drain(receiver, 1)]
    assert got[:4] == [4, 9, 14, 19]
    assert got[4:] == [number for number in range(20) if number % 5 != 4]


def test_a_rate_counts_the_bytes_of_the_wire(rig: Rig) -> None:
    with rigs.cable(rig) as far:
        rig.start("va", shape={"rate": 16_000_000})
        size = 2 * 1024 * 1024
        took, _ = rigs.transfer(rig, "10.77.0.2", size, far)
        headers = size / 1448 * (14 + 20 + 32)
        # Only too fast would be wrong for certain: how busy the machine is decides the rest.
        assert (size + headers) * 8 / 16_000_000 * 0.97 <= took


def test_without_ebpf_the_worker_matches_and_sends_past_the_filter(rig: Rig) -> None:
    _u32_engine(rig, {"protocols": ["udp"], "destination_ports": [[7000, 7010]]})
    for address in ("127.0.0.1", "::1"):
        pair = rig.pair(address)
        assert one_way(pair) is not None
        chosen = rig.socket(pair[0].family)
        chosen.bind((address, 7005))
        pair[1].connect((address, 7005))
        took = one_way((chosen, pair[1]), b"y" * 20_000)
        assert took is not None
        assert took >= 50 - EARLY
    rigs.transfer(rig, "127.0.0.1", 1024 * 1024)


def _u32_engine(rig: Rig, match: dict[str, object]) -> subprocess.Popen[bytes]:
    spec = {"tap": "flu", "shape": {"delay": 50 * MS}, "match": match}
    process, ready = rig.worker({**spec, "inject": "packet-socket", "device": "lo"})
    index = link.get(rig.netlink, "lo").index
    link.set_setting4(rig.netlink, "lo", {link.CONF_ACCEPT_LOCAL: 1, link.CONF_ROUTE_LOCALNET: 1})
    tc.add_clsact(rig.netlink, index)
    tc.add_u32(rig.netlink, index, Direction.EGRESS.parent, 1, ready["ifindex"])
    return process


def test_it_works_in_a_user_namespace_without_any_right_outside(rig: Rig) -> None:
    """As in `unshare --user --net`: no capability in the first namespace, so no eBPF."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            syscalls.unshare(syscalls.Namespace.USER | syscalls.Namespace.NET)
            os.write(writer, b"x")
            time.sleep(0.2)  # the parent writes the maps
            status = _in_user_namespace(rig)
        finally:
            os._exit(status)
    os.close(writer)
    if os.read(reader, 1) != b"x":
        os.waitpid(child, 0)
        os.close(reader)
        pytest.skip("this kernel has no user namespaces")
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write("0 0 1")
    _, status = os.waitpid(child, 0)
    os.close(reader)
    assert os.waitstatus_to_exitcode(status) == 0


def _in_user_namespace(rig: Rig) -> int:
    fd = rigs.netns.current()
    inner = Rig(fd, rigs.Netlink.open(), rig.folder)
    try:
        link.set_up(inner.netlink, "lo")
        _u32_engine(inner, {"protocols": ["udp"]})
        took = one_way(inner.pair())
        rigs.transfer(inner, "127.0.0.1", 1024 * 1024)
        return 0 if took is not None and took >= 50 - EARLY else 2
    finally:
        inner.close()


def test_the_worker_loads_the_standard_library_and_little_of_it(rig: Rig) -> None:
    engine = rig.start(shape={"delay": MS})
    loaded = set(Path(f"/proc/{engine.process.pid}/maps").read_text().split())
    assert not any("site-packages" in path for path in loaded)


def test_a_taken_name_is_an_error_and_leaves_nothing(rig: Rig) -> None:
    with rig.inside(), Tap.open("flz"):
        with pytest.raises(OSError, match="flz") as caught:
            Tap.open("flz")
        assert caught.value.errno in (errno.EBUSY, errno.EINVAL)
    assert link.find(rig.netlink, "flz") is None
