"""What all probes share: an answer is a value, silence is a failure, and no answer of our own is
`unmeasured`.

A service that refuses, times out or answers wrongly is what a probe exists to see: `ok` is False. A
probe that could not do its work (a Prometheus that is down, a program that is not installed) says
nothing about the service: `ok` is None, with the reason. Neither is ever rounded into the other.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Generic, Self, TypeVar, cast, get_args

from faultline.api.probe import Measurement, ProbeBase, ProbeSpec
from faultline.api.traffic import TrafficFigures
from faultline.errors import Bug, ObserveFailed
from faultline.probes.limit import Limit, NoAnswer
from faultline.units import Duration

Figures = Callable[[str, Duration], TrafficFigures | None]
"""The figures of the named traffic over its last seconds; None if there are none."""

S = TypeVar("S", bound=ProbeBase)

_LINE = 300  # characters of a text for people


class Prober(Generic[S]):
    """One probe at work: it may keep state between measurements, and `close` lets go of it.

    One thread at a time. What counts "since the start" counts from the making of the prober.
    """

    def __init__(self, spec: S, traffic: Figures | None = None) -> None:
        self.spec = spec
        self.traffic = traffic

    @abstractmethod
    def look(self, limit: Limit) -> Measurement:
        """Measure once; raises NoAnswer (of the service) or ObserveFailed (of the probe)."""

    def measure(self, timeout: Duration | None = None) -> Measurement:
        """Measure once within the time-out (the probe's own); failure is an answer, not raised."""
        begun = time.monotonic()
        try:
            found = self.look(Limit((timeout or self.spec.timeout).seconds))
        except NoAnswer as error:
            found = Measurement(ok=False, text=str(error))
        except ObserveFailed as error:
            found = Measurement(ok=None, text=error.message)
        found.text = " ".join(found.text.split())[:_LINE]
        if found.latency is None:
            found.latency = time.monotonic() - begun
        return found

    def close(self) -> None:
        """Let go of files and connections. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def types() -> list[str]:
    """The types of probes that there are, in the order of the documents."""
    models = cast("tuple[type[ProbeBase], ...]", get_args(get_args(ProbeSpec)[0]))
    return [str(get_args(model.model_fields["type"].annotation)[0]) for model in models]


def begin(spec: ProbeBase, traffic: Figures | None = None) -> Prober[ProbeBase]:
    """Make the prober of a probe; raises ObserveFailed if it cannot work here at all.

    `traffic` gives the figures of the loads of the same experiment, for the probes that read them.
    """
    kind = str(getattr(spec, "type", ""))
    if kind not in types():
        raise Bug(f"there is no probe of type {kind!r}")
    module = import_module(f"faultline.probes.{kind}")
    return module.Prober(spec, traffic)


class Probers:
    """The probes of one run of an experiment; each is begun when it is first measured."""

    def __init__(self, traffic: Figures | None = None) -> None:
        self._traffic = traffic
        self._at_work: dict[str, Prober[ProbeBase]] = {}

    def measure(self, spec: ProbeBase, timeout: Duration | None = None) -> Measurement:
        """Measure one probe once; different probes may be measured in different threads."""
        if spec.name not in self._at_work:
            try:
                self._at_work[spec.name] = begin(spec, self._traffic)
            except ObserveFailed as error:
                return Measurement(ok=None, text=error.message)
        return self._at_work[spec.name].measure(timeout)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        while self._at_work:
            self._at_work.popitem()[1].close()


def quoted(text: str) -> str:
    """A piece of a text for a message: one line, not long."""
    line = " ".join(text.split())
    return repr(line[:120]) if line else "nothing"
