"""A control group that stands still, in whichever version of control groups the kernel has."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.changes.cgroup_frozen import CgroupFrozen
from faultline.changes.kind import Context, Data
from faultline.changes.model import Presence, Undone
from faultline.errors import Refused, Unsupported
from faultline.kernel import cgroup, clock, freezer, procfs
from faultline.kernel.cgroup import Group

pytestmark = [pytest.mark.needs_root, pytest.mark.both_kernels]


@pytest.fixture
def group() -> Iterator[Group]:
    """A group with a busy process, and another below it with one too."""
    hierarchies = cgroup.layout().hierarchies
    able = [each for each in hierarchies if "freezer" in each.controllers]
    able += [each for each in hierarchies if each.version == 2]
    if not able:
        pytest.skip("no control groups here")
    outer = Group(able[0], able[0].root).child(f"test-freezer-{time.monotonic_ns()}")
    inner = outer.child("inner")
    outer.create()
    inner.create()
    busy = [
        subprocess.Popen(["sh", "-c", "while :; do :; done"], stdin=subprocess.DEVNULL)
        for _ in range(2)
    ]
    inner.add(busy[0].pid)
    # Version 2: processes only in groups that have none below them.
    (outer if outer.version == 1 else inner).add(busy[1].pid)
    yield outer
    for each in busy:
        each.kill()
        each.wait()
    for each in (inner, outer):
        each.remove()


def step(run: Path) -> Context:
    return Context("frozen", 0, clock.now() + 10**10, run=str(run))


def spec(group: Group) -> Data:
    return {"folder": str(group.folder), "version": group.version, "what": "the test's"}


def used(group: Group) -> int:
    inside = [pid for each in group.walk() for pid in each.pids()]
    lines = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in inside]
    return sum(int(fields[11]) + int(fields[12]) for fields in lines)


def test_everything_in_it_stands_still_and_goes_on(group: Group, tmp_path: Path) -> None:
    kind, ctx, given = CgroupFrozen(), step(tmp_path), spec(group)
    prior = kind.capture(given, ctx)
    kind.apply(given, prior, ctx)
    assert kind.presence(given, prior, {}, ctx) is Presence.OURS
    before = used(group)
    time.sleep(0.2)
    assert used(group) == before
    with pytest.raises(Refused, match="already"):
        kind.capture(given, ctx)
    assert kind.undo(given, prior, {}, ctx).end is Undone.UNDONE
    assert kind.presence(given, prior, {}, ctx) is Presence.ABSENT
    until = time.monotonic() + 20
    while used(group) == before:
        assert time.monotonic() < until, "it does not go on"
        time.sleep(0.02)
    assert kind.undo(given, prior, {}, ctx).end is Undone.ABSENT


def test_a_group_below_that_somebody_froze_stays_frozen(group: Group, tmp_path: Path) -> None:
    kind, ctx, given = CgroupFrozen(), step(tmp_path), spec(group)
    inner = freezer.Freezer.open(str(group.child("inner").folder), group.version)
    try:
        inner.freeze()
        kind.apply(given, {}, ctx)
        assert kind.undo(given, {}, {}, ctx).end is Undone.UNDONE
        assert inner.told()
        assert inner.still()
    finally:
        inner.thaw()
        inner.close()


def test_somebody_let_it_go_on_or_it_is_gone(group: Group, tmp_path: Path) -> None:
    kind, ctx, given = CgroupFrozen(), step(tmp_path), spec(group)
    kind.apply(given, {}, ctx)
    held = freezer.Freezer.open(given["folder"], given["version"])
    held.thaw()
    held.close()
    assert kind.undo(given, {}, {}, ctx).end is Undone.ABSENT
    other = group.child("short-lived")
    other.create()
    ctx.handed = kind.hold(spec(other), {}, ctx)
    other.remove()
    assert kind.presence(spec(other), {}, {}, ctx) is Presence.GONE
    assert kind.undo(spec(other), {}, {}, ctx).end is Undone.GONE
    for fd in ctx.handed:
        os.close(fd)


def test_a_group_that_is_in_no_tree_cannot_be_frozen() -> None:
    with pytest.raises(Unsupported, match="no hierarchy"):
        freezer.group_for(f"/surely/not/{procfs.ProcessId.current().start}")
