"""A search on a real service: how late may the network be until answers take too long?"""

from __future__ import annotations

import statistics
import time

import pytest
from scene import PORT, Scene

from faultline.api.probe import HttpProbe
from faultline.api.search import SearchSpec, SearchState, number_of
from faultline.engine.search import trials
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect
from faultline.probes.prober import begin
from faultline.units import Duration

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.slow]

OBJECTIVE = 0.12  # seconds within which three of four answers have to come
CROSSINGS = 4  # of the delayed device: a connection there and back, a question and its answer
ANSWERS = 4

PROBE = HttpProbe.model_validate(
    {"name": "fast", "type": "http", "url": f"http://127.0.0.1:{PORT}/health", "timeout": "2s"}
)
SPEC = SearchSpec.model_validate(
    {
        "parameter": "latency",
        "low": "4ms",
        "high": "128ms",
        "scale": "log",
        "tolerance": "30%",
        "probes": ["fast"],
        "hold": "500ms",
        "maxTrials": 40,
    }
)


def asked() -> list[float]:
    """How long single questions take, until the answer is known."""
    prober = begin(PROBE)
    found: list[float] = []
    slow = ANSWERS // 4
    while len(found) < ANSWERS and sum(one > OBJECTIVE for one in found) <= slow:
        value = prober.measure().value
        found.append(2.0 if value is None else value)
    prober.close()
    return found


def tried(injector: Injector, latency: object) -> tuple[trials.Answer, list[float]]:
    """One trial: the fault, its effect, the objective, and the undoing."""
    order = Order("network.delay", {"interface": "lo", "latency": latency}, Duration.parse("20s"))
    uid = injector.inject(order).uid
    try:
        answers = asked()
        if injector.observe(uid).effect is not Effect.EFFECTIVE:
            return "no answer", answers
        slow = sum(one > OBJECTIVE for one in answers)
        return ("broke" if slow > ANSWERS // 4 else "held"), answers
    finally:
        injector.recover(uid)


def test_the_latency_that_a_real_service_bears_is_found(scene: Scene) -> None:
    def search() -> tuple[SearchState, float]:
        usual = statistics.median(asked() + asked())
        state = trials.begin(SPEC)
        with Injector(scene.state) as injector:
            while (trial := trials.next_trial(state)) is not None:
                began = time.monotonic()
                outcome, answers = tried(injector, trial.value)
                took = time.monotonic() - began
                print(f"{trial.number:3} {trial.value:>8} {outcome:10} {max(answers):.3f} s")
                state = trials.record(state, trial, outcome, seconds=took)
        return state, usual

    began = time.monotonic()
    state, usual = scene.inside(search)
    found = state.result
    assert found is not None
    true = (OBJECTIVE - usual) / CROSSINGS
    print(f"{found.text}; {true * 1000:.1f} ms by arithmetic; {time.monotonic() - began:.1f} s")
    assert found.answer == "found"
    assert found.borne is not None
    assert found.not_borne is not None
    # The machine needs time of its own for every packet, so a little less is borne than computed.
    assert number_of(found.borne) / 1e9 <= true * 1.05
    assert number_of(found.not_borne) / 1e9 >= true * 0.75
    assert scene.left() == []
