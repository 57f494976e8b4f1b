"""Runs the benchmarks and writes one table and one JSON file: python -m benchmarks [NAME...]

A benchmark is a module here with `measure()`, which yields `Figure`s or raises `NotHere`. Those
with `SECOND_KERNEL = True` run once more under another kernel, where the environment variable
FAULTLINE_SECOND_KERNEL names a program that runs a command there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faultline
from benchmarks.figure import Figure, Missing, NotHere, row

PACKAGE = Path(__file__).parent
OTHER = "FAULTLINE_SECOND_KERNEL"
LIMIT = 1500  # seconds in the second kernel


def benchmarks() -> dict[str, Any]:
    """The modules of this package that measure something, by name."""
    names = [module.name for module in pkgutil.iter_modules([str(PACKAGE)])]
    loaded = {
        name: importlib.import_module(f"benchmarks.{name}") for name in names if name[0] != "_"
    }
    return {name: module for name, module in loaded.items() if hasattr(module, "measure")}


def now() -> str:
    """The time in UTC, for people."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "faultline": faultline.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": [round(load, 2) for load in os.getloadavg()],
        "time": now(),
    }


def one(name: str, module: Any) -> dict[str, Any]:
    """One benchmark with what it found, told as it comes, and how busy the machine was."""
    figures: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    load = os.getloadavg()[0]
    try:
        for found in module.measure():
            print(row(found), flush=True)
            (figures if isinstance(found, Figure) else missing).append(asdict(found))
    except NotHere as why:
        missing.append(asdict(Missing(name, str(why))))
        print(f"{name}: not measured here: {why}", flush=True)
    return {
        "name": name,
        "time": now(),
        "about": (module.__doc__ or "").strip(),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "figures": figures,
        "missing": missing,
    }


def in_second_kernel(program: str, names: list[str]) -> dict[str, Any] | None:
    """The same document from there; None, with the words of the run, where it gave none."""
    answer = Path("build") / f"benchmarks-second-{os.getpid()}.json"
    answer.parent.mkdir(exist_ok=True)
    words = [program, "--timeout", str(LIMIT), "--", "env", "-u", OTHER, sys.executable]
    subprocess.run([*words, "-m", "benchmarks", "-o", str(answer), *names], check=False)
    try:
        return json.loads(answer.read_text())
    except FileNotFoundError:
        print("the second kernel gave no figures back; its words are above", flush=True)
        return None
    finally:
        answer.unlink(missing_ok=True)


def updated(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """An earlier document with what was measured again in the place of what was there."""
    parts = {part["name"]: part for part in [*old["benchmarks"], *new["benchmarks"]]}
    found = {**old, **new, "benchmarks": [parts[name] for name in sorted(parts)]}
    found["command"] = f"{old['command']}; {new['command']} --update"
    if "second_kernel" in old and "second_kernel" in new:
        found["second_kernel"] = updated(old["second_kernel"], new["second_kernel"])
    return found


def main() -> int:
    """Run what was asked for, or everything."""
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/benchmarks.json"))
    parser.add_argument(
        "--update", action="store_true", help="keep what else an earlier run wrote to the output"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in known]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = {name: known[name] for name in asked.names or known}
    found: dict[str, Any] = {
        "command": " ".join(["./run bench", *asked.names]),
        "machine": machine(),
        "benchmarks": [one(name, module) for name, module in chosen.items()],
    }
    there = [name for name, module in chosen.items() if hasattr(module, "SECOND_KERNEL")]
    program = os.environ.get(OTHER)
    if program and there:
        print(f"in the second kernel: {', '.join(there)}", flush=True)
        answer = in_second_kernel(program, there)
        if answer is not None:
            found["second_kernel"] = answer
    if asked.update and asked.output.exists():
        found = updated(json.loads(asked.output.read_text()), found)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {asked.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
