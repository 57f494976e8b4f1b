"""Plug-ins of packages, selectors, and the kit that tries what somebody else has written."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import TypeAdapter
from tests.probes.written import says, write

from faultline.api.params import Params
from faultline.api.probe import Measurement, ProbeSpec
from faultline.api.quantities import Between
from faultline.api.targets import TargetSpec
from faultline.errors import InvalidParameter, ObserveFailed, UnknownName
from faultline.injection import extensions, manifest, samples
from faultline.injection.selecting import Selected, Selector, select, selected
from faultline.probes.plugin import ProbePlugin, problems
from faultline.testing import extensions as kit
from faultline.testing import plugins

Measure = Callable[..., Measurement]
READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "plugins"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder from which programs may be run."""
    with samples.plugins() as found:
        yield found


@pytest.fixture
def program(folder: Path) -> Callable[..., Path]:
    """Writes a program and its manifest."""
    return partial(write, folder)


# ---------------------------------------------------------------------- packages


class SizeParams(Params):
    path: str
    """The file."""
    wait: Annotated[int, Between(0, 60)] = 0
    """Seconds before it answers."""


class Size(ProbePlugin[SizeParams]):
    """A probe of a package."""

    summary = "The size of a file"
    unit = "B"
    example: ClassVar[dict[str, Any]] = {"path": "{folder}/app.log"}
    unmeasurable: ClassVar[dict[str, Any] | None] = {"path": "{folder}/not-there"}

    def measure(self, seconds: float) -> Measurement:
        time.sleep(self.params.wait)
        try:
            size = os.stat(self.params.path).st_size  # noqa: PTH116
        except OSError as error:
            raise ObserveFailed(f"{self.params.path}: {error.strerror}") from error
        return Measurement(value=float(size), ok=True, text=f"{size} bytes")


class OddParams(Params):
    level: Annotated[int, Between(0, 5)] = 0
    """How odd."""


class Careless(ProbePlugin[OddParams]):
    """Does everything that the kit looks for."""

    summary = "Wrong in every way"
    example: ClassVar[dict[str, Any]] = {"level": 1}
    unmeasurable: ClassVar[dict[str, Any] | None] = {"level": 5}

    def measure(self, seconds: float) -> Measurement:
        trials = Path("/tmp").glob("faultline-trial-*/app")
        folder = max(trials, key=lambda each: each.stat().st_ctime_ns)  # ours is the newest
        (folder / f"left-{time.monotonic_ns()}").write_text("here")
        return Measurement(value=1.0, ok=True)


class Everything(Selector[OddParams]):
    """Selects itself."""

    summary = "This process"
    example: ClassVar[dict[str, Any]] = {}

    def select(self, seconds: float) -> Selected:
        return Selected((TargetSpec(pid=os.getpid()),), text="myself")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if packages were there that bring these."""
    points = {
        "faultline.probes": {"size": Size, "careless": Careless},
        "faultline.selectors": {"me": Everything},
    }
    known = {
        group: {name: EntryPoint(name, f"{kind.__module__}:{kind.__name__}", group)
                for name, kind in each.items()}
        for group, each in points.items()
    }  # fmt: skip
    monkeypatch.setattr(extensions, "installed", lambda group: known.get(group, {}))
    monkeypatch.setattr(EntryPoint, "load", lambda point: points[point.group][point.name])


@pytest.mark.usefixtures("installed", "folder")
def test_a_package_measures(measure: Measure, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("12345")
    found = measure("plugin", plugin="size", measures="B", params={"path": str(path)})
    assert (found.ok, found.value, found.text) == (True, 5.0, "5 bytes")
    gone = measure("plugin", plugin="size", measures="B", params={"path": str(tmp_path / "none")})
    assert (gone.ok, gone.value) == (None, None)
    late = measure(
        "plugin", plugin="size", measures="B", params={"path": "/", "wait": 2}, timeout="100ms"
    )
    assert (late.ok, "no answer within" in late.text) == (None, True)


@pytest.mark.usefixtures("installed", "folder")
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"plugin": "size", "params": {}}, "measures"),
        ({"plugin": "size", "measures": "B", "params": {}}, "params.path"),
        ({"plugin": "size", "measures": "B", "params": {"path": "/", "wait": 99}}, "params.wait"),
        ({"plugin": "siize"}, "plugin"),
    ],
)
def test_the_model_of_a_package_says_what_is_wrong(fields: dict[str, Any], path: str) -> None:
    spec = READ.validate_python({"name": "it", "type": "plugin", **fields})
    assert [one.path for one in problems(spec)] == [path]


def test_a_name_that_two_claim_is_refused(
    program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    program(says({"value": 1}))
    point = EntryPoint("mine", "somewhere:It", "faultline.probes")
    monkeypatch.setattr(extensions, "installed", lambda group: {"mine": point})
    spec = READ.validate_python({"name": "it", "type": "plugin", "plugin": "mine"})
    assert "by its path" in problems(spec)[0].expected
    monkeypatch.setattr(extensions, "is_manifest", lambda group, name: False)
    assert "cannot be loaded" in problems(spec)[0].expected


# ---------------------------------------------------------------------- selectors


def test_a_selector_names_targets_and_the_rest(program: Callable[..., Path]) -> None:
    answer = {"targets": [{"pid": 7}], "rest": [{"pid": 8}, {"container": "a"}], "text": "one"}
    script = f"#!/bin/sh\n[ $1 = select ] || exit 2\necho '{json.dumps(answer)}'\n"
    program("", kind="selector", script=script)
    found = select("mine", {"word": "a"})
    assert found.targets == (TargetSpec(pid=7),)
    assert found.rest == (TargetSpec(pid=8), TargetSpec(container="a"))
    assert found.text == "one"
    with pytest.raises(InvalidParameter):
        select("mine", {"word": "A"})
    with pytest.raises(UnknownName, match="is a selector, not a probe"):
        manifest.load("mine", "probe")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "a list is expected"),
        ({"targets": [3]}, "targets"),
        ({"targets": [{}]}, "names nothing"),
        ({"targets": [{"pid": 1, "container": "a"}]}, "at most one"),
        ({"targets": [{"wrong": 1}]}, "wrong"),
        ({"targets": [{"pid": 1}, {"pid": 1}]}, "twice"),
        ({"targets": [{"pid": 1}], "rest": [{"pid": 1}]}, "twice"),
        ({"targets": [{"pid": n} for n in range(1, 1003)]}, "more than 1000"),
    ],
)
def test_an_answer_that_selects_nothing_sensible_is_refused(
    answer: dict[str, Any], said: str
) -> None:
    with pytest.raises(ObserveFailed, match=said):
        selected(answer, "mine")


@pytest.mark.usefixtures("installed", "folder")
def test_a_selector_of_a_package() -> None:
    assert select("me", {"level": 3}).targets == (TargetSpec(pid=os.getpid()),)
    with pytest.raises(UnknownName):
        select("you", {})
    with pytest.raises(InvalidParameter):
        select("me", {"level": 7})


# ---------------------------------------------------------------------- the kit


# Its output is read until it has a session of its own: before, it would end with the program.
LEAVES = ': "$(setsid sh -c "exec sleep 300 >/dev/null 2>&1" &)"\n'


@pytest.mark.needs_root
@pytest.mark.needs_netns
@pytest.mark.slow
class TestKit:
    @pytest.mark.parametrize("name", ["spool-age", "oldest-process"])
    def test_the_examples_conform(self, name: str) -> None:
        told = plugins.check(EXAMPLES / f"{name}.toml")
        assert len(told) >= 2
        assert not any(told.values()), told

    @pytest.mark.parametrize(
        ("does", "said"),
        [
            (says({"ok": None, "text": "never"}), "it could not measure"),
            (says({"ok": True}), "it gave no value"),
            ("sleep 9", "did not end in time"),
            ("head -c 200000 /dev/zero", "said more than"),
            (LEAVES + says({"value": 1}), "left processes behind"),
        ],
    )
    def test_it_finds_what_is_wrong_with_a_program(
        self, program: Callable[..., Path], does: str, said: str
    ) -> None:
        told = plugins.check(program(does))
        assert any(said in line for line in told["example 1"]), told

    def test_it_finds_a_program_that_never_says_that_it_cannot(
        self, program: Callable[..., Path]
    ) -> None:
        path = program(says({"value": 0}), script="#!/bin/sh\n%s\n")
        told = plugins.check(path)
        assert not told["example 1"]
        assert "it cannot measure there" in told["unmeasurable 1"][0]

    @pytest.mark.usefixtures("installed")
    def test_packages(self) -> None:
        told = plugins.check(Path("probes:size"))
        assert not any(told.values()), told
        told = plugins.check(Path("selectors:me"))
        assert not any(told.values()), told
        told = kit.check_probe(Careless)
        assert any("it changed: file" in line for line in told["example"]), told
        assert any("cannot measure there" in line for line in told["unmeasurable"]), told
