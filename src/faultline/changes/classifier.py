"""The change that puts an eBPF filter of ours on a device: loss, partition, duplicate, corrupt.

The deadline is inside the program, which compares the boot clock: with every process of ours killed
the filter stops acting on time. Undo takes the filter away by its mark, then clsact if it was ours
and nobody else uses it. Nobody's root queueing discipline is touched.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar

from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone
from faultline.errors import TargetGone, Unsupported
from faultline.kernel import bpf, cgroup, classifier, clock, filter_maps, link, tc
from faultline.kernel.mark import Mark
from faultline.kernel.match import Action, ActionKind, End, Exempt, Guard, Match, Members
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction
from faultline.workers.join import group_from


def match_to(match: Match) -> Data:
    """A match as JSON."""
    return asdict(match)


def match_from(data: Data) -> Match:
    """A match read back from a record."""
    lists: dict[str, Any] = {
        name: tuple(data[name]) if data.get(name) is not None else None
        for name in ("sources", "destinations")
    }
    ranges: dict[str, Any] = {
        name: tuple((low, high) for low, high in data.get(name, ()))
        for name in ("source_ports", "destination_ports")
    }
    return Match(
        protocols=tuple(data.get("protocols", ())),
        exclude=bool(data.get("exclude", False)),
        flags=int(data.get("flags", 0)),
        no_flags=int(data.get("no_flags", 0)),
        members=_members_from(data.get("members")),
        **lists,
        **ranges,
    )


def _members_from(data: Data | None) -> Members | None:
    if data is None:
        return None
    ends = tuple(End(**each) for each in data["ends"])
    return Members(int(data["group"]), ends, bool(data["both"]))


def group_of(spec: Data, ctx: Context) -> cgroup.Group:
    """The control group that a spec names: one that is there, or one of ours below it."""
    known = spec["group"]
    group = group_from(known)
    step = known["step"]
    return group if step is None else group.child(cgroup.group_name(ctx.uid, step))


@contextmanager
def matching(spec: Data, ctx: Context) -> Generator[Match]:
    """The match of a filter; what its members are known by has its number only by now."""
    match = match_from(spec["match"])
    if match.members is None:
        yield match
        return
    group, teacher = group_of(spec, ctx), spec["taught_by"]
    try:
        number = group.folder.stat().st_ino
    except FileNotFoundError as error:
        raise TargetGone(f"the control group {group.folder} is gone") from error
    members = replace(match.members, group=number)
    if teacher is None:
        yield replace(match, members=members)
        return
    nl, side = route_socket(ctx), Direction.EGRESS
    found = classifier.find(nl, spec["ifindex"], side, ctx.uid, str(teacher))
    if found is None:
        raise TargetGone("the filter that learns which conversations are meant is gone")
    with bpf.maps_of_program(found.program) as maps:
        members = replace(members, flows=maps[filter_maps.FLOWS].fd)
        yield replace(match, members=members)


def action_to(action: Action) -> Data:
    """An action as JSON."""
    return {**asdict(action), "kind": str(action.kind)}


def action_from(data: Data, target: int = 0) -> Action:
    """An action read back from a record; its target is known only while it is applied."""
    kind = ActionKind(data["kind"])
    fields: dict[str, Any] = {**data, "kind": kind, "target": target or data["target"]}
    return Action(**fields)


def guard_from(spec: Data, ctx: Context) -> Guard:
    """The deadline as the kernel's own clock counts it, the heartbeat, the exempt connections."""
    exempt = tuple(Exempt(**each) for each in spec.get("exempt", ()))
    deadline = ctx.deadline - clock.namespace_offset()
    return Guard(deadline, spec.get("heartbeat", 0), exempt)


def route_socket(ctx: Context) -> Netlink:
    """The route socket of the place; without one its network namespace is gone."""
    if ctx.netlink is None:
        raise TargetGone("the network namespace of this fault is gone")
    return ctx.netlink


def device_of(nl: Netlink, spec: Data) -> link.Link:
    """The device, by name and index together: an index alone can have been given to another."""
    found = link.find(nl, spec["ifindex"])
    if found is None or found.name != spec["device"]:
        raise TargetGone(f"the interface {spec['device']} (index {spec['ifindex']}) is gone")
    return found


class Classifier(Kind):
    """spec: {device, ifindex, direction, match, action, exempt, what}, and where the match has
    members, group: {version, folder, step}; with a step it is the group of ours below that; and
    taught_by: the step whose filter learns the conversations that are meant, None: this one.
    """

    name: ClassVar[str] = "classifier"

    def capture(self, spec: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        device = device_of(nl, spec)
        kind = tc.ingress_kind(nl, device.index)
        if kind == "ingress" and spec["direction"] == Direction.EGRESS:
            raise Unsupported(
                f"{device.name} has an 'ingress' queueing discipline of somebody else",
                hint=f"replace it: tc qdisc replace dev {device.name} clsact",
            )
        return {"clsact": kind == "clsact"}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        direction = Direction(spec["direction"])
        with matching(spec, ctx) as match:
            attached = classifier.attach(
                nl,
                classifier.next_place(nl, device_of(nl, spec).index, direction),
                Mark(ctx.uid, str(ctx.index)),
                match,
                action_from(spec["action"]),
                guard_from(spec, ctx),
            )
        return {"slot": attached.slot, "program": attached.program}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        nl = ctx.netlink
        if nl is None or link.find(nl, spec["ifindex"]) is None:
            return Presence.GONE
        found = classifier.find(
            nl, spec["ifindex"], Direction(spec["direction"]), ctx.uid, str(ctx.index)
        )
        return Presence.OURS if found else Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        nl = ctx.netlink
        if nl is None:
            return Outcome(Undone.GONE, "the network namespace is gone")
        if link.find(nl, spec["ifindex"]) is None:
            return Outcome(Undone.GONE, f"the interface {spec['device']} is gone")
        direction = Direction(spec["direction"])
        # A crash between clsact and the filter leaves clsact without a mark; we know it was not
        # there.
        ours = prior.get("clsact") is False
        removed = classifier.detach(
            nl, spec["ifindex"], direction, ctx.uid, str(ctx.index), made=ours
        )
        if removed:
            return Outcome(Undone.UNDONE, f"filter removed from {spec['device']} {direction}")
        return Outcome(Undone.ABSENT, "no filter carries the mark")

    def describe(self, spec: Data) -> tuple[str, str]:
        where = f"{spec['device']} {spec['direction']}"
        return (
            f"put an eBPF filter on {where} (clsact): {spec['what']}",
            f"remove the filter from {where}, and clsact if it was made by us and nobody uses it",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        nl = ctx.netlink
        side = str(spec["direction"])
        direction = Direction(side)
        if nl is None or link.find(nl, spec["ifindex"]) is None:
            return ()
        found = classifier.find(nl, spec["ifindex"], direction, ctx.uid, str(ctx.index))
        if found is None:
            return ()
        pref = str(found.filter.priority)
        return (("tc", "filter", "del", "dev", spec["device"], side, "pref", pref),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        if netlink is None:
            return
        for found in classifier.scan(netlink):
            one = found.attached
            if not one.mark.step.isdigit():
                continue  # the far end of a hop; it goes with its link
            spec: Data = {
                "device": found.device,
                "ifindex": one.ifindex,
                "direction": str(one.direction),
                "what": "found by its mark",
            }
            where = f"filter on {found.device} {one.direction}"
            # Undoing it as a hop takes the pair of devices along, if there is one.
            change = Change("hop", spec)
            yield Found(one.mark.uid, int(one.mark.step), change, {"clsact": True}, where)
