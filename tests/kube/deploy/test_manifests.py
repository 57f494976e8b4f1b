"""What is put into a cluster: a server takes it, the chart is the same, no right is too many."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.kube.conftest import Server

from faultline.cli.main import cli
from faultline.errors import UsageError
from faultline.injection import registry
from faultline.kube import capabilities, chart, rbac, webhook
from faultline.kube.installing import apply
from faultline.kube.leaving import OURS, Leaving
from faultline.kube.manifests import objects
from faultline.kube.settings import PROFILES, Settings, chosen
from faultline.kubeapi.model import Kind
from faultline.kubefaults import registry as objects_registry

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy" / "chart"
PICKED = {
    "profile": "unprivileged",
    "registry": "registry.example:5000/chaos",
    "tag": "sha256:" + "0" * 64,
    "pullSecrets": ["key"],
    "agent": {"faults": ["network", "cpu.burn"], "lease": "60s", "extraArgs": ["--no-doctor"]},
    "operator": {"runNamespaces": ["one", "two"], "secretNamespaces": ["one"], "optIn": True,
                 "objectFaults": ["pod", "workload"], "dryRuns": True},
    "monitoring": {"serviceMonitor": True, "rules": True, "dashboard": True},
}  # fmt: skip
API_ONLY: dict[str, Any] = {"profile": "api-only", "webhook": {"enabled": False}}


def of(kind: str, made: list[Any], name: str = "") -> Any:
    return next(e for e in made if e["kind"] == kind and name in ("", e["metadata"]["name"]))


def test_one_value_says_where_the_image_lies() -> None:
    made = json.dumps(objects(chosen({}, ("registry=r.example/x",)), kinds=False))
    assert made.count("r.example/x/faultline:") == 3  # two programs, and what Jobs are made of
    assert '"image": "localhost' not in made


def test_no_pod_but_the_agent_is_privileged_and_without_agents_none_is() -> None:
    for profile in PROFILES:
        text = json.dumps(objects(chosen({"profile": profile}), kinds=False))
        assert ('"privileged": true' in text) == (profile == "full")
        assert ("hostPID" in text) == (profile != "api-only")


def test_the_capabilities_are_those_of_the_enabled_faults() -> None:
    settings = chosen({"profile": "unprivileged", "agent": {"faults": ["network"]}})
    made = objects(settings, kinds=False)
    context = of("DaemonSet", made)["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert context["capabilities"]["add"] == sorted({*capabilities.ALWAYS, "NET_ADMIN", "NET_RAW"})
    assert "SYS_BOOT" in capabilities.names(["kernel.reboot"])
    assert "SYS_BOOT" not in capabilities.names(["cpu"])


def test_every_family_says_which_capabilities_it_needs() -> None:
    assert set(capabilities.FAMILIES) == {name for name, module in registry.families().items()
                                          if module.startswith("faultline.")}  # fmt: skip


def test_every_family_of_objects_says_which_rights_it_needs() -> None:
    families = {each.partition(".")[0] for each in objects_registry.faults()}
    assert families - set(rbac.OBJECTS) == set()


def test_what_is_set_wrongly_is_told() -> None:
    with pytest.raises(UsageError, match="profile"):
        chosen({}, ("profile=most",))
    with pytest.raises(UsageError, match="sets nothing"):
        chosen({}, ("profile",))
    with pytest.raises(UsageError, match=r"agent\.lese"):
        chosen({}, ("agent.lese=1s",))


def test_the_table_of_capabilities_can_be_asked_for() -> None:
    told = CliRunner().invoke(cli, ["kube", "capabilities", "network.delay"]).output
    assert "NET_ADMIN" in told
    assert "SYS_BOOT" not in told


def rules_in(page: str, heading: str) -> list[Any]:
    """Those of a page, in the block behind this heading or words."""
    text = (ROOT / "docs" / page).read_text().partition(heading)[2]
    return yaml.safe_load(text.partition("```yaml")[2].partition("```")[0])["rules"]


@pytest.mark.parametrize(
    ("page", "heading", "rules"),
    [
        ("kubernetes.md", "## Rights of the operator", rbac.OPERATOR + rbac.OPERATOR_AT_HOME),
        ("agent.md", "## Rights in the cluster", rbac.AGENT + rbac.AGENT_AT_HOME),
    ],
)
def test_the_pages_list_just_these_rights(page: str, heading: str, rules: list[Any]) -> None:
    assert rbac.allowed(rules_in(page, heading)) == rbac.allowed(rules)


# ------------------------------------------------------------------ the chart


def test_the_chart_is_current() -> None:
    made = chart.files()
    for name, text in made.items():
        file = DEPLOY / name
        assert file.is_file(), f"faultline kube chart -o deploy/chart: {name} is missing"
        assert file.read_text() == text, f"faultline kube chart -o deploy/chart: {name}"
    there = {str(each.relative_to(DEPLOY)) for each in DEPLOY.rglob("*") if each.is_file()}
    assert there == set(made)


def test_every_value_of_the_chart_is_in_its_schema_and_explained() -> None:
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text())
    assert chosen(values) == Settings()
    lines = (DEPLOY / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line and not line.lstrip().startswith("#"):
            assert lines[number - 1].lstrip().startswith("#"), line


@pytest.mark.parametrize("values", [{}, PICKED, API_ONLY], ids=["usual", "picked", "api-only"])
def test_the_chart_makes_the_very_objects_of_the_manifests(
    values: dict[str, Any], tmp_path: Path
) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("needs helm")
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    words = [helm, "template", "faultline", str(DEPLOY), "--namespace", "faultline",
             "--values", str(file)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hooked = [each for each in yaml.safe_load_all(done.stdout) if each]
    made = [each for each in hooked if "helm.sh/hook" not in json.dumps(each["metadata"])]
    wanted = objects(chosen(values), kinds=False)[1:]  # Helm makes the namespace itself
    assert len(hooked) - len(made) == 4
    assert by_name(made) == by_name(wanted)


def by_name(made: list[Any]) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for each in made:
        meta = each["metadata"]
        rules = sorted(rbac.allowed(each["rules"])) if "rules" in each else []
        found[each["kind"], meta["name"], meta.get("namespace", "")] = {**each, "rules": rules}
    return found


def test_the_chart_refuses_what_it_does_not_know() -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("needs helm")
    for wrong in ("profile=most", "agent.lese=1s", "operator.replicas=0"):
        words = [helm, "template", "x", str(DEPLOY), "--set", wrong]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode, wrong


# ------------------------------------------------------------------ a real server


@pytest.fixture
def cleared(apiserver: Server) -> Iterator[Server]:
    """A server without anything that others have left of us, and from which all is taken again."""
    with closing(apiserver.client()) as client:
        Leaving(client, "flt-deploy", lambda _: None, patience=5).objects(kinds=False)
        yield apiserver
        Leaving(client, "flt-deploy", lambda _: None, patience=5).objects(kinds=False)


@pytest.mark.needs_apiserver
@pytest.mark.parametrize("values", [{"profile": "unprivileged", "operator": {"dryRuns": True}}])
def test_a_server_takes_all_of_it_twice_and_uninstall_takes_it_away(
    cleared: Server, values: dict[str, Any]
) -> None:
    wanted = objects(chosen(values), "flt-deploy", kinds=False)
    with closing(cleared.client()) as client:
        assert apply(client, wanted) == len(wanted)
        before = {str(each["metadata"]["uid"]) for each in ours(client)}
        apply(client, wanted)
        assert {str(each["metadata"]["uid"]) for each in ours(client)} == before
        gone = Leaving(client, "flt-deploy", lambda _: None, patience=3).objects(kinds=False)
        assert len(gone) == len(wanted)
        assert not ours(client)


def ours(client: Any) -> list[Any]:
    names = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service",
             "ServiceAccount", "Deployment", "DaemonSet", "ResourceQuota",
             "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")  # fmt: skip
    kinds: list[Kind] = [client.kind(name) for name in names]
    return [each for kind in kinds for each in client.every(kind, labels=OURS)]


def test_the_rights_of_the_webhook_go_with_it() -> None:
    told = json.dumps(objects(chosen(API_ONLY), kinds=False))
    assert webhook.SERVICE not in told
    assert "--trust-all" in told
