"""Writes docs/faults/matrix.md from the recorded runs of the fault matrix: python docs/matrix.py

Nothing is filled in by hand. `./run matrix` records: it runs every fault on every kind of place
through the conformance suite and the kill matrix, here and in the second kernel.
"""

from __future__ import annotations

import json
import time
from itertools import product
from pathlib import Path
from typing import Any

from faultline.injection import registry
from faultline.testing.matrix import GROUNDS, order

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "matrix"
PAGE = ROOT / "docs" / "faults" / "matrix.md"
INTRODUCTION = """\
<!-- Made by docs/matrix.py from benchmarks/results/matrix; do not change this page by hand. -->

# What every fault does, measured

Each row is a run of the conformance suite on one kind of place in one kernel: the fault was
planned, injected, measured, recovered and looked for again, and its process was killed with SIGKILL
at points of the injection, after which everything had to be as before.
The place `process` has network, mount and pid namespaces, a root directory and control groups of
its own; `container` is one of containerd with an image of its own and half a processor.

- *effect*: what the fault measured at its target; *error*: how far the value is from the one asked.
- *to effect*, *to absence*: seconds from the call to the end of the first measurement, and from
  `recover` to a look that found nothing. Measuring takes most of it: a share is counted over many
  packets, a level over two seconds.
- *killed*: points at which the injection was killed, and how many of them left nothing.
- *held by*: processes of ours that hold it, their proportional memory, their share of a core.

`./run matrix` measures it anew, and `./run matrix FAULT...` the rows of these faults.
"""
NOT_YET = "not measured yet"


def recorded() -> list[dict[str, Any]]:
    """The recorded runs, by kernel."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def line(*cells: object) -> str:
    return "| " + " | ".join(" ".join(str(c).split()).replace("|", "\\|") for c in cells) + " |"


def share(row: dict[str, Any]) -> str:
    if not row["asked"] or row["measured"] is None:
        return ""
    return f"{100 * abs(row['measured'] - row['asked']) / row['asked']:.1f} %"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def holders(row: dict[str, Any]) -> str:
    if not row["holders"]:
        return "the kernel or a file"
    size = row["holder_memory"] / 2**20
    return f"{row['holders']}: {size:.1f} MiB, {100 * row['holder_cpu']:.0f} %"


def effect(row: dict[str, Any]) -> str:
    """What came of it, in one cell; a fault that failed has its reason there."""
    if row["why"]:
        return f"not here: {row['why']}"
    return "; ".join(dict.fromkeys(row["complaints"])) or row["effect"]


def cells(row: dict[str, Any]) -> list[object]:
    if row["why"] or not row["end"]:
        return [row["fault"], row["place"], effect(row), *[""] * (len(HEAD) - 3)]
    return [
        row["fault"],
        row["place"],
        effect(row),
        share(row),
        seconds(row["to_effect"]),
        seconds(row["to_absence"]),
        row["end"],
        "; ".join(row["residue"]) or "none",
        f"{row['survived']} of {row['kill_points']}" if row["kill_points"] else "",
        holders(row),
    ]


HEAD = (
    "fault", "place", "effect", "error", "to effect", "to absence", "end", "residue", "killed",
    "held by",
)  # fmt: skip


def section(run: dict[str, Any]) -> list[str]:
    kernel, rows = run["kernel"], run["rows"]
    ran = [row for row in rows if not row["why"]]
    good = [row for row in ran if not row["complaints"]]
    points, survived = (sum(row[key] for row in ran) for key in ("kill_points", "survived"))
    told = f"{len(ran)} of {len(rows)} rows ran, {len(good)} without complaint; "
    told += f"killed {points} times, nothing left {survived} times."
    days = [time.strftime("%Y-%m-%d", time.gmtime(row["time"])) for row in rows]
    when = " to ".join(sorted({min(days), max(days)}))
    title = f"Linux {kernel['release']}, {kernel['machine']}, control groups {kernel['cgroups']}"
    by_place = {(row["fault"], row["place"]): line(*cells(row)) for row in rows}
    for pair in product(registry.everything(), GROUNDS):
        by_place.setdefault(pair, line(*pair, NOT_YET, *[""] * (len(HEAD) - 3)))
    return [
        f"## {title}",
        "",
        f"{kernel['cores']} cores, {when}. {told}",
        "",
        line(*HEAD),
        "|" + "---|" * len(HEAD),
        *(by_place[pair] for pair in sorted(by_place, key=order)),
        "",
    ]


def page() -> str:
    lines = [INTRODUCTION]
    for run in recorded():
        lines += section(run)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
