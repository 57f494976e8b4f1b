"""How many trials a search takes, and how often its interval is right, on simulated services.

The range is 0 to 1000 and the tolerance 10: halving alone would take seven trials. A trial of a
flaky service goes wrong by chance, with the same probability on both sides of the threshold; a
gradual one falls from 3/4 to 1/4 of held trials over the distance given. The confidence is 90%.

python -m benchmarks.search
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import replace

from tests.engine.search.service import Service, covered, searched

from benchmarks.figure import Figure, Measured, alone
from faultline.engine.search import Settings, Why

SEARCHES = 200
SETTINGS = Settings(0, 1000, 10, step=1, trials=200)
SERVICES: tuple[tuple[str, Service], ...] = (
    ("clear", Service(0)),
    ("flaky, 2% of the trials", Service(0, flaky=0.02, lucky=0.02)),
    ("flaky, 5%", Service(0, flaky=0.05, lucky=0.05)),
    ("flaky, 10%", Service(0, flaky=0.1, lucky=0.1)),
    ("flaky, 20%", Service(0, flaky=0.2, lucky=0.2)),
    ("gradual over half the tolerance", Service(0, width=5)),
    ("gradual over three times the tolerance", Service(0, width=30)),
)


def measure() -> Measured:
    """The same searches for each kind of service, with thresholds all over the range."""
    spent: list[float] = []
    for label, kind in SERVICES:
        trials: list[float] = []
        right = narrow = 0
        widths: list[float] = []
        for seed in range(SEARCHES):
            service = replace(kind, middle=random.Random(seed).uniform(20, 980))
            began = time.perf_counter()
            found, history = searched(replace(SETTINGS, seed=seed), service, seed)
            spent.append((time.perf_counter() - began) * 1000 / len(history))
            right += covered(found, service, SETTINGS)
            narrow += found.why is Why.NARROW
            trials.append(len(history))
            low = 0.0 if found.borne is None else found.borne
            high = 1000.0 if found.not_borne is None else found.not_borne
            widths.append(high - low)
        deciles = statistics.quantiles(trials, n=10)
        spread = f"{deciles[0]:.0f} to {deciles[8]:.0f} in 80%"
        name = f"search: {label}"
        yield Figure(f"{name}: trials", statistics.mean(trials), "", "", spread, SEARCHES)
        yield Figure(f"{name}: interval right", right / SEARCHES, "", "at least 0.9", n=SEARCHES)
        yield Figure(f"{name}: as narrow as asked", narrow / SEARCHES, "", n=SEARCHES)
        middle = statistics.median(widths)
        yield Figure(f"{name}: width of the interval", middle, "", "10", n=SEARCHES)
    yield Figure("search: choosing one trial", statistics.median(spent), "ms", "", n=len(spent))


if __name__ == "__main__":
    raise SystemExit(alone(measure))
