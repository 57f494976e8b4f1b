"""The packet engine: holds packets in user space where the kernel itself has no netem.

A filter redirects the packets of a device to a TAP device of ours; this worker reads them, shapes
them (`packet_shape`) and sends them on, either back through the TAP, where another filter puts them
on their way, or straight out of the device by a packet socket, where eBPF cannot be loaded. The
sender's socket is released as soon as the TAP takes the packet, so TCP sees a long path and not a
full queue.

Where no TAP may be opened a pair of devices takes its place (`kernel.capture`).

Death: the device goes with the process. The classifier lets packets pass it once the heartbeat that
this worker writes is too old, so traffic flows again when the worker is dead, stopped or hung;
packets held at that moment are lost. On SIGTERM, and before its deadline, it asks the classifier to
pass packets at once, releases what it holds, and ends. A filter that cannot be asked, since it is
not of eBPF, goes on sending packets: they are passed at once until the filter is taken away and
SIGTERM comes; a keeper takes it away too when the published `beat` is too old (changes/redirect).
"""

from __future__ import annotations

import errno
import gc
import os
import random
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from faultline.errors import InvalidParameter, Unsupported
from faultline.kernel import frame, link, syscalls
from faultline.kernel.capture import Capture
from faultline.kernel.netlink import Netlink
from faultline.kernel.tap import VNET_SIZE, Offload, Tap
from faultline.workers.packet_match import compile_match, read_match
from faultline.workers.packet_ports import Heartbeat, PacketSocket, Sink, Source, open_heartbeat
from faultline.workers.packet_shape import Line, Shape
from faultline.workers.packet_stats import Page, Told, bucket

BEAT: Final = 25_000_000  # nanoseconds between two heartbeats
_LOOK: Final = 2_000_000  # the same while the classifier is not there yet
_EAGER: Final = 1_000_000_000  # nanoseconds for which that is done
LEAD: Final = 60_000  # nanoseconds that a packet may leave early, to make up for late wake-ups
BATCH: Final = 32  # packets taken before those that are due are looked after
_SOON: Final = 5_000  # nanoseconds: what is due this soon goes now
_NICE: Final = -15
TAKEN_BACK: Final = (errno.EBADFD, errno.ENODEV)  # somebody deleted the device below us


class Engine:
    """The loop: read what came, release what is due, sleep until the next of the two."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        line: Line,
        page: Told,
        heartbeat: Heartbeat | None,
        matches: Callable[[bytes], bool] | None,
        clock: Callable[[], int],
    ) -> None:
        self._source = source
        self._sink = sink
        self._line = line
        self._page = page
        self._heartbeat = heartbeat
        self._matches = matches
        self._clock = clock
        self._sized = bool(line.shape.rate)
        self._started = clock()
        self._beat_due = 0
        self._lead = LEAD // 2
        self._passed = 0
        self._refused = 0
        self._worst = 0
        self._passing = False
        self._ears: list[Source | int] = [source]
        self._wake = -1
        self.stopping = False

    def listen(self, wake: int) -> None:
        """Be woken by this descriptor too: a signal alone does not end a sleep (PEP 475)."""
        self._wake = wake
        self._ears.append(wake)

    def run(self, until: int) -> None:
        """Work until `stopping` is set or the time `until` (0: none), then let go of everything."""
        while not self.stopping:
            now = self._clock()
            if until and now >= until:
                break
            self._turn(now)
        if self._heartbeat:
            self._heartbeat.stop()

    def linger(self) -> None:
        """Pass what comes at once, and release what is held, until SIGTERM: the filter is going."""
        self._passing = True
        while not self.stopping:
            self._turn(self._clock())

    def drain(self, *, at_once: bool, until: int) -> None:
        """Read what is on its way, then release everything held, when it is due or at once."""
        heartbeat, self._heartbeat = self._heartbeat, None
        self._passing = self._passing or heartbeat is None
        for _ in range(1 << 16):
            if not self._read():
                break
        while len(self._line) and not at_once and not (until and self._clock() >= until):
            self._turn(self._clock())
        self._release(1 << 62, len(self._line) + 1)
        if heartbeat:
            heartbeat.stop()
        self.publish()

    def publish(self) -> None:
        """Write the statistics for others to read."""
        line, counts = self._line, self._line.counts
        self._page.publish(
            {
                "pid": os.getpid(),
                "beat": self._clock(),
                "started": self._started,
                "matched": counts.matched,
                "passed": self._passed,
                "released": counts.released,
                "lost": counts.lost,
                "duplicated": counts.duplicated,
                "corrupted": counts.corrupted,
                "reordered": counts.reordered,
                "overflowed": counts.overflowed + self._source.lost(),
                "refused": self._refused,
                "held": len(line),
                "held_bytes": line.bytes,
                "worst": self._worst,
            }
        )

    def _turn(self, now: int) -> None:
        if now >= self._beat_due:
            heard = self._heartbeat is None or self._heartbeat.beat(now)
            self.publish()
            # The fault begins with the first beat that is heard: look for it often, at first.
            soon = not heard and now - self._started < _EAGER
            self._beat_due = now + (_LOOK if soon else BEAT)
        self._release(now + self._lead + _SOON, BATCH)
        if self._wait():
            self._read()

    def _wait(self) -> bool:
        """Sleep until a packet comes or one is nearly due; True when one came."""
        due = self._line.next_due()
        target = self._beat_due if due is None else min(due - self._lead, self._beat_due)
        left = max(0, target - self._clock())
        ready = select.select(self._ears, (), (), left / 1e9)[0]
        if self._wake in ready:
            self._ears.remove(self._wake)  # it has been told once
        if ready or not left:
            return self._source in ready
        # How late a sleep ends is a property of the machine: it is learnt, and the next one ends
        # that much earlier. What is due within that time leaves with the others: half of the
        # packets a little early, half a little late, and no time is spent waiting in a loop.
        late = self._clock() - target
        self._lead = min(LEAD, max(0, self._lead + (late - self._lead) // 8))
        return False

    def _read(self) -> bool:
        """Take what has come; False when there was nothing."""
        now = self._clock()
        read, take, matches = self._source.read, self._line.take, self._matches
        for count in range(BATCH):
            packet = read()
            if packet is None:
                return count > 0
            if self._passing or (matches is not None and not matches(packet)):
                self._passed += 1
                self._send(packet)
                continue
            size = frame.wire_size(packet) if self._sized else len(packet) - VNET_SIZE
            take(now, packet, size)
        return True

    def _release(self, now: int, most: int) -> None:
        release, clock, page = self._line.release, self._clock, self._page
        for _ in range(most):
            held = release(now)
            if held is None:
                return
            self._send(held.packet)
            sent = clock()
            error = abs(sent - held.due)
            page.error[bucket(error)] += 1
            page.holding[bucket(sent - held.arrived)] += 1
            self._worst = max(self._worst, error)

    def _send(self, packet: bytes) -> None:
        try:
            self._sink.write(packet)
        except OSError as error:
            if error.errno in TAKEN_BACK:
                raise
            self._refused += 1


def open_port(spec: dict[str, Any], offload: Offload) -> Tap | Capture:
    """The device that packets are redirected to: a TAP, or a pair where there can be no TAP."""
    name, mark, port = spec["tap"], spec.get("mark", ""), spec.get("port", "auto")
    if port not in ("auto", "tap", "pair"):
        raise InvalidParameter("port", port, "'auto', 'tap' or 'pair'")
    with Netlink.open() as netlink:
        if port != "pair":
            try:
                tap = Tap.open(name, offload)
            except Unsupported:
                if port == "tap":
                    raise
            else:
                if mark:
                    link.set_alias(netlink, tap.ifindex, mark)
                return tap
        return Capture.open(name, offload, mark)


def _matches(match: dict[str, Any] | None) -> Callable[[bytes], bool] | None:
    """What says of a packet whether it is meant; None where the classifier has said so."""
    if match is None:
        return None
    meant = compile_match(*read_match(match))
    return lambda packet: meant(frame.parse(packet, VNET_SIZE))


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _enter(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, syscalls.Namespace.NET)
    finally:
        os.close(fd)


def _prepare() -> None:
    """Be on time: short timer slack, a good priority where it is allowed, no collector's pauses."""
    syscalls.set_timer_slack(1)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    gc.collect()
    gc.freeze()
    gc.disable()


def serve(
    engine: Engine, spec: dict[str, Any], ready: Callable[[], None], *, longest: int, linger: bool
) -> int:
    """Work until SIGTERM or the deadline, as `main` describes, then let go; the exit status.

    `longest` is how long a packet can be held, in nanoseconds. With `linger` packets are passed on
    after the deadline, until SIGTERM comes.
    """

    def stop(_signum: int, _where: FrameType | None) -> None:
        engine.stopping = True

    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    engine.listen(wake)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop)
    _prepare()
    engine.publish()
    ready()
    deadline = int(spec.get("deadline") or 0)
    try:
        # A packet held beyond the deadline would be an effect beyond it: take none so late.
        engine.run(deadline - longest - 4 * BEAT if deadline else 0)
        if linger:
            engine.linger()
        engine.drain(at_once=spec.get("drain") == "now", until=deadline)
    except OSError as error:
        if error.errno in TAKEN_BACK:
            return 1
        raise
    return 0


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Run until SIGTERM or the deadline. `spec`, all times in nanoseconds of CLOCK_BOOTTIME:

    `tap` the name of the device to make; `shape` (packet_shape.Shape); `inject` "tap" or
    "packet-socket" (then `device`, whose packets they are); `match` (packet_match), or null when
    the classifier has matched; `heartbeat` (open_heartbeat); `stats` a file to publish in; `netns`
    the path of the network namespace to work in; `mark` for the alias of the device; `port` "tap",
    "pair" or "auto", the first of the two that opens; `deadline`; `drain` "due" or "now"; `seed`.
    Calls `ready` with the device's index when it can be redirected to. Raises InvalidParameter,
    Unsupported, OSError.
    """
    shape = Shape.from_json(spec.get("shape") or {})
    matches = _matches(spec.get("match"))
    inject = spec.get("inject", "tap")
    if inject not in ("tap", "packet-socket"):
        raise InvalidParameter("inject", inject, "'tap' or 'packet-socket'")
    if spec.get("netns"):
        _enter(spec["netns"])
    offload = Offload.CHECKSUM if shape.wants_segments else Offload.ALL
    with open_port(spec, offload) as tap:
        sink: Sink = tap if inject == "tap" else PacketSocket(spec["device"])
        deliver = shape.checksum == "fixed"
        line = Line(
            shape,
            random.Random(spec.get("seed")),
            lambda packet, rng: frame.corrupt(packet, rng, deliver=deliver),
        )
        heartbeat = open_heartbeat(spec.get("heartbeat"), tap.ifindex)
        engine = Engine(tap, sink, line, Page(spec.get("stats", "")), heartbeat, matches, _now)

        about = {"pid": os.getpid(), "tap": tap.name, "ifindex": tap.ifindex}
        return serve(
            engine,
            spec,
            lambda: ready({**about, "offload": int(offload)}),
            longest=shape.longest,
            linger=inject == "packet-socket",
        )
