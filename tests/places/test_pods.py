"""Pods by their uid, as runtimes and kubelets note it."""

from __future__ import annotations

import pytest

from faultline.errors import Refused, TargetGone
from faultline.kernel.procfs import ProcessId
from faultline.places import bundle, containers, pods
from faultline.places.container import Container

UID = "6f1c2a34-90ab-4cde-8123-0123456789ab"


def container(name: str, pid: int = 1, **more: object) -> Container:
    told = {"pod": "shop/cart", "in_pod": name, "sandbox": not name, **more}
    return Container(f"id-{name}-{pid}", "containerd", ProcessId(pid, 1), "", **told)


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/besteffort/pod{UID}/0123abcd",
        f"/kubepods/pod{UID}",
        f"/kubepods.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-x-0123.scope",
        f"/kubelet/kubepods/burstable/pod{UID}/0123abcd/inner",
    ],
)
def test_the_kubelet_puts_it_into_the_control_group(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "groups", lambda _pid: ["/", path])
    assert pods.uid_of(container("app")) == UID


def test_a_static_pod_has_the_hash_of_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "0123456789abcdef0123456789abcdef"
    monkeypatch.setattr(bundle, "groups", lambda _pid: [f"/kubepods/burstable/pod{digest}/x"])
    assert pods.uid_of(container("etcd")) == digest


def test_labels_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "groups", lambda _pid: [])
    labels = {"io.kubernetes.pod.uid": UID}
    assert pods.uid_of(container("app", labels=labels)) == UID
    assert pods.uid_of(container("app")) == ""


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod of two containers, and one of the same name that is on its way out."""
    labels = {"io.kubernetes.pod.uid": UID}
    old = {"io.kubernetes.pod.uid": "0" * 36}
    known = [
        container("", labels=labels),
        container("app", labels=labels),
        container("side", labels=labels),
        container("app", 2, labels=old),
    ]
    monkeypatch.setattr(containers, "all_containers", lambda: known)


def wanted(uid: str = UID, container: str = "", container_id: str = "") -> pods.Wanted:
    return pods.Wanted("shop", "cart", uid, container, container_id)


@pytest.mark.usefixtures("node")
def test_what_is_meant() -> None:
    assert pods.find(wanted(container="side")).id == "id-side-1"
    assert pods.find(wanted(), network=True).sandbox
    assert pods.find(wanted(container="app"), network=True).id == "id-app-1"
    assert pods.find(wanted(container_id="containerd://id-app-1")).id == "id-app-1"
    assert pods.find(wanted("0" * 36)).id == "id-app-2"
    with pytest.raises(Refused, match="app, side"):
        pods.find(wanted())


@pytest.mark.usefixtures("node")
def test_what_is_gone() -> None:
    for gone in (
        wanted(container="none"),
        wanted(container="app", container_id="containerd://id-app-2"),
        wanted("1" * 36),
    ):
        with pytest.raises(TargetGone) as told:
            pods.find(gone)
    assert UID in told.value.hint
