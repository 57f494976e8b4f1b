"""What every test shares: markers for what a machine may lack, and the residue check.

A test that cannot run here is skipped with its reason. Tests marked `both_kernels` run here and
once more in the second kernel (tests/second_kernel), so what one lacks the other one shows.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path

import pytest
from tests import beside
from tests.kube.programs import program

from faultline.changes import store
from faultline.kernel import procfs, syscalls
from faultline.testing import plugin, residue, sampling

SUITE = "FAULTLINE_SUITE"
SECOND_KERNEL = "FAULTLINE_SECOND_KERNEL"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_skipped: dict[str, str] = {}  # both_kernels tests that this kernel could not run: id -> reason


def _tried(act: Callable[[], None]) -> str:
    """Try `act` in a child process: '' if it worked, else why not."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(writer, b"ok")
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(pid, 0)
    return "" if told == "ok" else told or "the child died"


@cache
def _root() -> str:
    return "" if os.geteuid() == 0 else "needs root: sudo ./run test"


@cache
def _netns() -> str:
    failed = _tried(lambda: syscalls.unshare(syscalls.Namespace.NET))
    return failed and f"needs a network namespace: {failed}"


def _enter_user_namespace() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        syscalls.set_dumpable(True)  # the kernel made /proc/self root's when the user changed
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.Namespace.USER | syscalls.Namespace.NET)
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


@cache
def _userns() -> str:
    failed = _tried(_enter_user_namespace)
    return failed and f"needs user namespaces for ordinary users: {failed}"


@cache
def _second_kernel() -> str:
    path = os.environ.get(SECOND_KERNEL, "")
    if os.access(path, os.X_OK):
        return ""
    return f"needs a second kernel: {SECOND_KERNEL} names the program that runs a command in it"


@cache
def _browser() -> str:
    return "" if any(map(shutil.which, BROWSERS)) else "needs a browser: install chromium"


@cache
def _prometheus() -> str:
    return "" if shutil.which("prometheus") else "needs Prometheus: install prometheus"


def _programs(*names: str) -> str:
    if missing := [name for name in names if not shutil.which(name)]:
        return f"needs {', '.join(missing)}: ./run test fetches what a package has"
    return _root()


@cache
def _docker() -> str:
    shims = ("containerd", "containerd-shim-runc-v2", "runc")
    return _programs("dockerd", "docker", *shims, "busybox")


@cache
def _containerd() -> str:
    return _programs("containerd", "containerd-shim-runc-v2", "ctr", "runc", "busybox")


@cache
def _podman() -> str:
    return _programs("podman", "conmon", "runc", "busybox")


@cache
def _apiserver() -> str:
    wanted = ("etcd", "kube-apiserver", "kubectl", "openssl")
    missing = [name for name in wanted if not program(name)]
    told = f"needs {', '.join(missing)}: KUBEBUILDER_ASSETS names their folder"
    return told if missing else ""


@cache
def _cluster() -> str:
    if Path(os.environ.get("KUBECONFIG", "-")).is_file() and shutil.which("kubectl"):
        return _root()
    return "needs a cluster with a node on this machine: KUBECONFIG names its configuration"


MISSING: dict[str, Callable[[], str]] = {
    "needs_root": _root,
    "needs_netns": _netns,
    "needs_userns": _userns,
    "needs_second_kernel": _second_kernel,
    "needs_browser": _browser,
    "needs_prometheus": _prometheus,
    "needs_docker": _docker,
    "needs_containerd": _containerd,
    "needs_podman": _podman,
    "needs_apiserver": _apiserver,
    "needs_cluster": _cluster,
}
MARKERS = {
    "needs_root": "acts on the kernel as root",
    "needs_netns": "makes a network namespace of its own",
    "needs_userns": "works as an ordinary user in a user namespace",
    "needs_second_kernel": f"starts the second kernel that {SECOND_KERNEL} names",
    "needs_browser": "looks at a page in Chromium",
    "needs_prometheus": "asks a real Prometheus",
    "needs_docker": "starts a dockerd of its own",
    "needs_containerd": "starts a containerd of its own",
    "needs_podman": "starts containers with Podman, in folders of its own",
    "needs_apiserver": "starts an API server of Kubernetes of its own, without nodes",
    "needs_cluster": "starts pods on a Kubernetes node that is this machine",
    "both_kernels": "runs in this kernel and once more in the second one",
    "slow": "takes more than a few seconds; runs last (leave out with -m 'not slow')",
    "quiet": "measures what others on this machine disturb; runs when the other lane has ended",
    "beside": "changes nothing of this machine: runs in the lane beside the others",
    "full": "runs only with --full",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faultline suite")
    group.addoption("--full", action="store_true", help="run everything, with the full matrices")
    group.addoption("--lane", choices=beside.LANES, help="only the modules of this lane")
    group.addoption("--part", default="0/1", help="I/N: only each N-th test, from the I-th on")
    group.addoption("--also", help="a file with the names of tests that no part may leave out")
    group.addoption(
        "--no-residue",
        action="store_true",
        help="do not compare the machine before and after (other work is going on here)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    os.environ[SUITE] = uuid.uuid4().hex
    if config.getoption("--full"):
        os.environ[sampling.FULL] = "1"  # read where modules of tests are imported
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background: what tests start would ignore the interrupts that they send.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.pluginmanager.has_plugin("faultline"):  # the package is not installed here
        config.pluginmanager.register(plugin, "faultline")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        left = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("full")]
    for item in items:
        for name, missing in MISSING.items():
            if item.get_closest_marker(name) and (reason := missing()):
                item.add_marker(pytest.mark.skip(reason=reason))
    if lane := config.getoption("--lane"):
        items[:] = beside.of(lane, items)
    part, parts = map(int, config.getoption("--part").split("/"))
    if parts > 1:
        chosen = [item for item in items if item.get_closest_marker("both_kernels")]
        also = config.getoption("--also")
        wanted = set(Path(also).read_text().splitlines() if also else ())
        items[:] = [
            item
            for index, item in enumerate(chosen)
            if index % parts == part or item.nodeid in wanted
        ]
    # The second kernel comes last: it is compared with what was skipped here.
    last = ("needs_second_kernel", "quiet", "slow")
    items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in last])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Before the limit of its time begins."""
    if item.get_closest_marker("quiet") or item.get_closest_marker("needs_second_kernel"):
        beside.wait_alone()
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "both_kernels" in report.keywords:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[report.nodeid] = reason.removeprefix("Skipped: ")


@pytest.fixture(scope="session")
def skipped_here() -> dict[str, str]:
    """The tests marked `both_kernels` that this kernel could not run, with the reason."""
    return _skipped


def _of_this_run() -> list[procfs.Process]:
    return procfs.find_by_environment(SUITE, os.environ[SUITE])


def _run_folders() -> dict[Path, Path]:
    """The folders in memory of all stores of this user, and which store each belongs to."""
    files = store.memory_folder().glob("*/whose")
    return {file.parent: Path(os.fsdecode(file.read_bytes())) for file in files}


@pytest.fixture(scope="session", autouse=True)
def _own_state(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No test ever uses the machine's own journal: each run has a store of its own.

    A store that was thrown away leaves no folder in memory. Those in folders of the tests' own stay
    for whoever looks why a test failed, but for what they have in memory.
    """
    before, stores = os.environ.get("FAULTLINE_STATE"), _run_folders()
    folder = tempfile.mkdtemp(prefix="faultline-suite-")
    os.environ["FAULTLINE_STATE"] = folder
    yield
    until = time.monotonic() + 20
    while keepers := [each for each in _of_this_run() if each.name.startswith("fl-keeper")]:
        if time.monotonic() > until:
            pytest.fail(f"keepers that hold nothing did not end: {keepers}", pytrace=False)
        time.sleep(0.1)
    left = {run: state for run, state in _run_folders().items() if run not in stores}
    ours = (tmp_path_factory.getbasetemp(), Path(folder))
    for run, state in left.items():
        if any(state.is_relative_to(each) for each in ours):
            shutil.rmtree(run, ignore_errors=True)
        elif not (_shared(request) or beside.beside_others() or state.exists()):
            pytest.fail(f"the store {state} is gone, and {run} is left of it", pytrace=False)
    shutil.rmtree(folder)
    if before is None:
        del os.environ["FAULTLINE_STATE"]
    else:
        os.environ["FAULTLINE_STATE"] = before


def _busy(threads: list[threading.Thread]) -> list[str]:
    """Those that use processor time although nobody waits for them, with what they are doing."""

    def used() -> dict[threading.Thread, int]:
        alive = [each for each in threads if each.is_alive() and each.native_id]
        stats = {each: Path(f"/proc/self/task/{each.native_id}/stat") for each in alive}
        return {
            each: sum(map(int, path.read_text().rpartition(")")[2].split()[11:13]))
            for each, path in stats.items()
            if path.exists()
        }

    before = used()
    time.sleep(0.3)
    ticks = 0.1 * os.sysconf("SC_CLK_TCK")
    frames = sys._current_frames()
    return [
        f"{each.name}:\n{''.join(traceback.format_stack(frames[each.ident or 0]))}"
        for each, after in used().items()
        if after - before.get(each, after) > ticks
    ]


@pytest.fixture(scope="module", autouse=True)
def _no_busy_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """A thread that a test forgot and that never rests makes everything after it slow."""
    before = set(threading.enumerate())
    yield
    left = [each for each in threading.enumerate() if each not in before]
    if left and (busy := _busy(left)):
        name = request.node.nodeid
        pytest.fail(f"{name} left busy threads:\n" + "\n".join(busy), pytrace=False)


def _shared(request: pytest.FixtureRequest) -> bool:
    """Whether others change the machine meanwhile, or other workers of this run."""
    told: bool = request.config.getoption("--no-residue")
    return told or "PYTEST_XDIST_WORKER" in os.environ


@pytest.fixture(scope="module", autouse=True)
def _no_residue(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine is the same before and after each module; a difference names the module.

    Not with parallel workers: each would see what the others are doing.
    """
    if _shared(request):
        yield
        return
    folders = beside.WATCHED  # a test's own scratch folder goes as a whole; it looks there itself
    ours = (SUITE, os.environ[SUITE])
    before = residue.snapshot(folders=folders, environment=ours)
    yield
    left = residue.wait_clean(before, folders=folders, environment=ours)
    # A process of ours that has gone is no residue; it belonged to somebody else's work.
    if left := [line for line in left if not line.startswith("- process:")]:
        name = request.node.nodeid
        pytest.fail(
            f"{name} changed the machine and left it so:\n" + "\n".join(left), pytrace=False
        )
