"""Packets that are denied where a program asks to send them, and how that is measured."""

from __future__ import annotations

import errno
import socket
from typing import Any

from faultline.changes.classifier import match_from, match_to
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter
from faultline.injection import packets
from faultline.injection.packets import PacketParams
from faultline.injection.reading import Effect, Reading
from faultline.kernel import cgroup, denial
from faultline.kernel.cgroup import Group
from faultline.kernel.mark import Mark
from faultline.kernel.match import Match
from faultline.kernel.predicate import Headers, example
from faultline.kernel.tc import Direction
from faultline.places.model import Place
from faultline.workers.join import group_from, group_to

KIND = "socket_denied"
_ATTEMPT = "a connection asked for by ourselves, of which nothing leaves this host"
_COUNTED = "the programs' own counter of calls that were denied"


def change(place: Place, params: PacketParams, before: list[Change]) -> Change:
    """What denies beside the filters of `before`; raises InvalidParameter, Unsupported."""
    for name in ("source", "source_port", "tcp_flags"):
        if getattr(params, name):
            value: Any = getattr(params, name)
            raise InvalidParameter(name, value, "nothing: it is not known yet when it is denied")
    if params.direction == "in":
        raise InvalidParameter("direction", "in", "out or both: what arrives cannot be denied")
    destinations, _ = packets.addresses("destination", params.destination)
    match = Match(
        protocols=() if params.protocol == "all" else (params.protocol,),
        destinations=destinations,
        destination_ports=packets.ports("destination_port", params.destination_port),
        exclude=params.exclude,
    )
    shared = next((each.spec["group"] for each in before if each.spec.get("group")), None)
    tree = cgroup.layout().unified().hierarchy
    spec = {
        "group": shared or {**group_to(Group(tree, tree.root)), "step": None},
        "match": match_to(match),
        "cookie": place.netns_cookie,
        "what": "deny what is asked to be sent, with EPERM",
    }
    return Change(KIND, spec)


def reading(place: Place, words: str, record: Record) -> Reading:
    """By an attempt of our own; of a place that shares the network, by what was denied so far."""
    index, step = next((i, each) for i, each in enumerate(record.steps) if each.change.kind == KIND)
    spec = step.change.spec
    if spec["group"]["step"] is None and (place.is_host or place.own_network):
        return _attempt(words, example(match_from(spec["match"]), Direction.EGRESS))
    group = group_from(spec["group"])
    if spec["group"]["step"] is not None:
        group = group.child(cgroup.group_name(record.uid, spec["group"]["step"]))
    mark = Mark(record.uid, str(index))
    if not denial.find(group.folder, mark):
        return Reading(Effect.INEFFECTIVE, words, "no program is there", _COUNTED)
    count = denial.denied(group.folder, mark)
    if not count:
        return Reading.unmeasured(words, _COUNTED, "nobody has asked for a connection yet")
    return Reading(Effect.EFFECTIVE, words, f"{count} denied", _COUNTED, values={"denied": count})


def _attempt(words: str, packet: Headers | None) -> Reading:
    if packet is None:
        return Reading.unmeasured(words, _ATTEMPT, "no packet can match")
    family = socket.AF_INET if packet.version == 4 else socket.AF_INET6
    # A datagram socket that is connected sends nothing.
    kind = socket.SOCK_STREAM if packet.protocol == 6 else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind | socket.SOCK_NONBLOCK) as asked:
            told = asked.connect_ex((packet.destination, packet.destination_port or 9))
    except OSError as error:
        return Reading.unmeasured(words, _ATTEMPT, str(error))
    measured = errno.errorcode.get(told, "no error") if told else "no error"
    effect = Effect.EFFECTIVE if told == errno.EPERM else Effect.INEFFECTIVE
    return Reading(effect, words, measured, _ATTEMPT)
