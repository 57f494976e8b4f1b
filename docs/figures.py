"""Writes docs/figures.md from the newest recorded run of the benchmarks: python docs/figures.py

No figure is typed by hand. A run is recorded with `./run bench -o benchmarks/results/NAME.json`;
a test makes the page again in memory and compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "figures.md"
NAMES = {"load": "load average at the end (1, 5, 15 minutes)"}
INTRODUCTION = """\
<!-- Made by docs/figures.py from benchmarks/results; do not change this page by hand. -->

# Figures

Medians or ratios, never a best case; an aim that was missed stays in the table. Each benchmark
runs alone with `python -m benchmarks.NAME`, all of them with `./run bench`. Other tools were not
measured beside this one, so there is no comparison here.
"""


def recorded() -> dict[str, Any]:
    """The newest recorded run."""
    runs = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    return max(runs, key=lambda run: run["machine"]["time"])


def cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def row(*cells: object) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machines(run: dict[str, Any]) -> list[str]:
    """The machine and its second kernel, as a table."""
    lines = [row("", *("run" if not i else "second kernel" for i, _ in enumerate(both(run))))]
    lines.append("|---|" + "---|" * len(both(run)))
    for key in ("time", "kernel", "architecture", "cores", "memory", "python", "faultline", "load"):
        told = [each["machine"][key] for each in both(run)]
        if key == "memory":
            told = [f"{value / 2**30:.1f} GiB" for value in told]
        if key == "load":
            told = [", ".join(map(str, value)) for value in told]
        lines.append(row(NAMES.get(key, key), *told))
    lines.append(row("command", *(f"`{each['command']}`" for each in both(run))))
    return lines


def both(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [run, *([run["second_kernel"]] if "second_kernel" in run else [])]


def section(part: dict[str, Any], where: str) -> list[str]:
    """One benchmark: what it measures, its figures, and what could not be measured."""
    lead, _, rest = part["about"].partition("\n")
    paragraphs = [each for each in rest.split("\n\n") if "python -m" not in each and each.strip()]
    start, end = part["load"]
    when = f"; ended {part['time']}" if "time" in part else ""
    lines = [
        f"### {part['name']}{where}",
        "",
        " ".join(" ".join([lead, *paragraphs]).split()),
        f"Load average {start} before, {end} after{when}.",
        "",
    ]
    if part["figures"]:
        lines += [row("figure", "value", "aim", "n", "spread"), "|---|---|---|---|---|"]
    lines += [
        row(each["name"], f"{number(each['value'])} {each['unit']}", *told(each))
        for each in part["figures"]
    ]
    if part["missing"]:
        lines += ["", "Not measured:", ""]
        lines += [f"- {each['name']}: {each['why']}" for each in part["missing"]]
    return [*lines, ""]


def told(figure: dict[str, Any]) -> tuple[object, ...]:
    return figure["aim"], figure["n"], figure["spread"]


def page(run: dict[str, Any]) -> str:
    """The whole page."""
    lines = [INTRODUCTION, *machines(run), ""]
    for number_, each in enumerate(both(run)):
        lines += ["## In the second kernel" if number_ else "## On the machine", ""]
        for part in each["benchmarks"]:
            lines += section(part, " (second kernel)" if number_ else "")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(recorded()))


if __name__ == "__main__":
    main()
