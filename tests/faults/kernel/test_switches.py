"""Switches of the kernel and the connection table, in networks of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultline.changes import keepers
from faultline.changes.kind import Context, kinds
from faultline.changes.model import End, Undone
from faultline.errors import FaultlineError, InvalidParameter, Protected, Refused, Unsupported
from faultline.faults.kernel.switches import SysctlParams
from faultline.injection import registry, trial
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.kernel import conntrack, link, power
from faultline.kernel.netlink import Netlink
from faultline.units import Duration

RETRIES = Path("/proc/sys/net/ipv4/tcp_retries2")
MINUTE = Duration.parse("1m")

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]


def _sysctl(name: str, value: str, allow: frozenset[str] = frozenset()) -> Order:
    return Order("kernel.sysctl", {"name": name, "value": value}, MINUTE, "", allow)


def _in_network(tmp_path: Path, act: Callable[[Injector], Any]) -> Any:
    """What `act` answers with an injector, in a child with a network of its own."""

    def run() -> Any:
        with Injector(tmp_path / "state") as injector:
            try:
                return act(injector)
            finally:
                injector.recover_all()
                keepers.retire(injector.store)

    return trial.in_child(run)


def test_a_switch_is_set_in_one_network_only_and_put_back(tmp_path: Path) -> None:
    def act(injector: Injector) -> list[str]:
        told = [RETRIES.read_text().strip()]
        record = injector.inject(_sysctl("net.ipv4.tcp_retries2", "3"))
        told.append(RETRIES.read_text().strip())
        told.append(str(injector.observe(record.uid).effect))
        told.append(str(injector.recover(record.uid).end))
        told.append(RETRIES.read_text().strip())
        return told

    before = RETRIES.read_text()
    assert _in_network(tmp_path, act) == ["15", "3", "effective", "recovered", "15"]
    assert RETRIES.read_text() == before


def test_several_numbers_are_compared_as_numbers_and_not_as_blanks(tmp_path: Path) -> None:
    def act(injector: Injector) -> list[str]:
        record = injector.inject(_sysctl("net/ipv4/ip_local_port_range", "40000   40100"))
        effect = injector.observe(record.uid).effect
        return [str(effect), str(injector.recover(record.uid).end)]

    assert _in_network(tmp_path, act) == ["effective", "recovered"]


def test_what_somebody_else_has_set_meanwhile_is_left(tmp_path: Path) -> None:
    def act(injector: Injector) -> list[str]:
        record = injector.inject(_sysctl("net.ipv4.tcp_retries2", "3"))
        RETRIES.write_text("9")
        ended = injector.recover(record.uid)
        outcome = ended.steps[0].outcome
        return [str(outcome and outcome.end), RETRIES.read_text().strip(), str(ended.end)]

    assert _in_network(tmp_path, act) == [Undone.KEPT, "9", End.RECOVERED]


def test_the_kernel_says_which_values_it_takes(tmp_path: Path) -> None:
    def act(injector: Injector) -> list[str]:
        told: list[str] = []
        for value in ("many", "256", "-1"):
            try:
                injector.inject(_sysctl("net.ipv4.ip_default_ttl", value))
            except FaultlineError as error:
                told.append(type(error).__name__)
        return [*told, Path("/proc/sys/net/ipv4/ip_default_ttl").read_text().strip()]

    assert _in_network(tmp_path, act) == [InvalidParameter.__name__] * 3 + ["64"]


def test_a_scan_finds_it_without_a_journal(tmp_path: Path) -> None:
    def act(injector: Injector) -> list[str]:
        uid = injector.inject(_sysctl("net.ipv4.tcp_retries2", "3")).uid
        kind = kinds()["kernel_value"]
        with Netlink.open() as netlink:
            (found,) = [each for each in kind.scan(netlink, ()) if each.uid == uid]
            ctx = Context(uid, found.index, 0, netlink, str(injector.store.run))
            outcome = kind.undo(found.change.spec, found.prior, {}, ctx)
            left = [each for each in kind.scan(netlink, ()) if each.uid == uid]
        return [str(outcome.end), RETRIES.read_text().strip(), *map(str, left)]

    assert _in_network(tmp_path, act) == ["undone", "15"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "|/bin/true"),
        ("kernel.panic", "77"),
        ("kernel.pid_max", "301"),
        ("fs.file-max", "100"),
        ("vm.overcommit_memory", "2"),
    ],
)
def test_what_can_take_the_host_down_is_refused_by_name(
    name: str, value: str, tmp_path: Path
) -> None:
    with Injector(tmp_path / "state") as injector:
        with pytest.raises(Protected, match=name.replace(".", r"\.")) as refused:
            injector.plan(_sysctl(name, value))
        assert f"--allow {name}" in refused.value.hint
        plan = injector.plan(_sysctl(name, value, frozenset({name})))
    assert any("guard overridden" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("net.ipv4", Refused),
        ("net.ipv4.no_such_switch", Unsupported),
        ("vm.compact_memory", Unsupported),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_reason(
    name: str, why: type[Exception], tmp_path: Path
) -> None:
    with Injector(tmp_path / "state") as injector, pytest.raises(why):
        injector.plan(_sysctl(name, "1"))


@pytest.mark.parametrize("name", ["../kernel/panic", "/etc/passwd", "net..ipv4", "a b.c"])
def test_a_name_that_leads_elsewhere_is_no_switch(name: str) -> None:
    with pytest.raises(InvalidParameter):
        SysctlParams.read({"name": name, "value": "1"})


def test_a_dot_inside_of_a_name_is_written_as_sysctl_writes_it() -> None:
    read = SysctlParams.read({"name": "net.ipv4.conf.eth0/100.rp_filter", "value": "1"})
    assert read.name == "net/ipv4/conf/eth0.100/rp_filter"


@pytest.fixture
def tracked() -> None:
    try:
        conntrack.limit()
    except Unsupported as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("tracked")
def test_a_full_table_takes_no_new_connection_until_it_is_recovered(tmp_path: Path) -> None:
    def act(injector: Injector) -> list[Any]:
        with conntrack.Table.open() as table:
            table.add(12345678, 7, 60)  # somebody else's
            record = injector.inject(Order("kernel.conntrack", {}, MINUTE))
            told: list[Any] = [conntrack.count() == conntrack.limit(), table.accepts_one()]
            told.append(str(injector.observe(record.uid).effect))
            told.append(str(injector.recover(record.uid).end))
            return [*told, conntrack.count(), table.accepts_one(), table.mark_of(12345678)]

    before = conntrack.count()
    assert _in_network(tmp_path, act) == [True, False, "effective", "recovered", 1, True, 7]
    assert conntrack.count() == before


@pytest.mark.usefixtures("tracked")
def test_a_table_that_others_reach_this_host_through_is_guarded(tmp_path: Path) -> None:
    def act(injector: Injector) -> str:
        with Netlink.open() as netlink:
            link.add_veth(netlink, ("here", "there"), "")
            for name in ("here", "there"):
                link.set_up(netlink, name)
        try:
            injector.plan(Order("kernel.conntrack", {}, MINUTE))
        except Protected as error:
            return error.hint
        return "it was planned"

    assert _in_network(tmp_path, act).endswith("--allow conntrack")


@pytest.mark.parametrize("what", ["panic", "reboot", "poweroff"])
def test_the_end_of_the_host_is_refused_unless_it_is_allowed(what: str, tmp_path: Path) -> None:
    order = Order(f"kernel.{what}", {}, MINUTE)
    with Injector(tmp_path / "state") as injector, pytest.raises((Protected, Unsupported)) as why:
        injector.plan(order)
    if isinstance(why.value, Protected):
        assert why.value.hint.endswith(f"--allow host-{what}")
    else:
        assert "sysrq" in str(why.value)
        assert not Path(power.TRIGGER).exists()


def test_what_ends_the_host_is_not_tried_by_anything_that_tries_faults() -> None:
    assert {"kernel.panic", "kernel.reboot", "kernel.poweroff"} <= (
        registry.everything().keys() - registry.triable().keys()
    )
    tried = trial.try_fault("kernel.reboot")
    assert (tried.works, tried.why) == (False, "not tried: it ends the host")
