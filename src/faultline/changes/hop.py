"""The change that leads packets through a hop of ours: delay, reorder, rate, corrupt with bad
checksums.

The filter carries the deadline, so the traffic leaves the hop on time even with every process of
ours killed; what is left then is an idle pair of devices that the next start of anything of ours
removes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import ClassVar

from faultline.changes.classifier import (
    Classifier,
    action_from,
    device_of,
    guard_from,
    matching,
    route_socket,
)
from faultline.changes.kind import Context, Data, Found
from faultline.changes.model import Change, Outcome, Presence, Undone, mark
from faultline.changes.worker import GRACE, end_marked, tap_name
from faultline.errors import ApplyFailed, TargetGone
from faultline.kernel import classifier, hop, link
from faultline.kernel.mark import Mark
from faultline.kernel.netlink import Netlink
from faultline.kernel.shaping import Netem, Shape, Tbf
from faultline.kernel.tc import Direction

_WORKER = 5.0  # seconds that the packet engine may take to begin
LONGEST_DRAIN = 5.0  # seconds that undo waits for packets on their way; later ones are lost


def shape_to(shape: Shape | None) -> Data | None:
    """A queueing discipline's settings as JSON."""
    return None if shape is None else {"kind": shape.kind, **asdict(shape)}


def shape_from(data: Data | None) -> Shape | None:
    """Settings read back from a record."""
    if data is None:
        return None
    fields = {name: value for name, value in data.items() if name != "kind"}
    return Netem(**fields) if data["kind"] == "netem" else Tbf(**fields)


def tap_of(nl: Netlink, spec: Data, ctx: Context) -> link.Link:
    """The tap device of the worker that an earlier step of this fault started."""
    name = tap_name(ctx.uid, spec["tap_step"])
    tap = link.find(nl, name)
    if tap is None:
        raise TargetGone(f"the packet engine's device {name} is gone")
    return tap


def _wait_for_worker(attached: classifier.Attached) -> None:
    """Until the worker has found its filter and writes the heartbeat, packets still pass it by."""
    until = time.monotonic() + _WORKER
    with classifier.heartbeat(attached) as beat:
        while not any(beat[:8]):
            if time.monotonic() > until:
                raise ApplyFailed(f"the packet engine did not begin within {_WORKER:g} s")
            time.sleep(0.001)


class Hop(Classifier):
    """spec: as a classifier's, and either `shape` (in the kernel) or `tap_step` (a worker's)."""

    name: ClassVar[str] = "hop"

    def takes(self, spec: Data) -> float:
        return float(max(spec.get("drain", 0.0), spec.get("grace", 0.0)))

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        nl = route_socket(ctx)
        device = device_of(nl, spec)
        direction, ours = Direction(spec["direction"]), Mark(ctx.uid, str(ctx.index))
        guard = guard_from(spec, ctx)
        with matching(spec, ctx) as match:
            if spec["tap_step"] is not None:
                tap = tap_of(nl, spec, ctx)
                action = action_from(spec["action"], tap.index)
                attached = hop.bind(
                    nl, device.index, direction, ours, match, action, guard,
                    far=tap.index, by_mark=False,
                )  # fmt: skip
                _wait_for_worker(attached)
            else:
                # The pair is made by `inject`, which then points the action at it.
                action = action_from(spec["action"], device.index)
                shape = shape_from(spec["shape"])
                attached = hop.inject(
                    nl, device.index, direction, ours, match, action, guard, shape
                )
        return {"slot": attached.slot, "program": attached.program}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if ctx.netlink is not None and hop.find(ctx.netlink, ctx.uid, str(ctx.index)):
            return Presence.OURS
        return super().presence(spec, prior, made, ctx)

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        nl = ctx.netlink
        if nl is None:
            return Outcome(Undone.GONE, "the network namespace is gone")
        gone = link.find(nl, spec["ifindex"]) is None
        if spec.get("tap_step") is not None:
            # The worker first: it lets new packets pass and those that it holds go, which on the
            # loopback device still need the settings that go with the filter.
            end_marked(mark(ctx.uid, spec["tap_step"]), spec.get("grace", GRACE))
        drain = min(spec.get("drain", 0.0), LONGEST_DRAIN)
        removed = hop.recover(
            nl, spec["ifindex"], Direction(spec["direction"]), ctx.uid, str(ctx.index),
            made=prior.get("clsact") is False, drain=drain,
        )  # fmt: skip
        if removed:
            return Outcome(
                Undone.UNDONE, "filter detached, packets on their way let go, hop deleted"
            )
        if gone:
            return Outcome(Undone.GONE, f"the interface {spec['device']} is gone")
        return Outcome(Undone.ABSENT, "neither filter nor hop carries the mark")

    def describe(self, spec: Data) -> tuple[str, str]:
        where = f"{spec['device']} {spec['direction']}"
        by = "the worker's device" if spec.get("tap_step") is not None else "devices of ours"
        return (
            f"redirect packets on {where} (eBPF filter in clsact) through {by}: {spec['what']}",
            f"remove the filter from {where}, let go of the packets held, delete the devices",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        found = hop.find(ctx.netlink, ctx.uid, str(ctx.index)) if ctx.netlink else None
        filters = super().commands(spec, prior, ctx)
        return (*filters, ("ip", "link", "del", found.near.name)) if found else filters

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        if netlink is None:
            return
        filters = {(f.attached.mark.uid, f.attached.mark.step) for f in classifier.scan(netlink)}
        for found in hop.scan(netlink):
            whose = found.mark
            if (whose.uid, whose.step) in filters or not whose.step.isdigit():
                continue  # the filter's own entry leads to it
            spec: Data = {
                "device": found.near.name,
                "ifindex": found.near.index,
                "direction": str(Direction.EGRESS),
                "what": "found by its mark",
            }
            change = Change(self.name, spec)
            yield Found(whose.uid, int(whose.step), change, {"clsact": True}, found.near.name)
