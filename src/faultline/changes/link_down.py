"""The change that takes a network device down, and puts back what the kernel drops with it.

Taking a device down makes the kernel forget its routes and its global IPv6 addresses, so both are
recorded before and added again, each only if it is missing. The device's alias carries the mark,
unless it has one of its own, so that a scan finds it without any journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from faultline.changes.classifier import device_of, route_socket
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Change, Outcome, Presence, Undone
from faultline.errors import Refused
from faultline.kernel import link, route
from faultline.kernel.mark import Mark
from faultline.kernel.netlink import Netlink

_DOWN = ".down"  # ends the step in the mark


class LinkDown(Kind):
    """spec: {device, ifindex}."""

    name: ClassVar[str] = "link_down"

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset({f"the state of interface {spec['device']}#{spec['ifindex']}"})

    def capture(self, spec: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        device = device_of(nl, spec)
        if not device.up:
            raise Refused(f"the interface {device.name} is down already")
        return {
            "addresses": [each.raw.hex() for each in route.addresses(nl, device.index)],
            "routes": [each.raw.hex() for each in route.routes(nl, device.index)],
        }

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        device = device_of(nl, spec)
        if not device.alias:
            link.set_alias(nl, device.index, str(_mark(ctx)))
        link.set_up(nl, device.index, up=False)
        return {}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        device = link.find(ctx.netlink, spec["ifindex"]) if ctx.netlink else None
        if device is None:
            return Presence.GONE
        return Presence.ABSENT if device.up else Presence.OURS

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        nl = ctx.netlink
        device = link.find(nl, spec["ifindex"]) if nl else None
        if nl is None or device is None or device.name != spec["device"]:
            return Outcome(Undone.GONE, f"the interface {spec['device']} is gone")
        was_up = device.up
        if not was_up:
            link.set_up(nl, device.index)
        if _mark(ctx).same(Mark.read(device.alias)):
            link.set_alias(nl, device.index, "")
        failed = route.restore(
            nl,
            [bytes.fromhex(raw) for raw in prior["addresses"]],
            [bytes.fromhex(raw) for raw in prior["routes"]],
        )
        if failed:
            commands = self.commands(spec, prior, ctx)
            return Outcome(Undone.FAILED, f"up, but not as before: {'; '.join(failed)}", commands)
        if prior.get("unknown"):
            return Outcome(
                Undone.UNDONE, "up again; which routes and addresses it had is written down nowhere"
            )
        if was_up:
            return Outcome(Undone.ABSENT, "it is up; addresses and routes are those of before")
        return Outcome(Undone.UNDONE, "up again, with its addresses and routes")

    def describe(self, spec: Data) -> tuple[str, str]:
        return (
            f"take the interface {spec['device']} down",
            f"take {spec['device']} up again; add its addresses and routes that are missing",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return (("ip", "link", "set", "dev", spec["device"], "up"),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        if netlink is None:
            return
        for device in link.links(netlink):
            mark = Mark.read(device.alias)
            step = mark.step.removesuffix(_DOWN) if mark is not None else ""
            if mark is None or step == mark.step or not step.isdigit():
                continue
            spec: Data = {"device": device.name, "ifindex": device.index}
            prior: Data = {"addresses": [], "routes": [], "unknown": True}
            yield Found(mark.uid, int(step), Change(self.name, spec), prior, device.name)


def _mark(ctx: Context) -> Mark:
    """Not that of a device of ours, which would be deleted."""
    return Mark(ctx.uid, f"{ctx.index}{_DOWN}")
