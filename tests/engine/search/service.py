"""A service whose trials come out at random, with a threshold that is known."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from faultline.engine.search import Done, Entry, Found, Outcome, Settings
from faultline.engine.search.evidence import Ledger
from faultline.engine.search.stepping import step_after


@dataclass(frozen=True)
class Service:
    """Holds with a probability that falls with the value, by a logistic curve."""

    middle: float
    width: float = 0.0
    """Over which distance the curve falls from 3/4 to 1/4; nought: at once."""
    flaky: float = 0.0
    """How often a trial breaks for no reason."""
    lucky: float = 0.0
    """How often one holds for no reason."""
    mute: float = 0.0
    """How often one has no answer."""
    sign: int = 1

    def holds(self, value: float) -> float:
        """The probability of it."""
        apart = self.sign * (value - self.middle)
        if self.width:
            z = max(-700.0, min(700.0, apart / self.width * 2 * math.log(3)))
            plain = 1 / (1 + math.exp(z))
        else:
            plain = 1.0 if apart <= 0 else 0.0
        return self.lucky + (1 - self.flaky - self.lucky) * plain

    def threshold(self, share: float) -> float:
        """The worst value that holds with this probability."""
        plain = (share - self.lucky) / (1 - self.flaky - self.lucky)
        if plain <= 0:
            return self.sign * math.inf
        if plain >= 1:
            return self.sign * -math.inf
        z = math.log(1 / plain - 1)
        return self.middle + self.sign * z * self.width / (2 * math.log(3))

    def answer(self, value: float, rng: random.Random) -> Outcome:
        if rng.random() < self.mute:
            return Outcome.NO_ANSWER
        return Outcome.HELD if rng.random() < self.holds(value) else Outcome.BROKE


def searched(settings: Settings, service: Service, seed: int) -> tuple[Found, list[Entry]]:
    """One whole search."""
    rng = random.Random(seed)
    ledger = Ledger(settings)  # what `next_step` makes anew from the history each time
    while True:
        step = step_after(ledger)
        if isinstance(step, Done):
            return step.result, ledger.history
        outcome = service.answer(step.value, rng)
        ledger.add(Entry(step.value, outcome, settings.hold + settings.waits))


def covered(found: Found, service: Service, settings: Settings) -> bool:
    """Whether the interval has the threshold in it."""
    true = service.threshold(settings.share) * service.sign
    low = -math.inf if found.borne is None else found.borne * service.sign
    high = math.inf if found.not_borne is None else found.not_borne * service.sign
    return low <= true <= high
