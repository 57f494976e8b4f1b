"""The client of the API server against a real one: both connections, errors, watches that break."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.kube.conftest import ADMIN, Server

from faultline.errors import Happened, Unsupported
from faultline.kubeapi import client as client_module
from faultline.kubeapi import kubeconfig, plain
from faultline.kubeapi.client import Client, Seen
from faultline.kubeapi.model import ApiError, Kind, Object, metadata, version_of
from faultline.kubeapi.plain import Access, Plain

MAPS = Kind("ConfigMap", "configmaps", "v1")
pytestmark = pytest.mark.needs_apiserver


def config(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture(params=["standard library", "lightkube"])
def api(request: pytest.FixtureRequest, apiserver: Server) -> Iterator[Client]:
    rest = (
        Plain(apiserver.access())
        if request.param == "standard library"
        else kubeconfig.connect(str(apiserver.kubeconfig()))
    )
    with closing(Client(rest)) as client:
        yield client


def test_objects_are_made_read_changed_and_deleted(api: Client, namespace: str) -> None:
    made = api.create(MAPS, config("one", a="1"), namespace)
    assert api.get(MAPS, "one", namespace) == made
    changed = api.replace(MAPS, {**made, "data": {"a": "2"}})
    assert int(version_of(changed)) > int(version_of(made))
    merged = api.patch(MAPS, "one", {"data": {"b": "3"}}, namespace=namespace)
    assert merged["data"] == {"a": "2", "b": "3"}
    applied = api.patch(MAPS, "one", config("one", c="4"), "apply", namespace=namespace)
    assert applied["data"] == {"a": "2", "b": "3", "c": "4"}
    api.delete(MAPS, "one", namespace, uid=str(metadata(made)["uid"]))
    with pytest.raises(ApiError) as gone:
        api.get(MAPS, "one", namespace)
    assert (gone.value.status, gone.value.reason) == (404, "NotFound")


def test_refusals_say_which_and_that_nothing_happened(api: Client, namespace: str) -> None:
    made = api.create(MAPS, config("one"), namespace)
    api.patch(MAPS, "one", {"data": {"a": "1"}}, namespace=namespace)
    for act, reason in (
        (lambda: api.create(MAPS, config("one"), namespace), "AlreadyExists"),
        (lambda: api.replace(MAPS, {**made, "data": {"z": "0"}}), "Conflict"),
        (lambda: api.delete(MAPS, "one", namespace, uid="another"), "Conflict"),
        (lambda: api.create(MAPS, config("No Name"), namespace), "Invalid"),
    ):
        with pytest.raises(ApiError) as refused:
            act()
        assert refused.value.reason == reason
        assert refused.value.as_dict()["happened"] == str(Happened.NOTHING)
    assert api.get(MAPS, "one", namespace)["data"] == {"a": "1"}


def test_who_may_not_is_told_what_to_do(apiserver: Server, namespace: str) -> None:
    with closing(apiserver.client("nobody-token")) as nobody:
        with pytest.raises(ApiError, match="nobody") as refused:
            nobody.get(MAPS, "one", namespace)
        assert refused.value.reason == "Forbidden"
        assert "right" in refused.value.hint
    with closing(apiserver.client("wrong-token")) as stranger:
        with pytest.raises(ApiError) as refused:
            stranger.get(MAPS, "one", namespace)
        assert refused.value.reason == "Unauthorized"


def test_many_objects_come_in_pages(
    api: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "CHUNK", 3)
    for number in range(8):
        api.create(MAPS, {**config(f"m-{number}"), "metadata": {
            "name": f"m-{number}", "labels": {"odd": str(number % 2)}}}, namespace)  # fmt: skip
    assert len(list(api.every(MAPS, namespace, labels="odd in (0,1)"))) == 8
    odd = api.every(MAPS, namespace, labels="odd=1")
    assert [metadata(each)["name"] for each in odd] == ["m-1", "m-3", "m-5", "m-7"]
    (one,) = api.every(MAPS, namespace, fields="metadata.name=m-2")
    assert metadata(one)["name"] == "m-2"


def test_kinds_are_found_in_the_version_that_the_server_has(api: Client) -> None:
    assert api.kind("pods") == api.kind("Pod") == Kind("Pod", "pods", "v1")
    assert api.kind("deployment").version == "apps/v1"
    assert not api.kind("Node").namespaced
    budget = api.kind("poddisruptionbudget")
    assert budget.group == "policy"
    assert api.served("policy/v99") == []
    with pytest.raises(ApiError, match="knows no kind"):
        api.kind("unicorn")
    assert api.version() >= (1, 20)


# ---------------------------------------------------------------------------- watching


class Watching:
    """A watch in a thread, and what it has seen."""

    def __init__(self, client: Client, namespace: str, **selected: str) -> None:
        self.seen: list[Seen] = []
        self.failed: list[ApiError] = []
        self.stop = threading.Event()
        self._client, self._where, self._selected = client, namespace, selected
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            for each in self._client.watch(MAPS, self.stop, self._where, **self._selected):
                self.seen.append(each)
        except ApiError as error:
            self.failed.append(error)

    def until(self, *wanted: str) -> list[str]:
        """Wait until just these changes were seen, as `type name`."""
        until = time.monotonic() + 20
        while (told := self.told()) != list(wanted) and time.monotonic() < until:
            assert not self.failed, self.failed
            time.sleep(0.02)
        assert told == list(wanted)
        return told

    def told(self) -> list[str]:
        return [
            f"{each.type} {metadata(each.object).get('name', '')}".strip() for each in self.seen
        ]


def test_a_watch_tells_what_there_is_and_every_change(api: Client, namespace: str) -> None:
    api.create(MAPS, config("old"), namespace)
    watching = Watching(api, namespace, fields="metadata.name!=kube-root-ca.crt")
    watching.until("put old", "synced")
    api.create(MAPS, config("new"), namespace)
    api.patch(MAPS, "old", {"data": {"a": "1"}}, namespace=namespace)
    api.delete(MAPS, "new", namespace)
    watching.until("put old", "synced", "put new", "put old", "deleted new")
    watching.stop.set()


def test_a_watch_that_ends_goes_on_where_it_stood(
    api: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 1)
    watching = Watching(api, namespace)
    watching.until("synced")
    for number in range(6):
        api.create(MAPS, config(f"m-{number}"), namespace)
        time.sleep(0.5)
    watching.until("synced", *(f"put m-{number}" for number in range(6)))
    watching.stop.set()


def test_what_changed_while_nobody_looked_is_told_after_a_new_list(
    apiserver: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = Plain(apiserver.access())
    told = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    with closing(Client(rest)) as client:
        client.create(MAPS, config("stays"), namespace)
        client.create(MAPS, config("goes"), namespace)
        stop = threading.Event()
        watch = client.watch(MAPS, stop, namespace)
        names = {str(metadata(next(watch).object)["name"]) for _ in range(2)}
        assert names == {"stays", "goes"}
        assert next(watch).type == "synced"
        client.delete(MAPS, "goes", namespace)
        client.create(MAPS, config("came"), namespace)
        _answer_once(monkeypatch, rest, told)
        seen = [next(watch) for _ in range(3)]
        kinds = [f"{each.type} {metadata(each.object).get('name', '')}".strip() for each in seen]
        assert kinds == ["deleted goes", "put came", "synced"]
        stop.set()


def _answer_once(monkeypatch: pytest.MonkeyPatch, rest: Plain, told: Object) -> None:
    """The next watch gets this line alone, as a server sends it that compacted its history."""
    real = rest.lines

    @contextmanager
    def once(path: str, query: Any, timeout: float) -> Iterator[Iterator[bytes]]:
        monkeypatch.setattr(rest, "lines", real)
        yield iter([json.dumps(told).encode()])

    monkeypatch.setattr(rest, "lines", once)


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with closing(Plain(Access("http://127.0.0.1:9"))) as rest:
        with pytest.raises(ApiError, match=r"the API server at http://127.0.0.1:9") as silent:
            rest.request("GET", "/version", timeout=2)
        assert silent.value.as_dict()["happened"] == str(Happened.MAYBE)
    with pytest.raises(ApiError, match="no cluster can be reached"):
        kubeconfig.connect(str(tmp_path / "none"))


def test_a_closed_connection_is_made_anew(apiserver: Server) -> None:
    with closing(Plain(apiserver.access())) as rest:
        assert rest.request("GET", "/version").json()
        kept = vars(rest)["_kept"]
        kept.sock.shutdown(2)
        assert rest.request("GET", "/version").json()


def test_a_pod_finds_its_server_by_itself(
    apiserver: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unsupported, match="no pod"):
        plain.of_pod()
    monkeypatch.setattr(plain, "ACCOUNT", tmp_path)
    (tmp_path / "token").write_text(ADMIN + "\n")
    (tmp_path / "namespace").write_text("faultline")
    (tmp_path / "ca.crt").write_bytes(apiserver.authority.read_bytes())
    host, _, port = apiserver.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    with closing(Plain(plain.of_pod())) as rest:
        assert rest.namespace == "faultline"
        assert rest.request("GET", "/api/v1/namespaces/default").json()
        (tmp_path / "token").write_text("renewed-and-wrong")
        assert rest.request("GET", "/api/v1/namespaces/default").status == 401
