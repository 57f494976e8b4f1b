"""What a driver of traffic of somebody else may build upon: typed parameters, and a stand-in that
the conformance kit can try it with.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Generic, TypeVar

from faultline.api.document import Problem
from faultline.api.params import Params
from faultline.api.traffic_plugin import PluginTraffic
from faultline.errors import FaultlineError, InvalidParameter
from faultline.traffic.driver import Turn
from faultline.traffic.kinds import error_kind
from faultline.traffic.model import Load

P = TypeVar("P", bound=Params)


class TrafficPlugin(Generic[P]):
    """A driver of an installed package: an entry point `faultline.traffic` names its class.

    One instance sends for one generator process, on its event loop.
    """

    summary: ClassVar[str] = ""
    errors: tuple[type[Exception], ...] = ()
    """What a request may raise beside OSError and TimeoutError."""
    example: ClassVar[dict[str, Any]] = {}
    """Parameters that the conformance kit tries it with, beside those that `target` yields."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """The names of the secrets that it takes."""

    def __init__(self, load: Load) -> None:
        """Raises InvalidParameter with the name of what it does not accept."""
        self.load = load
        self.params: P = self.params_type().read(dict(load.options.get("params") or {}))
        self.given: dict[str, str] = dict(load.options.get("secrets") or {})

    async def open(self) -> None:
        """Make ready to send; a target that does not answer yet is no error here."""

    @abstractmethod
    async def turn(self, turn: Turn) -> None:
        """Do one turn: hand each request over to `turn.ask`, and do nothing beside it that takes
        time.
        """

    def kind(self, error: Exception) -> str:
        """A short stable name for how a request failed."""
        return error_kind(error)

    async def close(self) -> None:
        """Close all connections."""

    @classmethod
    def params_type(cls) -> type[P]:
        """The model of its parameters, from `TrafficPlugin[ITS_PARAMS]`."""
        from faultline.injection.selecting import params_of

        return params_of(cls, TrafficPlugin)

    @classmethod
    def target(cls) -> AbstractContextManager[Mapping[str, Any]]:
        """A stand-in that answers, and the parameters that lead to it. It runs in a process of its
        own, which the kit stops and kills. Without one, a real target is given to the kit.
        """
        return nullcontext({})


def problems(spec: PluginTraffic) -> list[Problem]:
    """What is wrong with traffic, as its plug-in says; paths are those of the document. A driver
    that declares no parameters says so when it begins.
    """
    from faultline.injection import extensions

    try:
        kind: Any = extensions.load("faultline.traffic", spec.plugin)
        if isinstance(kind, type) and issubclass(kind, TrafficPlugin):
            made: Any = kind.params_type()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            made.read(spec.params)
    except InvalidParameter as error:
        return [Problem(f"params.{error.field}", error.expected, error.given)]
    except FaultlineError as error:
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Problem("plugin", said, spec.plugin)]
    return []
