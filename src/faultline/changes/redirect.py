"""The change that leads all outgoing packets of a device to a worker where eBPF cannot be loaded.

That is so in an unprivileged user namespace. A u32 filter without a condition redirects to the
worker's device; the worker chooses, and sends on by a packet socket behind the filter. The filter
has no deadline of its own and nothing passes it by, so it is what goes first: by hand, at the
deadline, or by a keeper as soon as the worker has died, stopped or hung (`pulse`). Only then does
the worker let go of what it holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from faultline.changes.classifier import device_of, route_socket
from faultline.changes.hop import tap_of
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone, mark
from faultline.changes.worker import GRACE, end_marked, tap_name
from faultline.errors import Unsupported
from faultline.kernel import link, procfs, tc
from faultline.kernel.mark import Mark
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction, Filter
from faultline.workers import packet_stats

_LOOPBACK = (link.CONF_ACCEPT_LOCAL, link.CONF_ROUTE_LOCALNET)
_FIRST, _COUNT = 0xE000, 0x1000  # priorities of ours; a u32 filter has no name to be a mark
_LOST = "lost-"  # begins the uid of a redirection whose worker has taken the mark with it


def _set(nl: Netlink, ifindex: int, values: tuple[int, ...]) -> None:
    settings: dict[int, int] = dict(zip(_LOOPBACK, values, strict=True))
    link.set_setting4(nl, ifindex, settings)


def priority(uid: str, index: int) -> int:
    """The priority that stands for this step."""
    return _FIRST + zlib.crc32(f"{uid}:{index}".encode()) % _COUNT


def _ours(nl: Netlink, ifindex: int) -> list[Filter]:
    """Filters of ours, by their kind and their range of priorities."""
    there = tc.filters(nl, ifindex, Direction.EGRESS.parent)
    return [f for f in there if f.kind == "u32" and _FIRST <= f.priority < _FIRST + _COUNT]


class Redirect(Kind):
    """spec: {device, ifindex, direction, tap_step, grace: seconds, what}."""

    name: ClassVar[str] = "redirect"
    watched: ClassVar[bool] = True

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        # Two of them would take each other's packets.
        return frozenset({f"outgoing packets of {spec['device']} in network {prior['network']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        device = device_of(nl, spec)
        kind = tc.ingress_kind(nl, device.index)
        if kind == "ingress":
            raise Unsupported(
                f"{spec['device']} has an 'ingress' queueing discipline of somebody else"
            )
        settings = [device.setting4(each) for each in _LOOPBACK] if device.loopback else []
        return {"clsact": kind == "clsact", "settings": settings, "network": nl.cookie()}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        device, tap = device_of(nl, spec), tap_of(nl, spec, ctx)
        # The filter cannot carry a mark: the device that it leads to tells what undo needs to know.
        before = tuple(prior["settings"]) or None
        known = Mark(ctx.uid, str(spec["tap_step"]), not prior["clsact"], before)
        link.set_alias(nl, tap.index, str(known))
        tc.add_clsact(nl, device.index)
        number = priority(ctx.uid, ctx.index)
        if device.loopback:
            # What comes back has lost its route; a local source from the wire would be refused.
            _set(nl, device.index, (1, 1))
        tc.add_u32(nl, device.index, Direction.EGRESS.parent, number, tap.index)
        return {"priority": number}

    def pulse(self, spec: Data, ctx: Context) -> int | None:
        """When the worker last said that it lives."""
        return packet_stats.beat(f"{ctx.run}/stats/{ctx.uid}-{spec['tap_step']}")

    def _find(self, nl: Netlink, spec: Data, ctx: Context) -> Filter | None:
        wanted = spec.get("priority", priority(ctx.uid, ctx.index))
        return next((f for f in _ours(nl, spec["ifindex"]) if f.priority == wanted), None)

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        nl = ctx.netlink
        if nl is None or link.find(nl, spec["ifindex"]) is None:
            return Presence.GONE
        if self._find(nl, spec, ctx) or link.find(nl, tap_name(ctx.uid, spec["tap_step"])):
            return Presence.OURS
        return Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        nl = ctx.netlink
        if nl is None:
            return Outcome(Undone.GONE, "the network namespace is gone")
        there = link.find(nl, spec["ifindex"]) is not None
        found = self._find(nl, spec, ctx) if there else None
        # The filter first: new packets pass at once, whatever has become of the worker.
        # Without a handle: with all of its priority, which is ours alone, hash tables too.
        removed = found is not None and tc.delete_filter(nl, replace(found, handle=0))
        whose = mark(ctx.uid, spec["tap_step"])
        ended = "" if procfs.find_marked(whose) else "; its worker had ended before"
        # Then the worker, which lets go of what it holds; on loopback that needs the settings.
        end_marked(whose, spec.get("grace", GRACE))
        # The kernel takes the worker's device down at its leisure; this waits for it.
        link.delete(nl, tap_name(ctx.uid, spec["tap_step"]))
        if not there:
            return Outcome(Undone.GONE, f"the interface {spec['device']} is gone")
        _put_back(nl, spec["ifindex"], prior)
        if removed:
            return Outcome(Undone.UNDONE, f"filter removed from {spec['device']}{ended}")
        return Outcome(Undone.ABSENT, "no filter of this fault")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"redirect outgoing packets of {spec['device']} (u32 filter in clsact): {spec['what']}",
            f"remove the filter from {spec['device']}, and clsact if it was made by us",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        pref = str(spec.get("priority", priority(ctx.uid, ctx.index)))
        return (("tc", "filter", "del", "dev", spec["device"], "egress", "pref", pref),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        if netlink is None:
            return
        devices = {one.index: one for one in link.links(netlink)}
        for device in devices.values():
            for found in _ours(netlink, device.index):
                whose = _owner(found, devices)
                if whose is not None:
                    yield _found(device, found, whose)


def _put_back(nl: Netlink, ifindex: int, prior: Data) -> None:
    if _ours(nl, ifindex):
        return
    if prior["settings"]:
        _set(nl, ifindex, tuple(prior["settings"]))
    parents = [side.parent for side in Direction]
    if not prior["clsact"] and not any(tc.filters(nl, ifindex, parent) for parent in parents):
        tc.delete_clsact(nl, ifindex)


def _owner(found: Filter, devices: dict[int, link.Link]) -> Mark | None:
    """Whose redirection it is: the mark of the device that it leads to, None of a stranger's."""
    target = tc.redirects_to(found)
    if target is None:
        return None
    if target not in devices:
        return Mark(f"{_LOST}{found.priority:x}", "0")
    whose = Mark.read(devices[target].alias)
    return whose if whose is not None and whose.step.isdigit() else None


def _found(device: link.Link, found: Filter, whose: Mark) -> Found:
    """What the marks tell of a redirection; of a lost one the settings are a new device's."""
    lost = whose.uid.startswith(_LOST)
    spec: Data = {
        "device": device.name,
        "ifindex": device.index,
        "direction": str(Direction.EGRESS),
        "tap_step": int(whose.step),
        "what": "found by its mark",
        "priority": found.priority,
    }
    unknown = (0, 0) if lost and device.loopback else ()
    prior: Data = {
        "clsact": not (whose.made or lost),
        "settings": list(whose.loopback or unknown),
    }
    change = Change(Redirect.name, spec)
    return Found(whose.uid, int(whose.step) + 1, change, prior, device.name)
