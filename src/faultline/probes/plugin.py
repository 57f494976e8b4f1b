"""The plugin probe: a measurement of somebody else's package, program or endpoint.

Whatever goes wrong with it is `unmeasured`: that a program of ours or theirs has failed says
nothing about the service.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar, cast

from faultline.api.document import Problem
from faultline.api.expectation import Unit
from faultline.api.params import Params
from faultline.api.probe import Measurement, PluginProbe
from faultline.errors import FaultlineError, InvalidParameter, ObserveFailed, UsageError
from faultline.injection import extensions, manifest
from faultline.injection.manifest import Manifest
from faultline.injection.selecting import params_of
from faultline.probes import prober
from faultline.probes.apart import Apart
from faultline.probes.limit import Limit, NoAnswer

P = TypeVar("P", bound=Params)
_GROUP = "faultline.probes"


class ProbePlugin(Generic[P]):
    """A probe of an installed package: an entry point `faultline.probes` names its class.

    One instance measures for one probe of one run; it may keep state between measurements.
    """

    summary: ClassVar[str]
    unit: ClassVar[Unit] = ""
    """What its value counts: a plain number, seconds, a share from 0 to 1, bytes."""
    example: ClassVar[dict[str, Any]] = {}
    """Parameters that the conformance kit tries it with."""
    unmeasurable: ClassVar[dict[str, Any] | None] = None
    """Parameters with which it cannot measure, and has to say so."""

    def __init__(self, params: P) -> None:
        self.params = params

    @abstractmethod
    def measure(self, seconds: float) -> Measurement:
        """Measure once within this time. `ok` is None, or ObserveFailed raised, if it cannot."""

    def close(self) -> None:
        """Let go of what it holds. Idempotent."""

    @classmethod
    def params_type(cls) -> type[P]:
        """The model of its parameters, from `ProbePlugin[ITS_PARAMS]`."""
        return params_of(cls, ProbePlugin)


class Prober(prober.Prober[PluginProbe]):
    """Its value is what the plug-in says."""

    def __init__(self, spec: PluginProbe, traffic: prober.Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._apart = Apart(f"plug-in {spec.plugin}")
        self._called: extensions.Called | None = None
        self._plugin: ProbePlugin[Any] | None = None
        self._values: dict[str, Any] = {}
        with self._failures():
            self._begin(spec)

    @contextmanager
    def _failures(self) -> Generator[None]:
        """Whatever a plug-in or its manifest does wrong is that nothing was measured."""
        try:
            yield
        except ObserveFailed:
            raise
        except (FaultlineError, OSError) as error:
            said = error.message if isinstance(error, FaultlineError) else str(error)
            raise ObserveFailed(f"plug-in {self.spec.plugin}: {said}") from error

    def _begin(self, spec: PluginProbe) -> None:
        if extensions.is_manifest(_GROUP, spec.plugin):
            found, path = manifest.load(spec.plugin, "probe")
            self._values = checked(spec, found)
            self._called = extensions.Called(found, path)
        else:
            kind = installed(spec.plugin)
            agrees(spec, kind.unit)
            self._plugin = kind(kind.params_type().read(spec.params, "params"))

    def close(self) -> None:
        if self._called is not None:
            self._called.close()
        if self._plugin is not None:
            self._plugin.close()

    def look(self, limit: Limit) -> Measurement:
        seconds = limit.left()
        if self._called is not None:
            with self._failures():
                asked = self._called.ask("measure", self._values, seconds, self.spec.name)
                return measured(asked, self.spec.plugin)
        plugin = self._plugin
        assert plugin is not None
        try:
            with self._failures():
                return self._apart.run(limit, lambda: plugin.measure(seconds))
        except NoAnswer as error:
            raise ObserveFailed(f"plug-in {self.spec.plugin}: {error}") from error


def installed(name: str) -> type[ProbePlugin[Any]]:
    """The class of a package; raises UnknownName."""
    return extensions.load(_GROUP, name)


def checked(spec: PluginProbe, found: Manifest) -> dict[str, Any]:
    """The parameters as the program gets them; raises InvalidParameter."""
    agrees(spec, found.unit)
    try:
        return found.values_of(spec.params)
    except InvalidParameter as error:
        field, hint = f"params.{error.field}", error.hint
        raise InvalidParameter(field, error.given, error.expected, hint=hint) from error


def agrees(spec: PluginProbe, unit: Unit) -> None:
    """Raise InvalidParameter unless the document has the unit that the plug-in measures in."""
    if spec.measures != unit:
        raise InvalidParameter("measures", spec.measures, repr(unit) + ", which is its unit")


def problems(spec: PluginProbe) -> list[Problem]:
    """What is wrong with a probe, as its plug-in says; paths are those of the document."""
    try:
        if extensions.is_manifest(_GROUP, spec.plugin):
            checked(spec, manifest.load(spec.plugin, "probe")[0])
        else:
            kind = installed(spec.plugin)
            agrees(spec, kind.unit)
            kind.params_type().read(spec.params, "params")
    except InvalidParameter as error:
        return [Problem(error.field, error.expected, error.given)]
    except (UsageError, FaultlineError) as error:
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Problem("plugin", said, spec.plugin)]
    return []


def measured(answer: Mapping[str, Any], name: str) -> Measurement:
    """An answer of the protocol as a measurement; raises ObserveFailed for anything else. Pure."""
    value, since = (_number(answer.get(key), f"{name}: {key}") for key in ("value", "since"))
    ok = answer.get("ok", True if value is not None else None)
    if ok is not None and not isinstance(ok, bool):
        raise ObserveFailed(f"{name}: ok: true, false or null is expected, not {ok!r}")
    result = answer.get("result", {})
    if not isinstance(result, dict):
        raise ObserveFailed(f"{name}: result: an object is expected")
    text = str(answer.get("text", "")) or ("" if ok is not None else "it could not measure")
    told = cast("dict[str, Any]", result)
    return Measurement(value=value, ok=ok, text=text, since=since, result=told)


def _number(given: Any, where: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ObserveFailed(f"{where}: a number or null is expected, not {given!r}")
    return float(given)
