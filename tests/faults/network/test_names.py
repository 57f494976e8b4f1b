"""Host names whose addresses change while the fault is on."""

from __future__ import annotations

import os
import subprocess
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from lanes import off, order, passes, until
from netrig import Wire

from faultline.changes import keepers
from faultline.injection.injector import Injector
from faultline.injection.plan import Plan
from faultline.kernel import route, syscalls

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]

OFTEN = 0.2  # seconds between two look-ups; users have a fixed number


def quickly(plan: Plan) -> Plan:
    """The same plan with names looked up often."""
    changes = []
    for change in plan.changes:
        spec = dict(change.spec)
        if spec.get("module") == "follow_names":
            spec["spec"] = {**spec["spec"], "interval": OFTEN}
        changes.append(replace(change, spec=spec))
    return replace(plan, changes=tuple(changes))


def in_child(act: Callable[[], None], namespace: int) -> None:
    """Run with a mount namespace of its own, so that /etc/hosts can be ours alone."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = b""
        try:
            syscalls.setns(namespace, syscalls.Namespace.NET)
            syscalls.unshare(syscalls.Namespace.MOUNT)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            act()
        except BaseException:  # noqa: BLE001 - told by the parent
            told = traceback.format_exc().encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(pid, 0)
    assert not told, told


class Hosts:
    """The private /etc/hosts."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hosts"
        for name, text in (("hosts", ""), ("resolv.conf", "")):
            (folder / name).write_text(text)
            subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)

    def say(self, **names: str) -> None:
        lines = [f"{address} {name}" for name, all_ in names.items() for address in all_.split()]
        self.file.write_text("127.0.0.1 localhost\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("direction", ["out", "both"])
def test_the_filter_follows_the_name(wire: Wire, tmp_path: Path, direction: str) -> None:
    for last in (12, 13):
        route.new_address(wire.there.nl, wire.there.index("v1"), f"10.77.0.{last}", 24)
        route.new_address(wire.there.nl, wire.there.index("v1"), f"fd77::{last}", 64)
    hosts4 = ["10.77.0.2", "10.77.0.12", "10.77.0.13"]
    hosts6 = ["fd77::2", "fd77::12", "fd77::13"]

    def cut() -> set[str]:
        return {h for h in (*hosts4, *hosts6) if not passes(wire.here, wire.there, h, 4000)}

    until(lambda: cut() == set())

    def child() -> None:
        hosts = Hosts(tmp_path)
        with ExitStack() as stack:
            injector = stack.enter_context(Injector(tmp_path / "store"))
            stack.callback(keepers.retire, injector.store)
            stack.callback(injector.recover_all)
            hosts.say(moving="10.77.0.2 fd77::2")
            wanted = {"interface": "v0", "direction": direction}
            plan = injector.plan(order("partition", destination="moving,10.77.0.13", **wanted))
            assert any("look up moving" in step.does for step in plan.steps)
            record = injector.carry_out(quickly(plan))
            always = {"10.77.0.13"}
            assert cut() == {"10.77.0.2", "fd77::2"} | always
            hosts.say(moving="10.77.0.12 fd77::12")
            until(lambda: cut() == {"10.77.0.12", "fd77::12"} | always)
            if direction == "both":
                assert not passes(wire.there, wire.here, wire.here4, 4000, "10.77.0.12")
                assert passes(wire.there, wire.here, wire.here4, 4000, "10.77.0.2")
            hosts.say(other="10.77.0.2")
            for _ in range(3):  # it is not known any more: the addresses stay
                assert cut() == {"10.77.0.12", "fd77::12"} | always
            hosts.say(moving="10.77.0.2")
            until(lambda: cut() == {"10.77.0.2"} | always)
            off(injector, record.uid)
            assert cut() == set()

    in_child(child, wire.here.fd)


def test_users_have_their_names_looked_up_every_five_seconds(wire: Wire, tmp_path: Path) -> None:
    def child() -> None:
        hosts = Hosts(tmp_path)
        hosts.say(moving="10.77.0.2")
        with Injector(tmp_path / "store") as injector:
            plan = injector.plan(order("loss", percent="10%", destination="moving"))
            spec = plan.changes[-1].spec
            assert spec["module"] == "follow_names"
            assert spec["spec"]["interval"] == 5

    in_child(child, wire.here.fd)
