"""Probes of somebody else: programs and endpoints, and what is wrong with them."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.probes.written import BLIND, MANIFEST, says, write

from faultline.api.probe import Measurement, PluginProbe, ProbeBase, ProbeSpec
from faultline.engine.runs import validate
from faultline.engine.wiring import check_fault
from faultline.errors import InvalidDocument, ObserveFailed
from faultline.injection import manifest, samples, selecting
from faultline.probes.plugin import measured, problems
from faultline.probes.prober import Prober

DOCUMENT = """
apiVersion: faultline.dev/v1alpha1
kind: Experiment
metadata: {name: it}
spec:
  title: It
  hypothesis: {text: It holds., probes: [mine]}
  probes: [{name: mine, type: plugin, plugin: mine}]
  faults: [{name: a, fault: file.add, params: {path: /tmp/never}}]
"""
Measure = Callable[..., Measurement]
Probe = Callable[..., Prober[ProbeBase]]
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


def test_an_experiment_is_refused_by_the_path_of_the_field(
    program: Callable[..., Path], tmp_path: Path
) -> None:
    program(says({"value": 1}), unit="s")
    document = tmp_path / "experiment.yaml"
    document.write_text(DOCUMENT)
    found = {problem.path: problem.expected for problem in validate(document, check_fault)}
    assert found == {"spec.probes.0.measures": "'s', which is its unit"}


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


def test_an_answer_is_read_the_same_way_wherever_it_comes_from() -> None:
    assert measured({"value": 3}, "it") == Measurement(value=3.0, ok=True)
    assert measured({"value": 3, "ok": False}, "it").ok is False
    assert measured({"text": "why"}, "it") == Measurement(ok=None, text="why")
    assert selecting.MOST == 1000
