"""Appends lines to a file at a rate and keeps a book of where they stand.

spec: {path, template, interval: ns, count: lines, 0 for as many as fit in, follow: whether to go
on in the file that has the name after a rotation, ramp: ns until the rate is reached, share: 0..1
of the lines that are made from `template`, others: the template of the rest, latency and
other_latency: {low: ns, mean: ns, shape} that `{latency}` is drawn from, seed: of these draws}; all
but the first four may be left out.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from faultline.errors import ApplyFailed
from faultline.kernel import clock, files
from faultline.kernel.mark import Mark
from faultline.workers import line_course, line_template
from faultline.workers.figures import Figures
from faultline.workers.join import root_of
from faultline.workers.lifetime import Lifetime
from faultline.workers.line_book import Book

_NO_LATENCY = {"low": 0, "mean": 0, "shape": "constant"}


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Append until the lines are written or it is time to end."""
    life = Lifetime(spec["deadline"])
    figures = Figures(spec["stats"])
    mark = Mark.read(spec["mark"])
    if mark is None:
        raise ApplyFailed(f"{spec['mark']} is not a mark")
    where, name = os.path.split(spec["path"])
    follow = spec.get("follow", False)
    book = Book(files.open_folder(where, root_of(spec)), name, mark.uid, follow=follow)
    wanted = min(spec["count"] or book.left, book.left)
    begun = clock.now()
    book.begin(begun)
    lines = failed = 0
    rng = random.Random(spec.get("seed"))
    for n in range(wanted):
        if book.append(_line(spec, n, mark.uid, rng.random())):
            lines += 1
        else:
            failed += 1
        # Against the start and not against the last line: a late line does not slow down the rest.
        due = begun + line_course.due(n + 1, spec["interval"], spec.get("ramp", 0))
        pause = max(0, due - clock.now()) / 1e9
        if n == 0 or pause or n + 1 == wanted:
            figures.publish({"lines": lines, "failed": failed, "begun": begun})
        if n == 0:
            ready({"lines": lines})
        if life.wait(pause):
            break
    return 0


def _line(spec: dict[str, Any], n: int, uid: str, drawn: float) -> bytes:
    """Line number `n`, counted from 0; `drawn` is from 0 to below 1."""
    share: float = spec.get("share", 1.0)
    first = line_course.chosen(n, share)
    course: dict[str, Any] = spec.get("latency" if first else "other_latency") or _NO_LATENCY
    latency = line_course.latency(course["shape"], course["low"], course["mean"], drawn)
    template: str = spec["template"] if first else spec["others"]
    return line_template.fill(template, datetime.now(UTC).astimezone(), n + 1, uid, latency)
