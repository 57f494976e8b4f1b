"""The real tools behind the engine's ports, on this host. Imported when a run is carried out."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import faultline
from faultline.api.admission import PLUGIN_PROBE, PLUGIN_SELECTOR, PLUGIN_TRAFFIC
from faultline.api.document import Problem, problems_of
from faultline.api.probe import PluginProbe
from faultline.api.run import Environment, Run
from faultline.api.selector import PluginSelector
from faultline.api.traffic import PluginTraffic
from faultline.changes.kind import kinds
from faultline.changes.model import Record
from faultline.engine.actions import found_before
from faultline.engine.asked import first_faults
from faultline.engine.ports import FaultOrder, Injecting, Tools
from faultline.engine.signals import Heard
from faultline.errors import UnknownName, Unsupported
from faultline.injection import choosing, registry
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Reading
from faultline.kernel import cgroup, clock
from faultline.places.again import again
from faultline.places.find import Target

_ENGINES = ("aiohttp", "hdrhistogram", "cel-python", "pydantic")


class HostInjector:
    """The injector of this host, as the engine wants it."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector

    def changes(self, order: FaultOrder) -> list[tuple[str, str]]:
        return [(step.does, step.undo) for step in self._injector.plan(_order(order)).steps]

    def inject(self, order: FaultOrder) -> Record:
        return self._injector.inject(_order(order))

    def observe(self, uid: str) -> Reading:
        return self._injector.observe(uid)

    def recover(self, uid: str) -> Record:
        return self._injector.recover(uid)

    def residue(self, uid: str) -> list[str]:
        return self._injector.residue(uid)

    def find(self, uid: str) -> Record | None:
        try:
            return self._injector.get(uid)
        except UnknownName:
            return None

    def describe(self, record: Record) -> list[tuple[str, str]]:
        return [kinds()[s.change.kind].describe(s.change.spec) for s in record.steps]


def _order(order: FaultOrder) -> Order:
    beyond = {"peer": order.peer, "flap": order.flap}
    for name, given in beyond.items():
        if given is not None:
            raise Unsupported(
                f"{order.fault}: {name} asks what only a cluster knows",
                hint="apply it as a Fault, or as a Run, in a cluster with an operator",
            )
    return Order(
        fault=order.fault,
        params=order.params,
        duration=order.duration,
        uid=order.uid,
        allow=order.allow,
        creator=order.creator,
        target=_target(order),
        seed=order.seed,
    )


def _target(order: FaultOrder) -> Target:
    named = Target(**order.target)
    return again(named, order.found) if order.found else named


def check_targets(run: Run) -> None:
    """Whether what the faults of a replay acted on is still there; raises TargetGone, Refused."""
    for node in first_faults(run):
        if found := found_before(run, node.name):
            again(Target(**node.target.model_dump()), found)


def host_tools(state: Path | None = None) -> Tools:
    """Everything that a run needs here; `state` is the state folder, by default the usual one."""
    from faultline.probes.prober import Probers
    from faultline.traffic.run import Traffics
    from faultline.watching.run import Watched

    @contextmanager
    def injector() -> Generator[Injecting]:
        with Injector(state) as opened:
            yield HostInjector(opened)

    traffic, heard = Traffics(), Heard()
    probers = Probers(traffic.figures, heard.get)
    return Tools(
        injector, probers, traffic, environment, engines, Watched(), heard, choose=choosing.choose
    )


def check_fault(fault: str, params: dict[str, Any]) -> list[Problem]:
    """What is wrong with a fault's id and parameters, by the registry; and with a probe, a
    selector or traffic of somebody else, as its plug-in says.
    """
    if fault == PLUGIN_PROBE:
        from faultline.probes.plugin import problems

        return problems(PluginProbe.model_validate(params))
    if fault == PLUGIN_TRAFFIC:
        from faultline.traffic import plugin

        return plugin.problems(PluginTraffic.model_validate(params))
    if fault == PLUGIN_SELECTOR:
        return choosing.problems(PluginSelector.model_validate(params))
    try:
        model = registry.get(fault).params_type()
    except UnknownName as error:
        expected = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Problem("fault", expected)]
    try:
        model.model_validate(params)
    except ValidationError as error:
        return [
            Problem(f"params.{one.path}", one.expected, one.given)
            for one in problems_of(error, params)
        ]
    return []


def engines() -> dict[str, str]:
    """Versions of what carries out a run."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _ENGINES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def environment() -> Environment:
    """Where this is."""
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        distribution = ""
    return Environment(
        hostname=socket.gethostname(),
        kernel=platform.release(),
        distribution=distribution,
        python=platform.python_version(),
        faultline=faultline.__version__,
        cpu=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup=str(cgroup.layout().mode),
        boot_id=clock.boot_id(),
        user=f"uid {os.geteuid()}",
    )


@cache
def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware", "Processor"):
            return value.strip()
    return f"{platform.machine()} ({sys.byteorder} endian)"
