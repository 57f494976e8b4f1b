"""Faults of DNS queries: which devices they pass, the changes that answer them, the measurement.

A query is measured by asking: ours carries an option by which the worker knows that it must never
be sent on, and its hop limit is 1 for the case that nobody is there to catch it.
"""

from __future__ import annotations

import re
import select
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from faultline.changes.model import Change, Record, Step
from faultline.errors import InvalidParameter, TargetGone, Unsupported
from faultline.injection import chance, engines, guards
from faultline.injection.file_target import readable
from faultline.injection.packets import Aim, named
from faultline.injection.reading import Effect, Reading, mean_is, share_is
from faultline.kernel import link, route, walk
from faultline.kernel.link import Link
from faultline.kernel.match import Match
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction
from faultline.places.model import Place
from faultline.units import Duration
from faultline.workers import figures, name_packets
from faultline.workers.names import NOBODY4, NOBODY6

METHOD = "queries of our own, which the worker answers or drops; they never leave the host"
_CONFIGURATION = "/etc/resolv.conf"
_LOCAL = ("127.0.0.53", "::1")
_ANYWHERE = ("192.0.2.53", "2001:db8::53")  # ranges for documentation: only the way there matters
_ROUNDS = 3  # measurements of a wait before it is said to be wrong
_FEW, _MANY = 3, 200  # queries for a certain effect, and for a share
_QUIET = 0.7  # seconds after which no answer is expected any more
_TELLS = 0.06  # seconds after which the worker has told what it counted
_FLOOR = 5_000_000  # ns: a delay is right within 5 % or this
_BIND_TO_DEVICE = 25


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of which queries, as the worker takes it."""

    words: str
    names: list[str]
    does: dict[str, Any]
    share: float
    port: int
    servers: list[str] = field(default_factory=list[str])
    interface: str | None = None


def patterns(text: str) -> list[str]:
    """Names, `*.example.com` and `*`, separated by commas, in lower case; ValueError for others."""
    found = [part.strip().rstrip(".").lower() for part in text.split(",") if part.strip()]
    for part in found:
        bare = part.removeprefix("*.")
        labels = bare.split(".")
        fits = all(re.fullmatch(r"[\w-]{1,63}", label, re.ASCII) for label in labels)
        if part != "*" and (len(part) > 253 or not fits):
            raise ValueError("expected names, *.example.com or *, separated by commas")
    if not found:
        raise ValueError("expected at least one name")
    return found


def changes(place: Place, wish: Wish) -> list[Change]:
    """A worker for each device that queries pass, and the filters that lead packets there."""
    if "bpf" not in engines.offered():
        raise engines.missing("ebpf")
    if engines.obstacles()["packets"]:
        raise engines.missing("packets")
    match = Match(
        protocols=("udp", "tcp"),
        destinations=tuple(wish.servers) or None,
        destination_ports=((wish.port, wish.port),),
    )
    found: list[Change] = []
    for device in _devices(place, wish):
        found += _on(device, match, wish, len(found))
    return found


def _devices(place: Place, wish: Wish) -> list[Link]:
    """The device asked for, or all that queries can leave by; raises TargetGone, Unsupported."""
    with Netlink.open() as nl:
        if wish.interface:
            found = [named(nl, wish.interface)]
        else:
            servers = wish.servers or [*_LOCAL, *_configured(place), *_ANYWHERE]
            indexes = [_leaving_by(nl, server) for server in servers]
            found = [link.get(nl, index) for index in dict.fromkeys(indexes) if index]
    usable = [each for each in found if each.up and each.header_bytes]
    for each in found:
        if not each.header_bytes:
            guards.current().note(
                f"{each.name} has no Ethernet header (a tunnel): queries that leave by it pass"
            )
    if not usable and any(not each.up for each in found):
        raise TargetGone(f"the interface {found[0].name} is down: no query passes it")
    if not usable and found:
        raise Unsupported(
            f"{found[0].name} has no Ethernet header (a tunnel): its packets cannot be held",
            hint="name the device below it, or change what the resolver reads: dns.server",
        )
    if not usable:
        raise InvalidParameter("interface", None, "a device: no route tells which one is meant")
    return usable


def _leaving_by(nl: Netlink, address: str) -> int:
    try:
        return route.path_to(nl, address).ifindex
    except OSError:  # there is no way there, so nothing leaves
        return 0


def _configured(place: Place) -> list[str]:
    """The name servers of resolv.conf(5), as programs of the place read it."""
    with place.root() as root:
        path = walk.resolve(_CONFIGURATION, root)
    with readable(place, path) as fd:
        if fd is None:
            return []
        with open(fd, encoding="utf-8", errors="replace", closefd=False) as file:
            words = [line.split() for line in file.read(1 << 20).splitlines()]
    told = [line[1].partition("%")[0] for line in words if line[:1] == ["nameserver"] and line[1:]]
    return [each for each in told if _is_address(each)]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _on(device: Link, match: Match, wish: Wish, index: int) -> list[Change]:
    """On a device two taps: by the first queries leave it, by the second answers come in.

    On loopback what leaves comes in.
    """
    out = Aim(device, Direction.EGRESS, match, {})
    grace = wish.does.get("delay", 0) / 1e9 + 1.0
    shared = {"shape": None, "heartbeat": engines.STALE, "grace": grace}
    single = device.loopback
    last = index + (1 if single else 2)

    def heartbeat(direction: Direction, step: int) -> dict[str, str]:
        return {
            "device": device.name, "direction": str(direction), "uid": "@uid", "step": str(step),
        }  # fmt: skip

    order: dict[str, Any] = {
        "tap": "@tap",
        "heartbeat": heartbeat(Direction.EGRESS, last),
        "back": None,
        "to_port": wish.port,
        "names": wish.names,
        "share": wish.share,
        "does": wish.does,
        "seed": chance.seed(device.name),
    }
    what = f"the engine for DNS on {device.name}: {wish.words}"
    found = [Change("worker", {"module": "names", "spec": order, "what": what, "grace": grace})]
    if not single:
        order["back"] = {"tap": "@tap+1", "heartbeat": heartbeat(Direction.INGRESS, index + 1)}
        nothing = Aim(device, Direction.INGRESS, Match(protocols=("udp",), sources=()), {})
        spec = nothing.spec(engines.redirect(), "the way in for answers; it takes no packet")
        found.append(Change("hop", {**spec, **shared, "tap_step": index + 1}))
    spec = out.spec(engines.redirect(), wish.words)
    found.append(Change("hop", {**spec, **shared, "tap_step": index}))
    return found


# ---------------------------------------------------------------------------------- measurement


@dataclass(slots=True)
class _Told:
    """What became of our queries on all devices."""

    asked: int = 0
    hits: int = 0
    waits: list[float] = field(default_factory=list[float])  # nanoseconds
    wrong: list[str] = field(default_factory=list[str])
    silent: list[str] = field(default_factory=list[str])  # devices that no query could be sent by


def observe(place: Place, wish: Wish, record: Record) -> Reading:
    """Ask by every device, and compare what is answered with what was asked for.

    A wait is measured again when the host was too busy to tell.
    """
    time.sleep(_TELLS)
    before = _counted(record)
    for _ in range(_ROUNDS - 1):
        reading = _judge(wish, _asked(place, wish, record), before)
        if "delay" not in wish.does or reading.effect is Effect.EFFECTIVE:
            return reading
    return _judge(wish, _asked(place, wish, record), before)


def _asked(place: Place, wish: Wish, record: Record) -> _Told:
    told = _Told()
    with Netlink.open() as nl:
        for step in record.steps:
            if step.change.kind == "worker":
                _look(nl, place, wish, step, told)
    return told


def _judge(wish: Wish, told: _Told, before: dict[str, int]) -> Reading:
    if not told.asked:
        reason = "; ".join(told.silent) or "no query of ours reached the worker"
        return Reading.unmeasured(wish.words, METHOD, reason)
    measured = f"{told.hits} of {told.asked} queries {_words(wish, told)}"
    if before["queries"]:
        measured += f"; {before['hit']} of {before['queries']} others hit before"
    values = {"asked": wish.share, "measured": told.hits / told.asked, "n": float(told.asked)}
    late = "delay" in wish.does and told.hits and not _on_time(wish.does["delay"], told.waits)
    if share_is(wish.share, told.hits, told.asked) and not late:
        return Reading(Effect.EFFECTIVE, wish.words, measured, METHOD, values=values)
    reason = "; ".join(dict.fromkeys(told.wrong)) or "more or fewer than asked for"
    reason = "the wait is another one" if late else reason
    return Reading(Effect.INEFFECTIVE, wish.words, measured, METHOD, reason, values)


def _counted(record: Record) -> dict[str, int]:
    """What the workers counted of the queries of others."""
    found = {"queries": 0, "hit": 0}
    for step in record.steps:
        for name in found:
            found[name] += _figures(step).get(name, 0)
    return found


def _figures(step: Step) -> dict[str, int]:
    path = step.made.get("ready", {}).get("stats", "") if step.change.kind == "worker" else ""
    return (path and figures.read(path)) or {}


def _on_time(asked: int, waits: Sequence[float]) -> bool:
    floor = max(_FLOOR, 0.05 * asked)
    return abs(statistics.median(waits) - asked) <= floor or mean_is(asked, [*waits], floor)


def _words(wish: Wish, told: _Told) -> str:
    does = wish.does
    if "delay" in does:
        middle = f", p50 {Duration(round(statistics.median(told.waits))).short}"
        return "delayed" + (middle if told.waits else "")
    if "drop" in does:
        return "not answered"
    if "code" in does:
        return f"answered {name_packets.CODES[does['code']]}"
    return f"answered {', '.join(does['addresses']) or 'a random address'}"


def _look(nl: Netlink, place: Place, wish: Wish, step: Step, told: _Told) -> None:
    """Ask by one device, and add what came of it."""
    device = step.change.spec["spec"]["heartbeat"]["device"]
    index = link.get(nl, device).index
    known = wish.servers or [*_LOCAL, *_configured(place), *_ANYWHERE]
    servers = [each for each in known if _leaving_by(nl, each) == index]
    if not servers:
        told.silent.append(f"no name server is reached by {device}")
        return
    count = _FEW if wish.share == 1 else _MANY
    reached = _figures(step).get("probes", 0)
    patience = _QUIET + wish.does.get("delay", 0) / 1e9
    answers = _ask(device, servers[0], wish, count, patience)
    time.sleep(_TELLS)
    if not answers and _figures(step).get("probes", 0) == reached:
        told.silent.append(f"no query of ours got as far as the filter on {device}")
        return
    told.asked += count
    for seconds, code, addresses in answers.values():
        hit = _is_hit(wish.does, seconds, code, addresses)
        told.hits += hit
        if hit:
            told.waits.append(seconds * 1e9)
        else:
            named = name_packets.CODES.get(code, f"code {code}")
            told.wrong.append(f"{named} was answered on {device}")
    told.hits += count - len(answers) if "drop" in wish.does else 0


def _is_hit(does: dict[str, Any], seconds: float, code: int, addresses: list[bytes]) -> bool:
    if "delay" in does:
        return seconds * 1e9 > does["delay"] / 2
    if "addresses" in does:
        found = [ip_address(each) for each in addresses]
        given = [ip_address(each) for each in does["addresses"]]
        nobody = [ip_network(each) for each in (NOBODY4, NOBODY6)]
        return bool(found) and all(
            each in given if given else any(each in range_ for range_ in nobody) for each in found
        )
    return "code" in does and code == does["code"]


def _ask(
    device: str, server: str, wish: Wish, count: int, patience: float
) -> dict[int, tuple[float, int, list[bytes]]]:
    """By number: seconds until the answer, its code, its addresses; the unanswered are missing."""
    first = wish.names[0]
    name = "probe.faultline.test" if first == "*" else first.replace("*", "faultline-probe", 1)
    given = [ip_address(each) for each in wish.does.get("addresses", ())]
    kind = name_packets.AAAA if given and given[0].version == 6 else name_packets.A
    found: dict[int, tuple[float, int, list[bytes]]] = {}
    begun: dict[int, float] = {}
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as wire:
        wire.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, device.encode())
        if family == socket.AF_INET:
            wire.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        else:
            wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        try:
            wire.connect((server, wish.port))
            for number in range(count):
                begun[number] = time.monotonic()
                wire.send(name_packets.ask(name, kind, number))
                _hear(wire, begun, found, 0.001)
            until = time.monotonic() + patience
            while len(found) < count and (left := until - time.monotonic()) > 0:
                _hear(wire, begun, found, left)
        except OSError:  # nobody caught it, and nobody is there: it was not answered
            return found
    return found


def _hear(
    wire: socket.socket,
    begun: dict[int, float],
    found: dict[int, tuple[float, int, list[bytes]]],
    patience: float,
) -> None:
    while select.select((wire,), (), (), patience)[0]:
        read = name_packets.read_answer(wire.recv(4096))
        if read is not None and read[0] in begun:
            number, code, addresses = read
            found.setdefault(number, (time.monotonic() - begun[number], code, addresses))
        if len(found) == len(begun):
            return
