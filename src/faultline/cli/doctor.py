"""`doctor`: what works on this machine, as tried, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

from faultline.cli import output
from faultline.errors import UnknownName, Unsupported, nearest
from faultline.injection import engines, registry, trial
from faultline.kernel import cgroup

EXIT_NOT_HERE = Unsupported.exit_code
NETFILTER = 12  # NETLINK_NETFILTER (netlink(7))
# What faults ask of the kernel (capabilities(7)), by number.
CAPABILITIES = {
    "DAC_OVERRIDE": 1, "KILL": 5, "NET_ADMIN": 12, "NET_RAW": 13, "IPC_LOCK": 14,
    "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "BPF": 39,
}  # fmt: skip


def machine() -> dict[str, Any]:
    """What kind of machine this is, as far as faults care."""
    return {
        "kernel": f"{platform.release()} on {platform.machine()}",
        "cgroups": str(cgroup.layout().mode),
        "user": "root" if os.geteuid() == 0 else f"uid {os.geteuid()}",
        "rights missing": _missing_rights(),
        "user namespaces": _userns(),
        "systemd": "yes" if Path("/run/systemd/system").exists() else "no",
        "firewall": f"{_firewall()}; no fault touches it",
        "tools": "none are needed: the kernel is spoken to directly",
    }


def _missing_rights() -> list[str]:
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(each for each in status if each.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    return [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]


def _userns() -> str:
    if os.geteuid() == 0:
        return "not needed"
    try:
        trial.in_child(lambda: True, 10.0)
    except Unsupported as error:
        return f"not allowed here: {error.message}"
    return "work: faults of the network are tried in one (yours: unshare --user --net -r)"


def _engines() -> dict[str, str]:
    """What stands in the way of each engine, where the faults are tried: an ordinary user has no
    rights over the network outside of a user namespace.
    """
    if os.geteuid() == 0:
        return _obstacles()
    try:
        return trial.in_child(_obstacles) or {}
    except Unsupported:
        return _obstacles()


def _obstacles() -> dict[str, str]:
    """What is in the way now, not when it was last tried."""
    engines.try_again()
    return engines.obstacles()


def _firewall() -> str:
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER).close()
    except OSError:
        return "none in this kernel"
    legacy = Path("/proc/net/ip_tables_names")
    return "nftables and iptables-legacy" if legacy.exists() else "nftables"


def _names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Completion: families, and with a dot their faults."""
    family, dot, _ = incomplete.partition(".")
    known = registry.families()
    found = list(registry.family(family)) if dot and family in known else list(known)
    return [name for name in found if name.startswith(incomplete)]


def _wanted(names: tuple[str, ...]) -> list[str]:
    known = list(registry.everything())
    families = {fault_id.partition(".")[0] for fault_id in known}
    for name in names:
        if name not in known and name not in families:
            hint = nearest(name, [*known, *families] if "." in name else families)
            raise UnknownName(f"there is no fault or family {name!r}", hint=hint)
    return [each for each in known if not names or each in names or each.partition(".")[0] in names]


@click.command()
@click.argument("names", nargs=-1, metavar="[FAMILY[.FAULT]]...", shell_complete=_names)
@output.format_option
def doctor(names: tuple[str, ...], form: str) -> int:
    """Try every fault (or those named) in scratch namespaces, and say why the others do not work.

    Exit status 7 if one that was named does not work here.
    """
    wanted = _wanted(names)
    about = {**machine(), "packet engines": _engines()}
    if form == "table":
        _show_machine(about)
        output.say(f"\ntrying {len(wanted)} faults in scratch namespaces", bold=True)
    results: list[trial.Trial] = []
    for fault_id in wanted:
        with output.waiting(f"  trying {fault_id}", quiet=form != "table"):
            results.append(trial.try_fault(fault_id))
        if form == "table":
            _show(results[-1])
    works = sum(each.works for each in results)
    if form == "table":
        click.echo(f"{works} of {len(results)} work here{_elsewhere(results)}")
    else:
        output.emit({"machine": about, "faults": [asdict(each) for each in results]}, form)
    return EXIT_NOT_HERE if names and works < len(results) else 0


def _elsewhere(results: list[trial.Trial]) -> str:
    if os.geteuid() == 0 or all(each.works for each in results):
        return ""
    return "; the others may with root: sudo faultline doctor"


def _show_machine(about: dict[str, Any]) -> None:
    for name, value in about.items():
        if name == "packet engines":
            for engine, why in value.items():
                word = output.coloured("no") + f": {why}" if why else output.coloured("works")
                output.field(f"engine {engine}:", word, 18)
            continue
        listed = cast("list[str]", value) if isinstance(value, list) else [str(value)]
        text = ", ".join(listed) or "none"
        output.field(f"{name}:", text, 18)


def _show(result: trial.Trial) -> None:
    word = "works" if result.works else "no"
    detail = result.measured if result.works else result.why
    engine = f" [{result.engine}]" if result.engine else ""
    lead = f"  {output.coloured(word)}{' ' * (6 - len(word))}{result.fault:20}"
    click.echo(f"{lead}{detail}{engine}")
