"""Sends a signal to whatever fits, again and again: programs that are started anew are hit anew.

spec: {selection, spared, signal, interval: ns, count: rounds, 0 for as many as fit in, most:
processes of one round}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faultline.errors import Refused
from faultline.kernel.selection import Selection, Spared
from faultline.workers.figures import Figures
from faultline.workers.lifetime import Lifetime


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Send until the rounds are done or it is time to end."""
    life = Lifetime(spec["deadline"])
    figures = Figures(spec["stats"])
    selection, spared = Selection.from_json(spec["selection"]), Spared.from_json(spec["spared"])
    rounds = sent = refused = 0
    while not life.over():
        found = [each for each in selection.find() if not spared.covers(each)]
        if len(found) > spec["most"]:
            refused += 1  # more than were allowed: nobody is hit in this round
            if not rounds:
                raise Refused(f"{len(found)} processes fit, at most {spec['most']} may")
        else:
            sent += sum(each.id.send(spec["signal"]) for each in found)
        rounds += 1
        figures.publish({"rounds": rounds, "sent": sent, "refused": refused})
        if rounds == 1:
            ready({"sent": sent})
        if rounds == spec["count"] or life.wait(spec["interval"] / 1e9):
            break
    return 0
