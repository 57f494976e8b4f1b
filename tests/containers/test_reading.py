"""What runtimes write, read: by recorded command lines and files, as their documentation has them.

CRI-O and the kubelet are not run here; what they write stands below.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from faultline.errors import InvalidParameter, Refused, TargetGone
from faultline.kernel.procfs import Process, ProcessId
from faultline.places import bundle, conmons, containers, labelled, shims
from faultline.places.container import Container

ID = "7a4c1f0e9d" * 6 + "abcd"
CRIO = (
    "/usr/bin/conmon", "-b", f"/run/containers/storage/overlay-containers/{ID}/userdata", "-c", ID,
    "--exit-dir", "/var/run/crio/exits", "-l", "/var/log/pods/shop_web-0_uid/app/0.log",
    "--log-level", "info", "-n", "k8s_app_web-0_shop_uid_0", "-P",
    f"/run/containers/storage/overlay-containers/{ID}/userdata/conmon-pidfile", "-p",
    f"/run/containers/storage/overlay-containers/{ID}/userdata/pidfile", "-r", "/usr/bin/runc",
    "--runtime-arg", "--root=/run/runc", "--socket-dir-path", "/var/run/crio", "-u", ID, "-s",
)  # fmt: skip
CRIO_NOTES = {
    "io.container.manager": "cri-o",
    "io.kubernetes.container.name": "app",
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.cri-o.ContainerType": "container",
    "io.kubernetes.cri-o.Labels": json.dumps({"app": "web", "io.kubernetes.pod.name": "web-0"}),
    "org.opencontainers.image.stopSignal": "SIGQUIT",
}
PODMAN = (
    "/usr/bin/conmon", "--api-version", "1", "-c", ID, "-u", ID, "-r", "/usr/bin/runc", "-b",
    f"/data/{ID}/userdata", "-p", f"/data/{ID}/pidfile", "-n", "web", "--exit-command",
    "/usr/bin/podman", "--exit-command-arg", "--root", "--exit-command-arg", "/data",
    "--exit-command-arg", "--network-config-dir", "--exit-command-arg", "", "--exit-command-arg",
    "container", "--exit-command-arg", "cleanup", "--exit-command-arg", ID,
)  # fmt: skip


def us(*argv: str) -> Process:
    return Process(ProcessId.current(), "conmon", "S", 1, 0, argv)


def test_a_container_of_crio() -> None:
    found = conmons.container(ID, us(), CRIO, {"annotations": CRIO_NOTES})
    assert found.runtime == "cri-o"
    assert (found.pod, found.in_pod, found.sandbox) == ("shop/web-0", "app", False)
    assert found.labels["app"] == "web"
    assert found.stop_signal == "SIGQUIT"
    assert found.name == "k8s_app_web-0_shop_uid_0"
    assert found.bundle.endswith("/userdata")


def test_the_sandbox_of_a_pod_of_crio() -> None:
    notes = {**CRIO_NOTES, "io.kubernetes.cri-o.ContainerType": "sandbox"}
    notes["io.kubernetes.container.name"] = "POD"
    found = conmons.container(ID, us(), CRIO, {"annotations": notes})
    assert found.sandbox
    assert (found.pod, found.in_pod) == ("shop/web-0", "")


def test_podman_is_reached_with_the_options_that_it_had() -> None:
    found = conmons.container(ID, us(), PODMAN, {"annotations": {}})
    assert found.runtime == "podman"
    assert found.name == "web"
    assert found.tool == ("/usr/bin/podman", "--root", "/data", "--network-config-dir", "")


def _children(folder: Path, *children: tuple[int, str]) -> dict[int, Process]:
    """A conmon whose files lie in `folder`, with these children."""
    argv = tuple(word.replace("/data", str(folder)) for word in PODMAN)
    conmon = us(*argv)
    below = [
        Process(ProcessId(pid, 1), Path(name).name, "S", conmon.pid, 0, (name,))
        for pid, name in children
    ]
    return {each.pid: each for each in (conmon, *below)}


def test_what_tidies_up_after_a_container_is_not_the_container(tmp_path: Path) -> None:
    """When it has ended, conmon starts podman as its child; before it begins, its runtime."""
    folder = tmp_path / ID
    (folder / "userdata").mkdir(parents=True)
    (folder / "userdata" / "config.json").write_text("{}")
    helpers = ((71, "/usr/bin/podman"), (72, "/usr/bin/runc"), (73, "/usr/bin/conmon"))
    (folder / "pidfile").write_text("70")
    for helper in helpers:
        assert list(conmons.find(_children(tmp_path, helper))) == []
    there = list(conmons.find(_children(tmp_path, (70, "/bin/web"), *helpers)))
    assert [each.process.pid for each in there] == [70]
    (folder / "pidfile").unlink()
    assert list(conmons.find(_children(tmp_path, *helpers))) == []
    there = list(conmons.find(_children(tmp_path, (70, "/bin/web"), *helpers)))
    assert [each.process.pid for each in there] == [70]


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        (  # containerd 1.6 and later
            {
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.container-name": "app",
                "io.kubernetes.cri.sandbox-name": "web-0",
                "io.kubernetes.cri.sandbox-namespace": "shop",
            },
            ("shop/web-0", "app", False),
        ),
        (  # before: only the sandbox tells
            {
                "io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-log-directory": "/var/log/pods/shop_web-0_1234",
            },
            ("shop/web-0", "", True),
        ),
        (  # cri-dockerd
            {
                "io.kubernetes.docker.type": "podsandbox",
                "io.kubernetes.container.name": "POD",
                "io.kubernetes.pod.name": "web-0",
                "io.kubernetes.pod.namespace": "shop",
            },
            ("shop/web-0", "", True),
        ),
        ({"app": "web"}, ("", "", False)),
    ],
)
def test_pods_are_read_as_each_runtime_notes_them(
    notes: dict[str, str], expected: tuple[str, str, bool]
) -> None:
    assert shims.pod_of(notes) == expected


@pytest.mark.parametrize(
    ("path", "said", "expected"),
    [
        (f"/docker/{ID}", f"/docker/{ID}", f"/docker/{ID}"),
        (f"/docker/{ID}/init.scope", f"/docker/{ID}", f"/docker/{ID}"),
        (f"/system.slice/docker-{ID}.scope", f"system.slice:docker:{ID}", None),
        ("/own/group/below", "/own/group", "/own/group"),
        ("/outer/own/group", "/own/group", "/outer/own/group"),
        ("/a.slice/x-y.scope/z", "a.slice:x:y", "/a.slice/x-y.scope"),
        ("/elsewhere", "/own/group", ""),
        ("/elsewhere", "", ""),
    ],
)
def test_the_control_group_is_that_of_the_whole_container(
    path: str, said: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "groups", lambda _pid: ["/", path])
    spec = {"linux": {"cgroupsPath": said}}
    assert bundle.group(1, ID, spec) == (path if expected is None else expected)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"annotations": 3, "linux": []}']
)
def test_a_file_that_is_not_as_it_should_be_is_no_container(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "config.json").chmod(0o600)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        found = bundle.read_json(folder, "config.json")
    finally:
        os.close(folder)
    assert bundle.notes(found) == {}
    assert bundle.group(os.getpid(), "no-such-id", found) == ""
    assert shims.pod_of({}) == ("", "", False)


@pytest.mark.parametrize("harm", ["writable", "link", "pipe", "stranger"])
def test_what_others_could_have_written_is_not_read(tmp_path: Path, harm: str) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"annotations": {"io.kubernetes.pod.name": "x"}}')
    if harm == "writable":
        file.chmod(0o666)
    elif harm == "link":
        file.rename(tmp_path / "other")
        file.symlink_to("other")
    elif harm == "pipe":
        file.unlink()
        os.mkfifo(file, 0o600)
    elif os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    else:
        os.chown(file, 12345, 12345)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert bundle.read_json(folder, "config.json") == {}
    finally:
        os.close(folder)


def test_a_folder_that_others_can_write_is_not_looked_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert bundle.open_trusted(str(tmp_path)) is None
    assert bundle.open_trusted(str(tmp_path / "none")) is None


def test_a_program_that_calls_itself_a_shim_shows_its_own_children_at_most(tmp_path: Path) -> None:
    """Its folder names a process that is not its child: nothing is believed."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "init.pid").write_text("1")
    (tmp_path / "victim" / "config.json").write_text("{}")
    shim = Process(ProcessId(99, 1), "containerd-shim", "S", 1, 0, ("containerd-shim",))
    folder = os.open(tmp_path, os.O_RDONLY)
    victim = Process(ProcessId(1, 0), "init", "S", 0, 0, ("init",))
    try:
        found = list(shims._in_folder(folder, {1: victim, 99: shim}, {99: shim}))
    finally:
        os.close(folder)
    assert found == []


# ---------------------------------------------------------------------------------------- names


def made(name: str, **more: Any) -> Container:
    return Container(more.pop("id", name), "docker", ProcessId(1, 1), "", name, **more)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> list[Container]:
    known = [
        made("pause", id="aa01", pod="shop/web", sandbox=True),
        made("app", id="aa02", pod="shop/web", in_pod="app", labels={"tier": "front"}),
        made("side", id="aa03", pod="shop/web", in_pod="side", labels={"tier": "front"}),
        made("alone", id="bb01", pod="shop/one", in_pod="main"),
        made("waiting", id="cc01", pod="shop/waiting", sandbox=True, labels={"tier": "back"}),
    ]
    monkeypatch.setattr(containers, "all_containers", lambda: known)
    return known


def test_the_one_container_of_a_pod(node: list[Container]) -> None:
    assert containers.find_in_pod("shop/one").name == "alone"
    assert containers.find_in_pod("shop/web/side").name == "side"


def test_a_pod_with_its_sandbox_alone(node: list[Container]) -> None:
    assert containers.find_in_pod("shop/waiting").name == "waiting"


def test_a_pod_with_several_containers_is_not_guessed(node: list[Container]) -> None:
    with pytest.raises(Refused, match="2 containers are in the pod shop/web") as caught:
        containers.find_in_pod("shop/web")
    assert "shop/web/app" in caught.value.message
    assert "shop/web/side" in caught.value.message


def test_pods_and_containers_that_are_not_there(node: list[Container]) -> None:
    with pytest.raises(TargetGone, match="no container") as caught:
        containers.find_in_pod("shop/wob")
    assert "shop/web" in caught.value.hint
    with pytest.raises(TargetGone, match="no container ap runs") as caught:
        containers.find_in_pod("shop/web/ap")
    assert "app" in caught.value.hint
    for text in ("shop", "shop/", "/web", "a/b/c/d"):
        with pytest.raises(InvalidParameter):
            containers.find_in_pod(text)


def test_an_id_comes_before_a_name_and_a_name_before_a_beginning(node: list[Container]) -> None:
    node.append(made("aa01", id="dd01"))
    assert containers.find("aa01").id == "aa01"
    assert containers.find("bb").name == "alone"
    with pytest.raises(Refused, match="3 containers fit 'aa0'"):
        containers.find("aa0")
    with pytest.raises(TargetGone):
        containers.find("")


def test_a_label(node: list[Container]) -> None:
    with pytest.raises(Refused, match="2 containers fit 'tier=front'"):
        containers.find("tier=front")
    assert containers.find("tier=back").name == "waiting"
    with pytest.raises(TargetGone):
        containers.find("tier=none")


def test_a_runtime_that_cannot_be_asked_is_named() -> None:
    asked = made("web", tool=("no-such-podman", "--root", "/data"))
    found, complaints = labelled.find([asked], "a", "b")
    assert found == []
    assert "no-such-podman, which is not installed" in complaints[0]
