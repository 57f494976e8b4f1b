"""Which of a set are hit, and how many of them. Pure: the same seed gives the same answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from faultline.api.selector import Selector
from faultline.errors import Refused


def picked(
    names: Sequence[str],
    selector: Selector,
    seed: str,
    node: str = "",
    groups: Mapping[str, str] | None = None,
) -> set[str]:
    """Which of a set are hit, by their names; raises Refused if too few are there.

    Each has a number that is drawn from the seed and its own name alone, and those with the lowest
    are hit: the order of the set does not matter, and one that comes or goes moves no other one.
    With `groups`, the group of each, they are taken from all groups in turn.
    """
    count = how_many(len(names), selector, seed)
    if count > len(names) or count < 1:
        asked = selector.count or selector.percent
        raise Refused(
            f"{node}: {asked} of {len(names)} is {'more than there are' if count else 'none'}",
            hint="a larger share, or `mode: one`" if not count else "fewer, or `mode: all`",
        )
    return set(ordered(names, seed, groups)[:count])


def ordered(names: Sequence[str], seed: str, groups: Mapping[str, str] | None = None) -> list[str]:
    """The names in the order in which they are hit."""
    drawn = sorted(set(names), key=lambda name: (_drawn(seed, name), name))
    if groups is None:
        return drawn
    seen: dict[str, int] = {}
    ranks: dict[str, tuple[int, int]] = {}
    for place, name in enumerate(drawn):
        group = groups.get(name, "")
        ranks[name] = (seen.get(group, 0), place)
        seen[group] = seen.get(group, 0) + 1
    return sorted(drawn, key=lambda name: ranks[name])


def how_many(size: int, selector: Selector, seed: str) -> int:
    """How many of so many; with `fixed` it may be more than there are, with a share none."""
    mode = selector.how
    if mode == "one":
        return 1
    if mode == "all":
        return size
    if mode == "fixed":
        return selector.count or 0
    assert selector.percent is not None
    # A share as people write it: 30 % of 10 are 3, whatever binary fractions say.
    most = int(size * selector.percent.ratio + 1e-9)
    if mode == "fixed-percent" or most < 1:
        return most
    return 1 + _drawn(seed, "how many") % most


def _drawn(seed: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8])
