"""The conformance kit for probes and selectors of somebody else: programs, endpoints and packages.

It answers in time, refuses bad parameters, is bounded in what it says, says so when it cannot
measure, and changes nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faultline.api.params import Params
from faultline.api.probe import Measurement
from faultline.changes import program
from faultline.errors import FaultlineError, InvalidParameter, ObserveFailed, Unsupported
from faultline.injection import extensions, selecting, trial
from faultline.injection.manifest import Manifest
from faultline.injection.selecting import Selected, Selector
from faultline.kernel import procfs
from faultline.probes.plugin import ProbePlugin, measured
from faultline.testing import conformance, residue
from faultline.workers.confined import CALL

TIMES = 3
"""How often each example is tried: once for all is not measuring."""
_GROUND = {"{folder}": "/scratch", "{pid}": "2"}
_SLACK = 1.0  # seconds: to start an interpreter and to end a call
_OF_OTHERS = ("process", "cgroup", "mount")  # what others on this machine change at any time


def check(found: Manifest, path: Path) -> dict[str, list[str]]:
    """What was checked of a manifest's plug-in, with its complaints; all empty if it conforms."""
    verb = "measure" if found.kind == "probe" else "select"

    def act(values: Mapping[str, Any]) -> Measurement | Selected:
        with extensions.Called(found, path) as called:
            answer = called.ask(verb, dict(values), found.limits.time.seconds, "conformance")
            lines = _left_running(called.mark)
        if lines:
            raise ObserveFailed(f"it left processes behind: {', '.join(lines)}")
        if found.kind == "probe":
            return measured(answer, found.name)
        return selecting.selected(answer, found.name)

    told = {
        f"example {number}": _tried(act, found, values, good=True)
        for number, values in enumerate(found.examples, 1)
    }
    for number, values in enumerate(found.unmeasurable, 1):
        told[f"unmeasurable {number}"] = _tried(act, found, values, good=False)
    return told


def _tried(
    act: Callable[[Mapping[str, Any]], Measurement | Selected],
    found: Manifest,
    values: Mapping[str, str],
    *,
    good: bool,
) -> list[str]:
    patience = found.limits.time.seconds

    def look() -> list[str]:
        with trial.plain_ground() as (folder, known):
            given = found.values_of(trial.filled(dict(values), known))
            return looked(lambda: act(given), folder, patience, good=good)

    return conformance.isolated(look)


def looked(
    act: Callable[[], Measurement | Selected], folder: Path, patience: float, *, good: bool
) -> list[str]:
    """Complaints about calls that should measure (or select), or should say that they cannot."""
    complaints: list[str] = []
    for _ in range(TIMES):
        before, files = residue.snapshot(folders=[folder]), conformance.files_of(folder)
        begun = time.monotonic()
        try:
            complaints += _judged(act(), good=good)
        except ObserveFailed as error:
            complaints += [error.message] if good else []
        except FaultlineError as error:
            complaints.append(f"{type(error).__name__}: {error.message}")
        took = time.monotonic() - begun
        if took > patience + _SLACK:
            complaints.append(f"it took {took:.1f} s, {patience:g} s are allowed")
        lines = residue.difference(before, residue.snapshot(folders=[folder]))
        others = tuple(f"{sign} {area}" for sign in "+-" for area in _OF_OTHERS)
        complaints += [f"it changed: {line}" for line in lines if not line.startswith(others)]
        after = conformance.files_of(folder)
        complaints += [f"it changed: {line}" for line in conformance.changed(files, after)]
        if complaints:
            break
    return complaints


def _judged(answer: Measurement | Selected, *, good: bool) -> list[str]:
    if isinstance(answer, Selected):
        return []
    if good and answer.ok is None:
        return [f"it could not measure: {answer.text}"]
    if good and answer.value is None:
        return [f"it gave no value: {answer.text}"]
    if not good and answer.ok is not None:
        return [f"it cannot measure there, and answered ok: {answer.ok}, value: {answer.value}"]
    if not good and not answer.text:
        return ["it does not say why it cannot measure"]
    return []


def _left_running(mark: str) -> list[str]:
    """What a call has left behind, ended; also what has left its session."""
    left: list[str] = []
    if count := program.end_calls(mark):
        left.append(f"{count} of its session")
    for process in procfs.find_by_environment(CALL):
        if procfs.environment(process.pid).get(CALL, "").startswith(f"{mark} "):
            left.append(f"{process.name} ({process.pid})")
            process.id.send(signal.SIGKILL)
    return left


# ---------------------------------------------------------------------- packages


def check_probe(plugin: type[ProbePlugin[Any]], patience: float = 5.0) -> dict[str, list[str]]:
    """The same for the class of a package; its `example` and `unmeasurable` are tried."""
    told = {"parameters": _wrong_params(plugin.params_type(), plugin.example)}
    if told["parameters"]:
        return told
    told["example"] = _tried_class(plugin, plugin.example, patience, good=True)
    if plugin.unmeasurable is None:
        told["unmeasurable"] = ["it names no parameters with which it cannot measure"]
    else:
        told["unmeasurable"] = _tried_class(plugin, plugin.unmeasurable, patience, good=False)
    return told


def check_selector(plugin: type[Selector[Any]], patience: float = 5.0) -> dict[str, list[str]]:
    """The same for a selector of a package."""
    told = {"parameters": _wrong_params(plugin.params_type(), plugin.example)}
    if not told["parameters"]:
        told["example"] = _tried_class(plugin, plugin.example, patience, good=True)
    return told


def _tried_class(
    plugin: type[ProbePlugin[Any]] | type[Selector[Any]],
    values: Mapping[str, Any],
    patience: float,
    *,
    good: bool,
) -> list[str]:
    def look() -> list[str]:
        with trial.plain_ground() as (folder, known):
            params = plugin.params_type().read(_filled(values, known))
            made = plugin(params)
            try:
                if isinstance(made, Selector):
                    return looked(
                        lambda: selecting.bounded(made.select(patience), plugin.__name__),
                        folder,
                        patience,
                        good=good,
                    )
                return looked(lambda: made.measure(patience), folder, patience, good=good)
            finally:
                if isinstance(made, ProbePlugin):
                    made.close()
                    made.close()

    return conformance.isolated(look)


def _wrong_params(model: type[Params], example: Mapping[str, Any]) -> list[str]:
    """Complaints about an example that is refused, and about bad values that are not."""
    values = _filled(example, _GROUND)
    if error := _refusal(model, values):
        return [f"the example is refused: {error}"]
    bad = [
        (name, value)
        for name, info in model.model_fields.items()
        for value in conformance.bad_values(info)
    ]
    complaints = [
        f"{name}={value!r} was accepted"
        for name, value in bad
        if not _refusal(model, {**values, name: value})
    ]
    if not _refusal(model, {**values, "no_such_parameter": "1"}):
        complaints.append("an unknown parameter was accepted")
    return complaints


def _refusal(model: type[Params], values: dict[str, Any]) -> str:
    try:
        model.read(values)
    except InvalidParameter as error:
        return error.message
    return ""


def _filled(values: Mapping[str, Any], known: dict[str, str]) -> dict[str, Any]:
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    return {**values, **trial.filled(texts, known)}


def check_installed(name: str) -> dict[str, list[str]]:
    """The check of `probes:NAME`, `selectors:NAME` or `traffic:NAME`; raises UnknownName."""
    group, _, plugin = name.partition(":")
    if group == "probes":
        return check_probe(extensions.load("faultline.probes", plugin))
    if group == "selectors":
        return check_selector(extensions.load("faultline.selectors", plugin))
    if group == "traffic":
        from faultline.testing.traffic_kit import check_traffic

        return check_traffic(extensions.load("faultline.traffic", plugin))
    raise Unsupported(f"there is no kit for {group!r}: probes:NAME, selectors:NAME, traffic:NAME")
