"""What all probes share: an answer is a value, silence is a failure, and no answer of our own is
`unmeasured`.

A service that refuses, times out or answers wrongly is what a probe exists to see: `ok` is False. A
probe that could not do its work (a Prometheus that is down, a program that is not installed) says
nothing about the service: `ok` is None, with the reason. Neither is ever rounded into the other.
"""

from __future__ import annotations

import base64
import json
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, get_args
from urllib.parse import quote, quote_plus

from faultline.api.probe import Measurement, ProbeBase, ProbeSpec
from faultline.api.secret import SecretRef
from faultline.api.signals import Signal
from faultline.api.traffic import TrafficFigures
from faultline.errors import Bug, ObserveFailed
from faultline.probes.limit import Limit, NoAnswer
from faultline.units import Duration

if TYPE_CHECKING:
    from faultline.kubeapi.model import Rest

Figures = Callable[[str, Duration], TrafficFigures | None]
"""The figures of the named traffic over its last seconds; None if there are none."""

Reach = Callable[[], "Rest"]
"""Makes a connection to the cluster that is meant where a probe names none."""

Signals = Callable[[], Sequence[Signal]]
"""What people and tools have reported to the run so far."""

S = TypeVar("S", bound=ProbeBase)

_LINE = 300  # characters of a text for people


class Prober(Generic[S]):
    """One probe at work: it may keep state between measurements, and `close` lets go of it.

    One thread at a time. What counts "since the start" counts from the making of the prober.
    """

    def __init__(self, spec: S, traffic: Figures | None = None) -> None:
        self.spec = spec
        self.traffic = traffic
        self.signals: Signals | None = None
        self.reach: Reach | None = None
        self._hidden: set[str] = set()

    @abstractmethod
    def look(self, limit: Limit) -> Measurement:
        """Measure once; raises NoAnswer (of the service) or ObserveFailed (of the probe)."""

    def measure(self, timeout: Duration | None = None) -> Measurement:
        """Measure once within the time-out (the probe's own); failure is an answer, not raised."""
        return self.measure_within(Limit((timeout or self.spec.timeout).seconds))

    def measure_within(self, limit: Limit) -> Measurement:
        """The same within a limit that others share."""
        begun = time.monotonic()
        try:
            found = self.look(limit)
        except NoAnswer as error:
            found = Measurement(ok=False, text=str(error))
        except ObserveFailed as error:
            found = Measurement(ok=None, text=error.message)
        found.text = " ".join(self.redacted(found.text).split())[:_LINE]
        if self._hidden:
            found.result = self._redacted_all(found.result)
        if found.latency is None:
            found.latency = time.monotonic() - begun
        return found

    # ------------------------------------------------------------------ secrets

    def secret(self, given: str | SecretRef) -> str:
        """The text that stands there or that the reference leads to; a secret is shown nowhere."""
        if isinstance(given, str):
            return given
        found = given.resolve()
        self.hide(found)
        return found

    def hide(self, text: str) -> None:
        """Do not show this text, in any of the forms in which answers may repeat it."""
        raw = text.encode()
        forms = {text, quote(text), quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1]}
        forms |= {base64.b64encode(raw).decode(), raw.hex(), " ".join(text.split())}
        self._hidden |= {form for form in forms if form}

    def redacted(self, text: str) -> str:
        """A text without secrets. To be called before a text is cut."""
        for hidden in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(hidden, "***")
        return text

    def _redacted_all(self, data: Any) -> Any:
        if isinstance(data, str):
            return self.redacted(data)
        if isinstance(data, dict):
            entries = cast("dict[str, Any]", data)
            return {self.redacted(key): self._redacted_all(each) for key, each in entries.items()}
        if isinstance(data, list):
            return [self._redacted_all(each) for each in cast("list[Any]", data)]
        return data

    def quoted(self, text: str) -> str:
        """A piece of an answer for a message, without secrets."""
        return quoted(self.redacted(text))

    def recall(self, kept: dict[str, Any]) -> None:
        """Go on where an earlier prober of the same probe ended: `kept` is the last `keep` of its
        measurements. Called before the first measurement.
        """

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


def begin(
    spec: ProbeBase,
    traffic: Figures | None = None,
    signals: Signals | None = None,
    reach: Reach | None = None,
) -> Prober[ProbeBase]:
    """Make the prober of a probe; raises ObserveFailed if it cannot work here at all.

    `traffic` gives the figures of the loads of the same experiment, `signals` what was reported to
    the run, for the probes that read them.
    """
    kind = str(getattr(spec, "type", ""))
    if kind not in types():
        raise Bug(f"there is no probe of type {kind!r}")
    module = import_module(f"faultline.probes.{kind}")
    made: Prober[ProbeBase] = module.Prober(spec, traffic)
    made.signals, made.reach = signals, reach
    return made


class Probers:
    """The probes of one run of an experiment; each is begun when it is first measured."""

    def __init__(
        self,
        traffic: Figures | None = None,
        signals: Signals | None = None,
        reach: Reach | None = None,
    ) -> None:
        """`reach` connects to the cluster that is meant where a probe names none."""
        self._traffic, self._signals, self._reach = traffic, signals, reach
        self._at_work: dict[str, Prober[ProbeBase]] = {}

    def measure(
        self,
        spec: ProbeBase,
        timeout: Duration | None = None,
        kept: dict[str, Any] | None = None,
    ) -> Measurement:
        """Measure one probe once; different probes may be measured in different threads.

        `kept` is the last `keep` of this probe, in case that another engine has measured it.
        """
        if spec.name not in self._at_work:
            try:
                begun = begin(spec, self._traffic, self._signals, self._reach)
                if kept:
                    begun.recall(kept)
            except ObserveFailed as error:
                return Measurement(ok=None, text=error.message)
            self._at_work[spec.name] = begun
        return self._at_work[spec.name].measure(timeout)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        while self._at_work:
            self._at_work.popitem()[1].close()


def quoted(text: str) -> str:
    """A piece of a text for a message: one line, not long."""
    line = " ".join(text.split())
    return repr(line[:120]) if line else "nothing"


def not_installed(what: str, extra: str) -> ObserveFailed:
    """What to raise where a library that this probe needs is not there."""
    return ObserveFailed(f"{what} is not installed: pip install 'faultline[{extra}]'")
