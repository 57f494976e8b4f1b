"""Whose packets a fault hits at a place that shares the network of the host.

Sockets are told by the control group (version 2) that they were made in. A place that has a group
of its own there is matched by that; any other is moved into a group of ours below the one it is in,
whose limits go on to count. Sockets that were there before are matched by their addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from faultline.changes.classifier import action_to
from faultline.changes.model import Change
from faultline.errors import TargetGone, Unsupported
from faultline.injection import guards
from faultline.injection.packets import Aim
from faultline.kernel import bpf, cgroup, classifier, hop, procfs, procnet
from faultline.kernel.cgroup import Group
from faultline.kernel.match import Action, ActionKind, End, Match, Members
from faultline.kernel.netlink import Netlink
from faultline.kernel.procfs import Process
from faultline.kernel.procnet import Socket, Transport
from faultline.kernel.tc import Direction
from faultline.places.model import Place
from faultline.workers.join import group_to

_LISTEN, _UNBOUND = 10, 7  # states of the tables: a listener, a datagram socket without a peer
_PROTOCOLS = {Transport.TCP: 6, Transport.UDP: 17}
_ANY = ("0.0.0.0", "::")  # noqa: S104 - looked for, not bound


@dataclass(frozen=True, slots=True)
class Theirs:
    """How the packets of a place are known, and what has to be done for that first."""

    changes: tuple[Change, ...]
    group: dict[str, Any]
    ends: tuple[End, ...]

    def narrow(self, aims: list[Aim], *, both: bool) -> tuple[list[Change], list[Aim]]:
        """The same filters for the packets of this place alone, and what has to be there first.

        What arrives is told by what left, so a filter that learns that is always the first one.
        """
        changes = list(self.changes)
        if aims[0].direction is Direction.INGRESS:
            learner = replace(aims[0], direction=Direction.EGRESS, match=Match(), names={})
            nothing = action_to(Action(ActionKind.DROP, percent=0.0))
            spec = self._theirs(learner, both=False).spec(nothing, "learn who they talk to")
            changes.append(Change("classifier", {**spec, "learns": True}))
        return changes, [self._theirs(aim, both=both) for aim in aims]

    def _theirs(self, aim: Aim, *, both: bool) -> Aim:
        outgoing = aim.direction is Direction.EGRESS
        if outgoing:
            _check_first(aim)
        members = Members(0, self.ends, both and outgoing and aim.device.loopback)
        match = replace(aim.match, members=members)
        return replace(aim, match=match, group=self.group)


def taught(aims: list[Aim], changes: list[Change]) -> Iterator[Aim]:
    """The same; one for arriving packets is told which of the changes so far learns from others."""
    for aim in aims:
        if aim.group is None or aim.direction is Direction.EGRESS:
            yield aim
            continue
        filters = (
            step for step, each in enumerate(changes)
            if each.kind in ("classifier", "hop") and each.spec["direction"] == Direction.EGRESS
        )  # fmt: skip
        yield replace(aim, taught_by=next(filters))


def _check_first(aim: Aim) -> None:
    """Raise Unsupported behind a fault that holds packets: they have lost their socket there."""
    with Netlink.open() as nl:
        for each in classifier.on_device(nl, aim.device.index, aim.direction):
            uid, step = each.mark.uid, each.mark.step
            if bpf.program_name(each.program) == "fl_redirect" or hop.find(nl, uid, step):
                raise Unsupported(
                    f"the fault {uid} holds packets of {aim.device.name}: behind it nobody can "
                    "tell whose they are",
                    hint="inject this fault first and that one after it",
                )


def of(place: Place) -> Theirs | None:
    """None where the network is the place's own, or the place is the host: every packet is meant.

    Raises Unsupported where the packets cannot be told from those of others.
    """
    if place.is_host or place.own_network:
        return None
    there = place.processes()
    if not there:
        raise TargetGone(f"{place.words} has no process any more")
    guards.protect(there)
    found = _own_group(place, there)
    if found is not None:
        group = {**group_to(found), "step": None}
        return Theirs((), group, _ends(place, there))
    home = _home(place, there)
    tasks = [{"pid": each.pid, "start": each.id.start, "name": each.name} for each in there]
    spec = {"parent": group_to(home), "home": group_to(home), "tasks": tasks}
    group = {**group_to(home), "step": 0}
    return Theirs((Change("cgroup_tasks", spec),), group, _ends(place, there))


def _own_group(place: Place, there: list[Process]) -> Group | None:
    """The group that holds exactly this place."""
    tree = cgroup.layout().unified()
    paths = {tree.path_of(each.pid) for each in there}
    if place.group and all(f"{path}/".startswith(f"{place.group}/") for path in paths):
        return Group(tree.hierarchy, place.group)
    path = tree.path_of(place.pid)
    if path in ("/", tree.hierarchy.root):
        return None
    group = Group(tree.hierarchy, path)
    inside = {pid for each in group.walk() for pid in each.pids()}
    return group if inside == {each.pid for each in there} else None


def _home(place: Place, there: list[Process]) -> Group:
    tree = cgroup.layout().unified()
    paths = {tree.path_of(each.pid) for each in there}
    if len(paths) > 1:
        listed = ", ".join(sorted(paths))
        raise Unsupported(
            f"the processes of {place.words} are in several control groups ({listed}), none of "
            "which is theirs alone: their packets cannot be told from those of others",
            hint="name one of the control groups, or a process, as the place",
        )
    return Group(tree.hierarchy, paths.pop())


def _ends(place: Place, there: list[Process]) -> tuple[End, ...]:
    """The sockets that they have now; raises Unsupported for one that others have as well."""
    members = {each.pid for each in there}
    held = {target for pid in members for target in procfs.descriptors(pid).values()}
    found: dict[End, None] = {}
    for transport in Transport:
        table = procnet.sockets(transport)
        mine = [each for each in table if f"socket:[{each.inode}]" in held]
        _check_alone(place, members, [each for each in mine if each.state in (_LISTEN, _UNBOUND)])
        for each in mine:
            found |= dict.fromkeys(_end(each))
    return tuple(found)


def _check_alone(place: Place, members: set[int], servers: list[Socket]) -> None:
    """Connections of a listener that others hold too would count as the place's."""
    holders = procnet.owners(each.inode for each in servers)
    for each in servers:
        others = sorted(set(holders.get(each.inode, ())) - members - {1})
        if others:
            names = ", ".join(str(pid) for pid in others[:5])
            raise Unsupported(
                f"{each.transport} port {each.local[1]} of {place.words} is held by others too "
                f"(pid {names}): its packets cannot be told from theirs",
                hint="name a place that holds all of them, such as their control group",
            )


def _end(socket: Socket) -> list[End]:
    number, (local, port) = _PROTOCOLS[socket.transport], socket.local
    if socket.state not in (_LISTEN, _UNBOUND):
        return [End(number, local, port, *socket.remote)]
    if not port:
        return []
    if local == "::":  # it serves IPv4 as well
        return [End(number, "", port, version=6), End(number, "", port, version=4)]
    if local in _ANY:
        return [End(number, "", port, version=4)]
    return [End(number, local, port)]
