"""A real controller on a real API server behind the proxy: wrong or late while a fault is there,
right when it has gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.kube.conftest import Server

from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.kubeapi.model import ApiError, Kind, metadata

pytestmark = pytest.mark.needs_apiserver
ROOT = Path(__file__).resolve().parents[3]
MAPS = Kind("ConfigMap", "configmaps", "v1")


def until(what: Callable[[], Any], words: str, patience: float = 30.0) -> Any:
    end = time.monotonic() + patience
    while not (answer := what()):
        if time.monotonic() > end:
            pytest.fail(f"not within {patience:g} s: {words}", pytrace=False)
        time.sleep(0.03)
    return answer


@dataclass
class Through:
    """A proxy as users start it, the faults that it is to have, and the cluster behind it."""

    process: subprocess.Popen[str]
    kubeconfig: Path
    faults: Path
    client: Client  # past the proxy
    namespace: str

    def want(self, *faults: dict[str, Any]) -> None:
        """These faults and no others, as soon as the proxy knows of them."""
        made = [
            {"apiVersion": "faultline.dev/v1alpha1", "kind": "Fault",
             "metadata": {"name": each.pop("name")},
             "spec": {"fault": each.pop("fault"), "duration": each.pop("duration", "2m"),
                      "params": each}}
            for each in faults
        ]  # fmt: skip
        self.faults.write_text(yaml.safe_dump_all(made))
        names = {each["metadata"]["name"] for each in made}
        until(lambda: {each["name"] for each in self.told() if each["active"]} == names, "faults")

    def told(self) -> list[dict[str, Any]]:
        server = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        with urllib.request.urlopen(f"{server}/.faultline", timeout=10) as page:
            return json.load(page)["faults"]

    def of(self, name: str) -> dict[str, Any]:
        return [each for each in self.told() if each["name"] == name][-1]

    def put(self, value: str) -> None:
        """What the source says, written past the proxy."""
        change = {"data": {"value": value}}
        try:
            self.client.patch(MAPS, "source", change, namespace=self.namespace)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "source"}}
            self.client.create(MAPS, {**made, **change}, self.namespace)

    def copy(self) -> str:
        try:
            return self.client.get(MAPS, "copy", self.namespace)["data"]["value"]
        except ApiError:
            return ""

    def reader(self) -> Client:
        """Another client of the proxy."""
        return Client(connect(str(self.kubeconfig)))


@pytest.fixture(scope="module")
def space(apiserver: Server) -> str:
    with contextlib.closing(apiserver.client()) as client:
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "proxied"}}
        client.rest.request("POST", "/api/v1/namespaces", None, made).json()
    return "proxied"


@pytest.fixture(scope="module")
def through(
    apiserver: Server, space: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Through]:
    """A proxy with no faults yet."""
    folder = tmp_path_factory.mktemp("proxy")
    faults, kubeconfig = folder / "faults.yaml", folder / "kubeconfig"
    faults.write_text("")
    words = [
        sys.executable, "-m", "faultline.cli.main", "kube", "proxy", "--format", "json",
        "--kubeconfig", str(apiserver.kubeconfig()), "--write", str(kubeconfig), "-f", str(faults),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    with process, contextlib.closing(apiserver.client()) as client:
        try:
            until(lambda: kubeconfig.exists() and kubeconfig.stat().st_size, "its kubeconfig")
            made = Through(process, kubeconfig, faults, client, space)
            until(lambda: _answers(made), "the proxy answers")
            yield made
        finally:
            if process.poll() is None:
                process.terminate()


def _answers(through: Through) -> bool:
    try:
        return through.told() == []
    except OSError:
        return False


@pytest.fixture(scope="module")
def example(through: Through) -> Iterator[subprocess.Popen[bytes]]:
    """The controller of the documentation, as a client of the proxy."""
    env = {**os.environ, "KUBECONFIG": str(through.kubeconfig)}
    words = [sys.executable, str(ROOT / "examples/kube-proxy/controller.py"), through.namespace]
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


@pytest.fixture
def controller(
    through: Through, example: subprocess.Popen[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """The same once it has done its work, and does it again when the faults have gone."""
    through.want()
    through.put("first")
    until(lambda: through.copy() == "first", "the controller works")
    yield example
    through.want()
    until(lambda: _converges(through), "it works as before when the faults have gone")
    assert example.poll() is None


def _converges(through: Through) -> bool:
    value = f"after-{time.monotonic()}"
    through.put(value)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        if through.copy() == value:
            return True
        time.sleep(0.05)
    return False


def test_without_faults_it_is_the_api_server(through: Through) -> None:
    with contextlib.closing(through.reader()) as client:
        assert client.version() >= (1, 20)
        assert client.kind("Deployment").plural == "deployments"
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "plain"},
                "data": {"a": "1"}}  # fmt: skip
        client.create(MAPS, made, through.namespace)
        client.patch(MAPS, "plain", {"data": {"b": "2"}}, namespace=through.namespace)
        found = client.get(MAPS, "plain", through.namespace)
        assert found["data"] == {"a": "1", "b": "2"}
        assert "plain" in {metadata(m)["name"] for m in client.every(MAPS, through.namespace)}
        with pytest.raises(ApiError, match="not found"):
            client.get(MAPS, "nothing", through.namespace)
        client.delete(MAPS, "plain", through.namespace)
    assert stat.S_IMODE(through.kubeconfig.stat().st_mode) == 0o600


def test_whoever_does_not_know_the_path_is_answered_nothing(through: Through) -> None:
    server = yaml.safe_load(through.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    for path in ("/api/v1/namespaces", "/wrong/api/v1/namespaces", "/.faultline"):
        url = f"{server.rpartition('/')[0]}{path}"
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(url, timeout=10)
        assert told.value.code == 404
        told.value.close()


def test_conflicts_keep_a_careless_controller_from_its_work(
    through: Through, controller: subprocess.Popen[bytes]
) -> None:
    through.want({"name": "conflict", "fault": "apiclient.error", "status": 409,
                  "verbs": ["update"], "resources": ["configmaps"], "duration": "3s"})  # fmt: skip
    through.put("second")
    until(lambda: through.of("conflict")["hit"] >= 2, "it tries again")
    assert through.copy() == "first"
    until(lambda: through.copy() == "second", "it is right when the time of the fault is over")
    told = through.of("conflict")
    assert not told["active"]
    assert told["reading"]["effect"] == "effective"
    assert told["codes"] == {"409": told["hit"]}


def test_it_learns_late_of_what_has_happened(
    through: Through, controller: subprocess.Popen[bytes]
) -> None:
    """A watch that was there before the fault is hit, too."""
    through.want({"name": "late", "fault": "apiclient.watch_delay", "delay": "1500ms"})
    begun = time.monotonic()
    through.put("second")
    until(lambda: through.copy() == "second", "it is told in the end")
    assert time.monotonic() - begun >= 1.5
    reading = through.of("late")["reading"]
    assert reading["effect"] == "effective"
    assert reading["values"]["p50"] >= 1.5


def test_what_happens_while_a_watch_is_silent_is_never_told(
    through: Through, controller: subprocess.Popen[bytes]
) -> None:
    through.want({"name": "silent", "fault": "apiclient.watch_drop", "how": "silence"})
    through.put("lost")
    until(lambda: through.of("silent")["events"], "an event is lost")
    through.want()
    time.sleep(1)
    assert through.copy() == "first", "it has no reason to look again"


@pytest.mark.parametrize("how", ["disconnect", "end", "expired"])
def test_watches_break(through: Through, controller: subprocess.Popen[bytes], how: str) -> None:
    through.want({"name": "cut", "fault": "apiclient.watch_drop", "how": how, "every": "300ms"})
    until(lambda: through.of("cut")["hit"] >= 3, "it watches again, and again it breaks")
    through.put("second")
    until(lambda: through.copy() == "second", "it lists all anew each time")
    assert set(through.of("cut")["codes"]) == {how}


def test_a_server_that_lags_behind(through: Through, controller: subprocess.Popen[bytes]) -> None:
    """Time stands still: what was read before the fault is read for its whole time."""
    through.want({"name": "past", "fault": "apiclient.stale"})
    until(lambda: through.client.get(MAPS, "source", through.namespace), "there")
    time.sleep(0.5)  # its version is looked at five times a second
    through.put("second")
    with contextlib.closing(through.reader()) as reader:
        assert reader.get(MAPS, "source", through.namespace)["data"] == {"value": "first"}
        listed = {metadata(m)["name"]: m["data"] for m in reader.every(MAPS, through.namespace)}
        assert listed["source"] == {"value": "first"}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unseen"}}
        reader.create(MAPS, made, through.namespace)
        with pytest.raises(ApiError, match="not found"):
            reader.get(MAPS, "unseen", through.namespace)
        old = reader.get(MAPS, "source", through.namespace)
        with pytest.raises(ApiError, match="modified"):
            reader.replace(MAPS, {**old, "data": {"value": "mine"}})
        time.sleep(1)
        assert through.copy() == "first"
        through.want()
        until(lambda: through.copy() == "second", "what was held back is told")
        assert reader.get(MAPS, "unseen", through.namespace)
        reader.delete(MAPS, "unseen", through.namespace)
    assert through.of("past")["reading"]["effect"] == "effective"


def test_a_lag_of_a_fixed_length(through: Through) -> None:
    through.want({"name": "lag", "fault": "apiclient.stale", "behind": "1s", "verbs": ["get"]})
    time.sleep(1.5)
    value = f"v-{time.monotonic()}"
    through.put(value)
    begun = time.monotonic()
    with contextlib.closing(through.reader()) as reader:
        until(
            lambda: reader.get(MAPS, "source", through.namespace)["data"]["value"] == value,
            "it is seen in the end",
        )
    assert time.monotonic() - begun > 0.5


def test_errors_that_come_after_the_deed(through: Through) -> None:
    """And a connection that breaks: what was asked is done all the same."""
    through.want({"name": "lie", "fault": "apiclient.error", "status": 503, "when": "after",
                  "verbs": ["create"], "names": [], "retry_after": 7})  # fmt: skip
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "done"}}
    with contextlib.closing(through.reader()) as reader:
        with pytest.raises(ApiError) as told:
            reader.create(MAPS, made, through.namespace)
        assert told.value.status == 503
        assert through.client.get(MAPS, "done", through.namespace)
        through.want({"name": "break", "fault": "apiclient.disconnect", "when": "after",
                      "verbs": ["delete"]})  # fmt: skip
        with pytest.raises(ApiError) as broken:
            reader.delete(MAPS, "done", through.namespace)
        assert broken.value.status == 0
    with pytest.raises(ApiError, match="not found"):
        through.client.get(MAPS, "done", through.namespace)
    assert through.of("break")["hit"] == 1


def test_requests_that_wait(through: Through) -> None:
    through.want({"name": "slow", "fault": "apiclient.latency", "delay": "400ms",
                  "verbs": ["get"], "agents": ["python*"]})  # fmt: skip
    with contextlib.closing(through.reader()) as reader:
        begun = time.monotonic()
        reader.get(MAPS, "source", through.namespace)
        assert time.monotonic() - begun >= 0.4
    assert through.of("slow")["reading"]["effect"] == "effective"


def test_a_bad_file_changes_nothing(through: Through) -> None:
    through.want({"name": "stays", "fault": "apiclient.latency", "delay": "1ms"})
    through.faults.write_text(
        "kind: Fault\nmetadata: {name: bad}\nspec: {fault: apiclient.nothing}"
    )
    time.sleep(1.2)
    assert through.of("stays")["active"]


def test_it_tells_what_it_did_and_leaves_nothing(through: Through) -> None:
    """The last one: it ends the proxy."""
    through.want()
    through.process.send_signal(signal.SIGTERM)
    written, _ = through.process.communicate(timeout=20)
    told = json.loads(written)
    assert told["requests"] > 50
    assert {each["name"] for each in told["faults"]} >= {"conflict", "past", "cut"}
    assert not any(each["active"] for each in told["faults"])
    assert through.process.returncode == 0
    assert not through.kubeconfig.exists()


SCRIPT = """
import sys
from faultline.kubeapi.client import Client
from faultline.kubeapi.kubeconfig import connect
from faultline.kubeapi.model import ApiError, Kind
client = Client(connect())
assert client.rest.server.startswith("https://localhost:"), client.rest.server
try:
    client.get(Kind("Namespace", "namespaces", "v1", False), "default")
except ApiError as error:
    sys.exit(error.status // 100)
"""


def test_a_command_has_the_kubeconfig_and_its_exit_code_is_taken(
    apiserver: Server, tmp_path: Path
) -> None:
    words = [
        sys.executable, "-m", "faultline.cli.main", "kube", "proxy", "--format", "json",
        "--kubeconfig", str(apiserver.kubeconfig()), "--fault", "error,status=500,percent=100%",
        "--listen", "127.0.0.1:0", "--name", "localhost", "--",
        sys.executable, "-c",
        SCRIPT,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    made = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 5, made.stderr
    (fault,) = json.loads(made.stdout)["faults"]
    assert (fault["hit"], fault["codes"]) == (1, {"500": 1})
