"""What sends over one protocol. The pace, the counting and the processes are not its business."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Protocol, cast

from faultline.errors import FaultlineError
from faultline.traffic.chance import Chance
from faultline.traffic.model import Load
from faultline.traffic.template import Values

MODULES = {
    "http": "faultline.traffic.drivers.http",
    "redis": "faultline.traffic.drivers.redis",
    "postgresql": "faultline.traffic.drivers.postgresql",
    "sqlalchemy": "faultline.traffic.drivers.sqlalchemy",
    "grpc": "faultline.traffic.drivers.grpc",
    "kafka": "faultline.traffic.drivers.kafka",
    "tcp": "faultline.traffic.drivers.tcp",
    "udp": "faultline.traffic.drivers.udp",
}
"""The module of each driver; its class is called Driver."""

PLUGIN = "plugin:"
"""What the name of a driver of an installed package begins with."""
CLASS = "class:"
"""The same of one that is not installed, MODULE:NAME; no document leads to it."""


class Turn(Protocol):
    """What one user does once: one request, or the steps of a scenario."""

    @property
    def user(self) -> int:
        """The user of the closed model; -1 in the open one, where nobody comes back."""
        ...

    @property
    def values(self) -> Values:
        """The values of this turn."""
        ...

    @property
    def chance(self) -> Chance:
        """What this turn chooses by: the same in every run with the same seed."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent."""
        ...

    async def ask(self, part: str, work: Callable[[], Awaitable[str]]) -> str:
        """Do one request and count it, under `part` too if that is not ''.

        `work` gives '' or why it failed, or raises one of the driver's errors. The first request of
        a turn was due when the turn was, each later one when `work` is handed over here.
        """
        ...

    async def pause(self, nanoseconds: int) -> None:
        """Think."""
        ...

    def whole(self, part: str, *, good: bool) -> None:
        """Count the turn as a whole under `part`, from when it was due until now."""
        ...


class Driver(Protocol):
    """One protocol's client. `open` and `close` are called once, on the event loop."""

    errors: tuple[type[Exception], ...]
    """What a request may raise beside OSError and TimeoutError."""

    async def open(self) -> None:
        """Make ready to send. A target that does not answer yet is no error here, unless nothing
        can be sent without it; then raises CannotBegin.
        """
        ...

    async def turn(self, turn: Turn) -> None:
        """Do one turn."""
        ...

    def kind(self, error: Exception) -> str:
        """A short stable name for how a request failed."""
        ...

    async def close(self) -> None:
        """Close all connections; nothing is under way any more."""
        ...


class CannotBegin(Exception):
    """Nothing can be sent, with the reason for people."""


def driver_of(load: Load) -> Driver:
    """The driver of a load; raises ImportError if its library is not there, CannotBegin if no
    package has it or it does not accept what it is given.
    """
    if load.driver.startswith(PLUGIN):
        return _installed(load)
    if load.driver.startswith(CLASS):
        module, _, name = load.driver.removeprefix(CLASS).partition(":")
        return accepted(vars(import_module(module))[name], load, name)
    make = cast("Callable[[Load], Driver]", vars(import_module(MODULES[load.driver]))["Driver"])
    return make(load)


def _installed(load: Load) -> Driver:
    """The driver of a package: the class to which an entry point `faultline.traffic` leads."""
    from importlib.metadata import entry_points

    name = load.driver.removeprefix(PLUGIN)
    for point in entry_points(group="faultline.traffic", name=name):
        return accepted(point.load(), load, name)
    raise CannotBegin(f"no installed package has a driver of traffic called {name!r}")


def accepted(made: object, load: Load, name: str) -> Driver:
    """The driver that somebody else's class makes of a load; raises CannotBegin with what it does
    not accept.
    """
    make = cast("Callable[[Load], Driver]", made)
    try:
        return make(load)
    except (KeyError, ValueError, TypeError, FaultlineError) as error:
        said = f"no parameter {error}" if isinstance(error, KeyError) else error
        raise CannotBegin(f"plug-in {name} does not accept its parameters: {said}") from error
