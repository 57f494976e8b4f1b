"""The webhook itself: by a Service, with certificates that are renewed; and its end."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.kube.admission.conftest import DELAY, World, gone, kind_of, unhooked, until
from tests.kube.agent.conftest import SRC, Crew
from tests.kube.apiserver import _ports
from tests.kube.operator.conftest import FAULTS, HOSTS

from faultline.errors import UsageError
from faultline.kubeapi.model import ApiError, Kind, Object
from faultline.kubefaults import webhooks
from faultline.operator.admission import certificates
from faultline.operator.admission.service import Address
from faultline.operator.hosts import OBJECTS

pytestmark = pytest.mark.needs_apiserver
SERVICES = Kind("Service", "services", "v1")


@pytest.fixture
def by_service(world: World) -> Generator[World]:
    """An operator that is reached by a Service, in a cluster that wants to be asked."""
    (port,) = _ports(1)
    made = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": certificates.NAME},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }  # fmt: skip
    world.client.create(SERVICES, made, world.own)
    address = Address.read(f"127.0.0.1:{port}", "", f"{certificates.NAME}:{port}")
    world.operate(webhook=address, opt_in=True, protect=("prod-*",))
    yield world
    world.end_operators()
    unhooked(world.client)
    gone(world.client, SERVICES, certificates.NAME, world.own)


def test_it_is_reached_by_its_service_and_asks_for_consent(by_service: World) -> None:
    world = by_service
    closed, open_ = world.space("closed"), world.space("open", allow="true")
    said = world.refused(lambda: world.make("Fault", "x", DELAY, closed))
    assert f"the namespace {closed} does not allow faults: kubectl annotate" in said.message
    never = world.space("prod", allow="true")
    said = world.refused(lambda: world.make("Fault", "x", DELAY, never))
    assert f"the operator protects the namespace {never}" in said.message
    world.make("Fault", "x", DELAY, open_)
    everywhere = {**DELAY, "selector": {"pods": {"namespaces": ["*"]}, "mode": "all"}}
    with world.nodes(1) as (node,):
        world.pod("spared", closed, node)
        world.pod("hit", open_, node)
        world.make("Fault", "wide", everywhere, open_)
        told = world.phase("wide", open_, "active")
        assert told["counts"]["targets"] == 1, "what does not allow it is spared"
        for name in ("x", "wide"):
            gone(world.client, FAULTS, name, open_)
        until(lambda: not list(world.client.every(FAULTS, open_)), "they do not end", 40)


def test_a_new_authority_is_trusted_before_it_is_used(by_service: World) -> None:
    world = by_service
    hook = world.operators[0][0].guarded.webhook
    assert hook is not None
    now = datetime.now(UTC)
    was = certificates.ensure(world.client, world.own)
    bundle, key = certificates.authority(now - certificates.AUTHORITY + timedelta(days=100))
    old = certificates.Keys(bundle, key, was.secret)
    there = world.client.get(certificates.SECRETS, certificates.NAME, world.own)
    world.client.replace(certificates.SECRETS, {**there, "data": old.to_data()})
    hook._renewed()
    new = certificates.ensure(world.client, world.own)
    assert new.key != old.key
    assert new.bundle.endswith(old.bundle), "who has one of the old is believed to its end"
    assert new.secret == old.secret
    space = world.space("open", allow="true")

    def asked() -> bool:
        bad = {**DELAY, "params": {"latency": "9"}}
        return "spec.params.latency" in world.refused(
            lambda: world.make("Fault", "x", bad, space)).message  # fmt: skip

    until(asked, "the server does not trust it", 30)
    later = certificates._renewed(new, now + 2 * certificates.AUTHORITY)
    assert later.bundle.count(b"BEGIN") == 1


def test_who_does_not_know_its_path_is_told_nothing(by_service: World) -> None:
    world = by_service
    hook = world.operators[0][0].guarded.webhook
    assert hook is not None
    context = ssl._create_unverified_context()
    for path in ("", "/check", f"/{'0' * 40}/check", f"/{'0' * 40}/ask"):
        asked = urllib.request.Request(
            f"https://127.0.0.1:{hook.port}{path}", b'{"request": {"uid": "1"}}'
        )
        with pytest.raises(urllib.error.HTTPError) as said:
            urllib.request.urlopen(asked, timeout=10, context=context)
        assert (said.value.code, said.value.read()) == (404, b"{}")
        said.value.close()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("9443",), "no HOST:PORT"),
        (("0.0.0.0:9443",), "cannot reach"),
        (("127.0.0.1:1", "http://x:1"), "is no address"),
        (("127.0.0.1:1", "https://x:1", "name"), "not by both"),
    ],
)
def test_an_address_that_cannot_be_is_told(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Address.read(*words)


# ---------------------------------------------------------------------------- its end


def operator(world: World, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """As somebody starts it."""
    token = world.access("operator").token
    assert token is not None
    kubeconfig = world.server.kubeconfig_by(token.read_text(), "operator")
    words = [
        sys.executable, "-m", "faultline.cli.main", "operator", "--lease", "3",
        "--webhook", f"127.0.0.1:{port}", "--kubeconfig", str(kubeconfig),
        "--namespace", world.own,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    with (folder / "operator.log").open("wb") as log:
        return subprocess.Popen(words, env=env, stderr=log)


@pytest.mark.parametrize(
    "duration", ["6s", pytest.param("10m", marks=pytest.mark.slow)], ids=["deadline", "lease"]
)
def test_an_agent_ends_what_a_killed_operator_has_left(
    world: World, crew: Crew, tmp_path: Path, duration: str
) -> None:
    """Requests fail while the configuration is there: nobody answers any more."""
    space = world.space("left")
    selector = {"objects": {"kind": "Namespace"}, "mode": "all"}
    spec = {"fault": "admission.error", "params": {"resources": ["configmaps"]},
            "duration": duration, "selector": selector}  # fmt: skip
    world.client.create(
        Kind("Node", "nodes", "v1", False),
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": crew.node}},
    )
    crew.start("--namespace", world.own)
    process = operator(world, _ports(1)[0], tmp_path)
    try:
        until(lambda: (crew.host().get("spec") or {}).get("warden"), "no duty", 60)
        until(lambda: applied(world, spec, space), "the webhook is not reached", 60)
        until(lambda: world.status("x", space).get("effect") == "effective", "no effect", 60)
        process.kill()
        process.wait()
        assert create(world, space, "during") == 500
        until(lambda: not list(webhooks.standing(world.client)), "no agent removes it", 90)
        until(lambda: create(world, space, "after") == 0, "requests still fail", 20)
        assert "is removed" in crew.log.read_text()
    finally:
        process.kill()
        process.wait()
        unhooked(world.client)
        change = {"metadata": {"finalizers": None}}
        world.client.patch(FAULTS, "x", change, namespace=space)
        gone(world.client, FAULTS, "x", space)
        for name in (crew.node, OBJECTS):
            gone(world.client, HOSTS, name)


def applied(world: World, spec: Object, space: str) -> bool:
    try:
        world.client.create(
            kind_of("Fault"),
            {"apiVersion": FAULTS.version, "kind": "Fault", "metadata": {"name": "x"},
             "spec": spec}, space,
        )  # fmt: skip
    except ApiError:
        return False
    return True


def create(world: World, space: str, name: str) -> int:
    """0, or the status with which it failed."""
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    try:
        world.client.create(Kind("ConfigMap", "configmaps", "v1"), made, space)
    except ApiError as error:
        return error.status
    return 0
