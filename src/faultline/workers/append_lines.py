"""Appends lines to a file at a rate and keeps a book of where they stand.

spec: {path, template, interval: ns, count: lines, 0 for as many as fit
in}.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from faultline.errors import ApplyFailed, TargetGone
from faultline.kernel import clock
from faultline.kernel.mark import Mark
from faultline.workers import line_template
from faultline.workers.figures import Figures
from faultline.workers.lifetime import Lifetime
from faultline.workers.line_ledger import Ledger

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


def main(spec: dict[str, Any], ready: Callable[[dict[str, Any]], None]) -> int:
    """Append until the lines are written or it is time to end."""
    life = Lifetime(spec["deadline"])
    figures = Figures(spec["stats"])
    mark = Mark.read(spec["mark"])
    if mark is None:
        raise ApplyFailed(f"{spec['mark']} is not a mark")
    folder = os.path.dirname(spec["path"])
    ledger = Ledger.open(os.open(f"{folder}/.faultline-{mark.uid}-0.lines", os.O_RDWR | _SAFE))
    if ledger is None:
        raise ApplyFailed("the book of lines was not finished")
    target = os.open(spec["path"], os.O_RDWR | os.O_APPEND | _SAFE)
    info = os.fstat(target)
    if (info.st_ino, info.st_dev) != (ledger.inode, ledger.device):
        raise TargetGone(f"{spec['path']} was replaced by another file since the plan was made")
    wanted = min(spec["count"] or ledger.slots, ledger.slots)
    begun = clock.now()
    lines = failed = 0
    for n in range(wanted):
        text = line_template.fill(spec["template"], datetime.now(UTC).astimezone(), n + 1, mark.uid)
        try:
            ledger.append(lines, target, text)
            lines += 1
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            failed += 1
        figures.publish({"lines": lines, "failed": failed, "begun": begun})
        if n == 0:
            ready({"lines": lines})
        # Against the start and not against the last line: a late line does not slow down the rest.
        due = begun + (n + 1) * spec["interval"]
        if life.wait(max(0, due - clock.now()) / 1e9):
            break
    return 0
