"""The conformance suite for a plug-in in any language: its manifest's examples, tried for real."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from unittest import mock

from faultline.errors import InvalidParameter, UnknownName
from faultline.injection import manifest, registry, samples, trial
from faultline.injection.manifest import Manifest, Parameter
from faultline.places.model import HOST
from faultline.testing import conformance, extensions

FAULT = "custom.run"
_GROUND = {"{folder}": "/scratch", "{pid}": "2", "{disk}": "/disk", "{device}": "7:0"}
HURT = ("one", "both", "stopped")


def check(path: Path, kind: str = HOST, kills: int = 0, seed: int = 1) -> dict[str, list[str]]:
    """What was checked, with its complaints; all lists empty when the program conforms.

    The manifest and what lies beside it is copied into a folder that is allowed for the check, so
    that it can be made where the program is written. `kills` is at how many random steps of each
    example the injecting process is killed; below 0: at every one.
    """
    if not path.is_file() and ":" in str(path):
        return extensions.check_installed(str(path))
    if not path.is_file():
        raise UnknownName(f"there is no manifest {path}", hint="name a file such as ./mine.toml")
    told: dict[str, list[str]] = {}
    with samples.plugins(path.parent):
        found, copied = manifest.load(path.stem)
        told["parameters"] = wrong_parameters(found)
        if told["parameters"]:
            return told
        if found.kind != "fault":
            return {**told, **extensions.check(found, copied)}
        for number, values in enumerate(found.examples, 1):
            with _example(found, values):
                name = f"example {number}"
                told[name] = conformance.check(FAULT, kind)
                if kills and not told[name]:
                    steps = max(kills, 0)
                    told[f"{name}, killed"] = conformance.check_killed_injector(
                        FAULT, steps, seed, kind
                    )
                    for how in HURT:
                        told[f"{name}, keepers: {how}"] = conformance.check_killed_keepers(
                            FAULT, how, kind
                        )
    return told


@contextlib.contextmanager
def _example(found: Manifest, values: dict[str, str]) -> Generator[None]:
    """Has the suite try this example of this manifest instead of the sample."""
    words = shlex.join(f"{name}={value}" for name, value in values.items())
    example = {"plugin": found.name, **({"parameters": words} if words else {})}
    fault = type(registry.get(FAULT))
    with mock.patch.multiple(fault, example=example, scratch="none"):
        yield


def wrong_parameters(found: Manifest) -> list[str]:
    """Complaints about examples that are refused, and about bad values that are not."""
    complaints: list[str] = []
    examples = [trial.filled(each, _GROUND) for each in found.examples]
    for number, values in enumerate(examples, 1):
        if error := _refusal(lambda v=values: found.values_of(v)):
            complaints.append(f"example {number}: {error}")
    good = examples[0]
    for name, parameter in found.parameters.items():
        complaints += [
            f"{name}={bad!r} was accepted"
            for bad in bad_values(parameter)
            if not _refusal(lambda n=name, b=bad: found.values_of({**good, n: b}))
        ]
    if not _refusal(lambda: found.values_of({**good, "no_such_parameter": "1"})):
        complaints.append("an unknown parameter was accepted")
    return complaints


def bad_values(parameter: Parameter) -> list[str]:
    """Text that a parameter must refuse, from its own type and bounds."""
    if parameter.type in ("integer", "number"):
        low, high = (float(str(each)) for each in (parameter.low, parameter.high))
        return [f"{low - 1:g}", f"{high + 1:g}", "many", "nan", ""]
    return {
        "text": ["\0"],
        "path": ["not/whole", "/up/../there", ""],
        "boolean": ["perhaps"],
        "choice": ["no-such-choice"],
    }.get(parameter.type, ["17", "-1s", "many", "1 parsec", ""])


def _refusal(act: Callable[[], Any]) -> str:
    try:
        act()
    except InvalidParameter as error:
        return error.message
    return ""
