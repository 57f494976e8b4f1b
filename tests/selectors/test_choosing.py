"""Selectors: which of a set, by which criteria, how many, and who is never hit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from faultline.api.drawing import picked
from faultline.api.selector import Choice, Selector
from faultline.errors import (
    ObserveFailed,
    Refused,
    TargetGone,
    Unsupported,
)
from faultline.injection import choosing
from faultline.kernel import procfs
from faultline.kernel.procfs import ProcessId
from faultline.places import containers, labelled
from faultline.places.container import Container
from faultline.places.find import Target, find
from faultline.testing.sampling import examples

FAST = settings(max_examples=examples(100, 1000), deadline=None)
NAMES = st.sets(st.text("abcdef0123456789-", min_size=1, max_size=8), min_size=1, max_size=60)
MARK = f"faultline-selector-{os.getpid()}"


def selector(**fields: Any) -> Selector:
    return Selector.model_validate({"containers": {}, **fields})


# ---------------------------------------------------------------------- how many, and which


@FAST
@given(NAMES, st.integers(0, 9), st.sampled_from(["10%", "30%", "50%", "99.9%", "100%"]))
def test_as_many_are_hit_as_the_mode_says(names: set[str], seed: int, percent: str) -> None:
    listed, text = sorted(names), str(seed)
    assert len(picked(listed, selector(), text)) == 1
    assert picked(listed, selector(mode="all"), text) == names
    for count in {1, len(names)}:
        assert len(picked(listed, selector(mode="fixed", count=count), text)) == count
    most = len(names) * float(percent[:-1]) / 100
    for mode, least in (("fixed-percent", int(most + 1e-9)), ("random-max-percent", 1)):
        asked = selector(mode=mode, percent=percent)
        if most + 1e-9 < 1:
            with pytest.raises(Refused, match="is none"):
                picked(listed, asked, text)
        else:
            hit = picked(listed, asked, text)
            assert hit <= names
            assert least <= len(hit) <= most + 1e-9
    with pytest.raises(Refused, match="more than there are"):
        picked(listed, selector(mode="fixed", count=len(names) + 1), text)


@FAST
@given(NAMES, st.integers(0, 9), st.randoms(use_true_random=False), st.data())
def test_the_choice_follows_from_the_seed_and_names_alone(
    names: set[str], seed: int, random: Any, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(names)))
    asked, listed = selector(mode="fixed", count=count), sorted(names)
    hit = picked(listed, asked, str(seed))
    random.shuffle(listed)
    assert picked(listed, asked, str(seed)) == hit
    # One that was not hit and goes moves none of those that were.
    for gone in names - hit:
        assert picked(sorted(names - {gone}), asked, str(seed)) == hit
        break


def test_every_one_is_hit_as_often_as_the_others() -> None:
    names = [f"shop-{number}" for number in range(10)]
    tally = dict.fromkeys(names, 0)
    for seed in range(2000):
        for name in picked(names, selector(mode="fixed", count=3), str(seed)):
            tally[name] += 1
    # 600 each; five standard deviations of a binomial distribution are 102.
    assert all(abs(count - 600) < 102 for count in tally.values()), tally


def test_any_number_up_to_the_share_comes_up() -> None:
    names = [str(number) for number in range(10)]
    asked = selector(mode="random-max-percent", percent="40%")
    sizes = [len(picked(names, asked, str(seed))) for seed in range(400)]
    assert {size: sizes.count(size) > 60 for size in set(sizes)} == dict.fromkeys(
        (1, 2, 3, 4), True
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"containers": None}, "exactly one of"),
        ({"cgroups": {"pattern": "x"}}, "exactly one of"),
        ({"mode": "fixed"}, "count"),
        ({"mode": "one", "count": 1}, "count"),
        ({"mode": "fixed-percent", "count": 1}, "percent|count"),
        ({"mode": "fixed-percent"}, "percent"),
        ({"mode": "fixed", "count": 0}, "greater"),
        ({"mode": "fixed-percent", "percent": "101%"}, "100%"),
        ({"mode": "some"}, "one"),
        ({"containers": None, "processes": {}}, "expected one of"),
        ({"containers": None, "processes": {"pattern": "("}}, "regular expression"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        selector(**fields)


# ---------------------------------------------------------------------- containers and pods


def container(name: str, **fields: Any) -> Container:
    made: dict[str, Any] = {
        "id": (name.encode().hex() * 8)[:64].ljust(64, "0"), "runtime": "docker",
        "process": ProcessId(2**22 - 1, 1), "group": f"/docker/{name}", "name": name,
        "image": "registry.test:5000/shop/web:1.2", "labels": {"app": "shop"}, **fields,
    }  # fmt: skip
    return Container(**made)


CROWD = [
    container("shop-1"), container("shop-2"), container("shop-canary"),
    container("cart-1", labels={"app": "cart"}, image="cart:2"),
    container("", runtime="containerd", pod="prod/web-1", in_pod="web", image=""),
    container("", runtime="containerd", pod="prod/web-1", in_pod="sidecar", id="d" * 64),
    container("", runtime="containerd", pod="prod/web-1", sandbox=True, id="e" * 64),
    container("", runtime="containerd", pod="test/web-2", in_pod="web", id="f" * 64),
]  # fmt: skip


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "all_containers", lambda: list(CROWD))


def words(choice: Choice) -> set[str]:
    return {each.words.split()[1] for each in choice.targets}


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"name": "shop-*"}, {"shop-1", "shop-2", "shop-canary"}),
        ({"labels": {"app": "cart"}}, {"cart-1"}),
        ({"image": "web"}, {"shop-1", "shop-2", "shop-canary", "prod/web-1/sidecar",
                            "test/web-2/web"}),
        ({"image": "cart:*"}, {"cart-1"}),
        ({"image": "registry.test:5000/*", "runtime": "docker"},
         {"shop-1", "shop-2", "shop-canary"}),
        ({"name": "web", "runtime": "containerd"}, {"prod/web-1/web", "test/web-2/web"}),
    ],
)  # fmt: skip
def test_containers_by_name_label_image_and_runtime(
    asked: dict[str, Any], expected: set[str]
) -> None:
    found = choosing.choose("it", selector(containers=asked, mode="all"), "s")
    assert words(found) == expected
    assert all(each.target.container for each in found.targets)


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"namespaces": ["prod"]}, {"prod/web-1/web", "prod/web-1/sidecar"}),
        ({"name": "web-*", "container": "web"}, {"prod/web-1/web", "test/web-2/web"}),
        ({"labels": {"app": "shop"}, "namespaces": ["te*"]}, {"test/web-2/web"}),
    ],
)
def test_pods_by_namespace_name_and_container(asked: dict[str, Any], expected: set[str]) -> None:
    found = choosing.choose("it", selector(containers=None, pods=asked, mode="all"), "s")
    assert {each.target.pod for each in found.targets} == expected


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize(
    ("fields", "said"),
    [({"pods": {"nodeLabels": {"zone": "a"}}}, "nodeLabels"), ({"nodes": {}}, "nodes"),
     ({"pods": {}, "spread": "zones"}, "spread")],
)  # fmt: skip
def test_what_only_a_cluster_knows_is_refused_on_one_host(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        choosing.choose("it", selector(containers=None, **fields), "s")


@pytest.mark.usefixtures("crowd")
def test_the_rest_is_the_control_group_and_what_is_excluded_is_neither() -> None:
    asked = selector(
        containers={"name": "shop-*"}, mode="one", exclude=["*-canary"], seed="always"
    )  # fmt: skip
    found = choosing.choose("it", asked, "this run")
    assert len(found.targets) == len(found.rest) == 1
    assert words(found) | {each.words.split()[1] for each in found.rest} == {"shop-1", "shop-2"}
    assert list(found.spared.values()) == ["excluded"]
    assert found.text.startswith("1 of 2 containers: ")
    assert found == choosing.choose("it", asked, "another run"), "it has a seed of its own"
    others = [
        choosing.choose("it", asked.model_copy(update={"seed": ""}), str(n)) for n in range(9)
    ]
    assert len({tuple(words(each)) for each in others}) == 2


@pytest.mark.usefixtures("crowd")
def test_a_container_in_which_this_runs_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"shop-1": procfs.ourselves()}

    def in_group(pid: int, group: str) -> bool:
        return pid in mine.get(group.removeprefix("/docker/"), ())

    monkeypatch.setattr(procfs, "in_group", in_group)
    found = choosing.choose("it", selector(containers={"name": "shop-?"}, mode="all"), "s")
    assert words(found) == {"shop-2"}
    assert list(found.spared.values()) == ["this command runs in it"]


@pytest.mark.usefixtures("crowd")
def test_what_nobody_can_tell_is_not_taken_for_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled, "images", lambda known: ({}, ["ctr is not installed"]))
    with pytest.raises(ObserveFailed, match="ctr is not installed"):
        choosing.choose("it", selector(containers={"image": "web"}), "s")
    with pytest.raises(TargetGone, match="none of the containers fits"):
        choosing.choose("it", selector(containers={"name": "nobody"}), "s")


# ---------------------------------------------------------------------- processes and groups


@pytest.fixture
def sleepers() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Processes that sleep, told apart by a word of their command lines."""
    with ExitStack() as stack:

        def start(word: str, program: str = "import time; time.sleep(60)") -> Any:
            command = [sys.executable, "-c", program, f"{MARK}-{word}"]
            made = subprocess.Popen(command, start_new_session=True)
            stack.callback(made.wait)
            stack.callback(made.kill)
            return made

        yield start


def processes(mode: str = "all", **asked: Any) -> Selector:
    return selector(containers=None, processes=asked, mode=mode)


def test_processes_by_command_line_each_with_what_it_started(
    sleepers: Callable[..., subprocess.Popen[bytes]],
) -> None:
    parent = (
        "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c',"
        " 'import time; time.sleep(60)', sys.argv[1]]); print('up', flush=True)\n"
        "try: time.sleep(60)\nfinally: c.kill()"
    )
    one, two = sleepers("plain"), sleepers("plain")
    top = sleepers("parent", parent)
    end = time.monotonic() + 20
    while len(procfs.children(top.pid)) < 1 and time.monotonic() < end:
        time.sleep(0.05)
    inner = procfs.children(top.pid)[0].pid
    try:
        found = choosing.choose("it", processes(pattern=MARK), "s")
        assert {each.target.pid for each in found.targets} == {one.pid, two.pid, top.pid}
        by_parent = choosing.choose("it", processes(parent=f"{MARK}-parent"), "s")
        assert [each.target.pid for each in by_parent.targets] == [inner]
        mine = processes(pattern=f"{MARK}-plain", user=str(os.geteuid()))
        assert len(choosing.choose("it", mine, "s").targets) == 2
        target = by_parent.targets[0].target
        assert find(Target(**target.model_dump())).pid == inner
        with pytest.raises(TargetGone, match="another one than before"):
            find(Target(pid=inner, start=target.start + 1))
    finally:
        os.kill(inner, 9)


def test_a_listening_port_is_found(sleepers: Callable[..., subprocess.Popen[bytes]]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    program = (
        f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    )
    server, end = sleepers("server", program), time.monotonic() + 20
    while True:
        try:
            found = choosing.choose("it", processes(port=port), "s")
            break
        except TargetGone:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert [each.target.pid for each in found.targets] == [server.pid]


def test_what_is_protected_is_spared_unless_it_is_allowed_by_name() -> None:
    def hit(*allow: str) -> set[int]:
        asked = processes(process=procfs.process(1).name)
        try:
            found = choosing.choose("it", asked, "s", frozenset(allow))
        except TargetGone:
            return set()
        return {each.target.pid for each in found.targets}

    assert 1 not in hit()
    assert 1 in hit("pid-1")


def test_of_groups_within_each_other_the_outermost_counts(
    monkeypatch: pytest.MonkeyPatch, sleepers: Callable[..., subprocess.Popen[bytes]]
) -> None:
    one, two = sleepers("a"), sleepers("b")
    where = {one.pid: ["/shop.slice/shop-a.service"], two.pid: ["/shop.slice/shop-b.service/sub"]}
    monkeypatch.setattr(choosing.bundle, "groups", lambda pid: where.get(pid, []))

    def groups(pattern: str) -> list[str]:
        asked = selector(containers=None, cgroups={"pattern": pattern}, mode="all")
        return [each.target.cgroup for each in choosing.choose("it", asked, "s").targets]

    services = ["/shop.slice/shop-a.service", "/shop.slice/shop-b.service"]
    assert groups("shop-*.service") == services
    assert groups("/shop.slice/*") == services
    assert groups("shop*") == ["/shop.slice"]
