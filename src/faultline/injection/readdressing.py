"""Other addresses for filters that are there: maps are changed, never rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from faultline.changes.model import Record, State, Step
from faultline.errors import InvalidParameter, TargetGone, Unsupported
from faultline.kernel import classifier
from faultline.kernel.netlink import Netlink
from faultline.kernel.tc import Direction

_KINDS = ("classifier", "hop")
_SIDES = {"source": "sources", "destination": "destinations"}
_OTHER = {"sources": "destinations", "destinations": "sources"}


def filters(record: Record) -> Iterator[tuple[int, Step]]:
    """The steps that are filters which go by addresses."""
    for index, step in enumerate(record.steps):
        match: dict[str, Any] = step.change.spec.get("match") or {}
        if step.change.kind in _KINDS and any(match.get(side) for side in _OTHER):
            yield index, step


def matched(record: Record, step: Step, sides: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What one filter compares; of a fault both ways, what comes in is seen from the other side."""
    both = record.params.get("direction") == "both"
    swapped = both and step.change.spec["direction"] == str(Direction.INGRESS)
    named = {_SIDES[side]: networks(side, given) for side, given in sides.items()}
    return {_OTHER[side] if swapped else side: given for side, given in named.items()}


def networks(side: str, given: list[str]) -> list[str]:
    """Addresses and networks as filters have them; raises InvalidParameter for names."""
    try:
        return list(dict.fromkeys(str(ip_network(each, strict=False)) for each in given))
    except ValueError as error:
        raise InvalidParameter(side, given, "addresses or CIDR networks") from error


def follow(netlink: Netlink, record: Record, sides: Mapping[str, list[str]]) -> None:
    """Change them in the filters; raises TargetGone if one is gone, Unsupported if there are none
    or the fault did not go by these sides.
    """
    if record.state is not State.ACTIVE:
        raise TargetGone(f"{record.fault} is not in place: it is {record.state}")
    found = list(filters(record))
    if not found:
        raise Unsupported(f"{record.fault} has no filter that goes by addresses")
    for side, given in sides.items():
        if not given or not record.params.get(side):
            raise Unsupported(
                f"{record.fault} was not asked for with {side}, or would be with none"
            )
    for index, step in found:
        spec = step.change.spec
        direction = Direction(spec["direction"])
        there = classifier.find(netlink, spec["ifindex"], direction, record.uid, str(index))
        if there is None:
            raise TargetGone(f"the filter of {record.fault} on {spec['device']} is gone")
        match = {name: tuple(given) for name, given in matched(record, step, sides).items()}
        classifier.follow(
            there, sources=match.get("sources"), destinations=match.get("destinations")
        )
