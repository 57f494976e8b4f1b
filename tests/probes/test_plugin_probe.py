"""Probes and selectors of somebody else: programs, endpoints and packages, and the kit for them."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import TypeAdapter

from faultline.api.params import Params
from faultline.api.probe import Measurement, PluginProbe, ProbeBase, ProbeSpec
from faultline.api.quantities import Between
from faultline.api.targets import TargetSpec
from faultline.errors import InvalidDocument, InvalidParameter, ObserveFailed, UnknownName
from faultline.injection import extensions, manifest, samples, selecting
from faultline.injection.selecting import Selected, Selector, select, selected
from faultline.probes.plugin import ProbePlugin, measured, problems
from faultline.probes.prober import Prober
from faultline.testing import extensions as kit
from faultline.testing import plugins

Measure = Callable[..., Measurement]
Probe = Callable[..., Prober[ProbeBase]]
READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "plugins"
MANIFEST = """
kind = "{kind}"
name = "mine"
summary = "Mine"
{how}
[parameters.word]
type = "text"
pattern = "[a-z]*"
default = "calm"
help = "A word."
[parameters.wait]
type = "duration"
low = "0s"
high = "9s"
default = "0s"
help = "A time."
[limits]
user = "root"
memory = "64MiB"
time = "1500ms"
[[examples]]
word = "calm"
{more}
"""
BLIND = '[[unmeasurable]]\nword = "blind"'
ANSWERS = """#!/bin/sh
[ "$1" = measure ] || exit 2
case $FAULTLINE_PARAMETER_WORD in
blind) echo '{"ok": null, "text": "nothing to see"}' ;;
*) %s ;;
esac
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder from which programs may be run."""
    with samples.plugins() as found:
        yield found


@pytest.fixture
def program(folder: Path) -> Callable[..., Path]:
    """Writes a program and its manifest."""

    def write(does: str, kind: str = "probe", script: str = ANSWERS, **lines: str) -> Path:
        path = folder / "mine.sh"
        path.write_text(script % does if "%s" in script else script)
        path.chmod(0o755)
        how = 'executable = "mine.sh"\n' + "\n".join(f'{k} = "{v}"' for k, v in lines.items())
        more = BLIND if kind == "probe" else ""
        (folder / "mine.toml").write_text(MANIFEST.format(kind=kind, how=how, more=more))
        return folder / "mine.toml"

    return write


def says(answer: dict[str, Any]) -> str:
    return f"echo '{json.dumps(answer)}'"


# ---------------------------------------------------------------------- programs


def test_a_program_measures(measure: Measure, program: Callable[..., Path]) -> None:
    told = {"value": 7.5, "text": "seven", "result": {"a": [1]}, "since": 17.0}
    program(says(told), unit="s")
    found = measure("plugin", plugin="mine", measures="s", params={"word": "calm"})
    assert (found.value, found.ok, found.text, found.since) == (7.5, True, "seven", 17.0)
    assert found.result == {"a": [1]}
    blind = measure("plugin", plugin="mine", measures="s", params={"word": "blind"})
    assert (blind.value, blind.ok, blind.text) == (None, None, "nothing to see")


def test_what_a_program_is_told(probe: Probe, program: Callable[..., Path], folder: Path) -> None:
    script = f"""#!{sys.executable}
import json, os, sys
told = json.load(sys.stdin)
told["env"] = {{k: v for k, v in os.environ.items() if k.startswith("FAULTLINE")}}
told["argv"] = sys.argv[1:]
told["uid"] = os.getuid()
print(json.dumps({{"value": 1, "result": told}}))
"""
    program("", script=script)
    known = manifest.load("mine")[0]
    assert known.limits.memory
    (folder / "mine.toml").write_text((folder / "mine.toml").read_text().replace("64MiB", "512MiB"))
    found = probe("plugin", plugin="mine", params={"wait": "250ms"}, timeout="1s").measure()
    assert found.ok is True, found.text
    told = found.result
    assert told["parameters"] == {"word": "calm", "wait": 0.25}
    assert (told["verb"], told["argv"], told["name"]) == ("measure", ["measure"], "it")
    assert 0.5 < told["timeout"] <= 1.0
    assert told["env"]["FAULTLINE_PARAMETER_WAIT"] == "0.25"
    assert told["env"]["FAULTLINE_VERB"] == "measure"


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("exit 3", "ended with 3"),
        ("echo no luck >&2; exit 1", "no luck"),
        ("echo hello", "did not answer with a JSON object"),
        ("echo '[1]'", "did not answer with a JSON object"),
        (says({"value": "7"}), "value: a number or null is expected"),
        ("echo '{\"value\": NaN}'", "value: a number or null is expected"),
        (says({"value": True}), "value: a number or null is expected"),
        (says({"value": 1, "ok": "yes"}), "ok: true, false or null"),
        (says({"value": 1, "result": []}), "result: an object is expected"),
        (says({}), "it could not measure"),
        ("head -c 200000 /dev/zero", "said more than 65536 bytes"),
        ("sleep 9", "did not end in time"),
        ("sleep 9 & sleep 9", "did not end in time"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_a_program_that_fails_has_not_measured(
    measure: Measure, program: Callable[..., Path], does: str, said: str
) -> None:
    program(does)
    begun = time.monotonic()
    found = measure("plugin", plugin="mine", timeout="1s" if "sleep" in does else "5s")
    assert (found.ok, found.value) == (None, None)
    assert said in found.text
    assert time.monotonic() - begun < 5


def test_a_service_that_is_broken_is_false_and_not_unknown(
    measure: Measure, program: Callable[..., Path]
) -> None:
    program(says({"value": None, "ok": False, "text": "it refuses"}))
    found = measure("plugin", plugin="mine")
    assert (found.ok, found.value, found.text) == (False, None, "it refuses")


def test_a_program_that_was_changed_is_not_run(
    probe: Probe, program: Callable[..., Path], folder: Path
) -> None:
    program(says({"value": 1}))
    prober = probe("plugin", plugin="mine")
    assert prober.measure().value == 1
    (folder / "mine.sh").write_text("#!/bin/sh\ntouch /tmp/never\n")
    found = prober.measure()
    assert (found.ok, "has changed" in found.text) == (None, True)


@pytest.mark.needs_root
def test_a_program_has_no_rights_that_it_did_not_ask_for(
    measure: Measure, program: Callable[..., Path]
) -> None:
    program('printf \'{"value": %d}\' "0x$(grep CapEff /proc/self/status | cut -f2)"')
    assert measure("plugin", plugin="mine").value == 0.0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"params": {"word": "NO"}}, "params.word"),
        ({"params": {"wait": "10s"}}, "params.wait"),
        ({"params": {"wait": 3}}, "params.wait"),
        ({"params": {"wurd": "a"}}, "params.wurd"),
        ({"measures": "s"}, "measures"),
        ({"plugin": "other"}, "plugin"),
        ({"plugin": "retries"}, "plugin"),
        ({"plugin": "/etc/passwd"}, "plugin"),
    ],
)
def test_what_is_wrong_with_a_document_is_told_by_its_path(
    program: Callable[..., Path], fields: dict[str, Any], path: str, measure: Measure
) -> None:
    program(says({"value": 1}))
    given = {"name": "it", "type": "plugin", "plugin": "mine", **fields}
    spec = READ.validate_python(given)
    assert isinstance(spec, PluginProbe)
    assert [one.path for one in problems(spec)] == [path]
    with pytest.raises(ObserveFailed):
        measure("plugin", **{k: v for k, v in given.items() if k not in ("name", "type")})
    assert (
        problems(READ.validate_python({**given, "plugin": "mine", "measures": "", "params": {}}))
        == []
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (BLIND, "", "unmeasurable"),
        ('executable = "mine.sh"', "", "exactly one of executable and url"),
        ('executable = "mine.sh"', 'executable = "mine.sh"\nurl = "http://a"', "exactly one"),
        ('executable = "mine.sh"', 'executable = "mine.sh"\ntoken = "/a"', "token only with url"),
        ('kind = "probe"', 'kind = "selector"', "only of a probe"),
        ('kind = "probe"', 'kind = "wish"', "kind"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(
    program: Callable[..., Path], old: str, new: str, said: str
) -> None:
    path = program(says({}))
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidDocument, match=said):
        manifest.load("mine")


# ---------------------------------------------------------------------- endpoints


@pytest.fixture
def endpoint(folder: Path) -> Iterator[Callable[[Any], list[Any]]]:
    """An endpoint that answers with this, and a manifest for it; what it was asked."""
    asked: list[Any] = []
    answers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            data = json.dumps(answers[-1]).encode()
            self.send_response(200 if answers[-1] is not None else 500)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    token = folder / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)

    def answering(answer: Any) -> list[Any]:
        how = f'url = "http://127.0.0.1:{server.server_address[1]}/probe"\ntoken = "{token}"'
        (folder / "mine.toml").write_text(MANIFEST.format(kind="probe", how=how, more=BLIND))
        answers.append(answer)
        return asked

    yield answering
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_endpoint_measures(measure: Measure, endpoint: Callable[[Any], list[Any]]) -> None:
    asked = endpoint({"value": 3})
    found = measure("plugin", plugin="mine", params={"word": "calm"})
    assert (found.ok, found.value) == (True, 3.0), found.text
    path, authorization, body = asked[0]
    assert (path, authorization) == ("/probe/measure", "Bearer s3cret")
    assert body["parameters"] == {"word": "calm", "wait": 0.0}
    endpoint(None)
    failed = measure("plugin", plugin="mine")
    assert (failed.ok, "with 500" in failed.text) == (None, True)


def test_an_endpoint_that_is_silent_is_given_up(
    measure: Measure, endpoint: Callable[[Any], list[Any]], folder: Path
) -> None:
    endpoint({})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        path = folder / "mine.toml"
        lines = path.read_text().splitlines()
        url = f'url = "http://127.0.0.1:{silent.getsockname()[1]}"'
        path.write_text("\n".join(url if line.startswith("url") else line for line in lines))
        begun = time.monotonic()
        found = measure("plugin", plugin="mine", timeout="300ms")
    assert (found.ok, "does not answer" in found.text) == (None, True)
    assert time.monotonic() - begun < 3


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
        folder = next(Path("/tmp").glob("faultline-trial-*/app"))
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
            ("setsid sleep 300 >/dev/null 2>&1 & " + says({"value": 1}), "left processes behind"),
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


def test_an_answer_is_read_the_same_way_wherever_it_comes_from() -> None:
    assert measured({"value": 3}, "it") == Measurement(value=3.0, ok=True)
    assert measured({"value": 3, "ok": False}, "it").ok is False
    assert measured({"text": "why"}, "it") == Measurement(ok=None, text="why")
    assert selecting.MOST == 1000
