"""A cluster on this machine, made by whichever program for that is installed.

Each is run with a list of arguments and shown before. Whoever made a cluster removes it with the
command that is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faultline.errors import ApplyFailed, Unsupported

NAME: Final = "faultline"
TOOLS: Final = ("kind", "minikube", "k3s")
K3S: Final = Path("/etc/rancher/k3s/k3s.yaml")
_SLOW: Final = 600.0  # seconds for a command: images are fetched
_FAST: Final = 60.0
Say = Callable[[str], None]
_staying: list[subprocess.Popen[bytes]] = []  # they go on when this process ends


@dataclass(frozen=True, slots=True)
class Made:
    """A cluster that was made, and how it is reached and removed."""

    tool: str
    context: str
    kubeconfig: str  # '' for the usual one
    remove: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    found: str
    good: bool = True


def machine() -> Iterator[Check]:
    """What there is for a cluster on this machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    yield Check("memory", f"{memory:.1f} GiB", memory >= 1.8)
    yield Check("processors", f"{os.cpu_count()}", (os.cpu_count() or 0) >= 2)
    free = shutil.disk_usage("/").free / 2**30
    yield Check("free disk", f"{free:.1f} GiB", free >= 5)
    found = [each for each in (*TOOLS, "docker", "podman", "kubectl") if shutil.which(each)]
    yield Check("programs", ", ".join(found) or "none", bool(found))


def tool() -> str:
    """The program that can make a cluster here; raises Unsupported."""
    for name in TOOLS:
        if not shutil.which(name):
            continue
        if name == "kind" and not (shutil.which("docker") or shutil.which("podman")):
            continue
        if name == "k3s" and os.geteuid() != 0:
            continue
        return name
    raise Unsupported(
        "there is no cluster, and nothing that could make one here",
        hint="name a cluster: --kubeconfig, --context; or install kind (with Docker or Podman), "
        "minikube, or k3s (as root)",
    )


def make(name: str, say: Say) -> Made:
    """Make a cluster, or use the one that was made before; raises ApplyFailed."""
    return {"kind": _kind, "minikube": _minikube, "k3s": _k3s}[name](say)


def _kind(say: Say) -> Made:
    there = run(("kind", "get", "clusters"), _FAST, quiet=True).split()
    if NAME not in there:
        said(("kind", "create", "cluster", "--name", NAME, "--wait", "180s"), say)
    else:
        said(("kind", "export", "kubeconfig", "--name", NAME), say)
    return Made("kind", f"kind-{NAME}", "", ("kind", "delete", "cluster", "--name", NAME))


def _minikube(say: Say) -> Made:
    said(("minikube", "start", "--profile", NAME, "--wait", "all"), say)
    return Made("minikube", NAME, "", ("minikube", "delete", "--profile", NAME))


def _k3s(say: Say, patience: float = 120.0) -> Made:
    """It is a program that stays: as the service that its installer made, else in a session of its
    own.
    """
    unit = Path("/etc/systemd/system/k3s.service")
    stop: tuple[str, ...] = ("k3s-killall.sh",)
    if unit.exists() and shutil.which("systemctl"):
        said(("systemctl", "start", "k3s"), say)
        stop = ("systemctl", "stop", "k3s")
    elif not K3S.exists():
        words = ("k3s", "server", "--write-kubeconfig-mode", "600", "--disable", "traefik")
        say(f"$ {' '.join(words)}")
        with open("/dev/null", "r+b") as nothing:
            server = subprocess.Popen(
                words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
            )
        _staying.append(server)
    until = time.monotonic() + patience
    while not K3S.exists():
        if time.monotonic() > until:
            raise ApplyFailed("k3s does not come up", hint="run it by hand: k3s server")
        time.sleep(0.5)
    return Made("k3s", "default", str(K3S), stop)


def load(made: Made, image: str, say: Say) -> bool:
    """Hand an image of the local engine to the cluster's nodes; False where there is no such image
    here, so that nodes have to fetch it.
    """
    engine = next((each for each in ("docker", "podman") if shutil.which(each)), "")
    if not engine:
        return False
    look = (engine, "image", "inspect", "--format", "{{.Id}}", image)
    if _status(look, _FAST)[0]:
        return False
    if made.tool == "kind" and engine == "docker":
        said(("kind", "load", "docker-image", image, "--name", NAME), say)
        return True
    if made.tool == "minikube" and engine == "docker":
        said(("minikube", "--profile", NAME, "image", "load", image), say)
        return True
    import tempfile

    with tempfile.TemporaryDirectory(prefix="faultline-image-") as folder:
        file = f"{folder}/image.tar"
        said((engine, "save", "--output", file, image), say)
        into = {
            "kind": ("kind", "load", "image-archive", file, "--name", NAME),
            "minikube": ("minikube", "--profile", NAME, "image", "load", file),
            "k3s": ("k3s", "ctr", "images", "import", file),
        }
        said(into[made.tool], say)
    return True


def said(words: tuple[str, ...], say: Say) -> str:
    """Show a command and run it; raises ApplyFailed where it fails."""
    say(f"$ {' '.join(words)}")
    return run(words, _SLOW)


def run(words: tuple[str, ...], patience: float, *, quiet: bool = False) -> str:
    """What it prints; raises ApplyFailed where it fails."""
    status, out, complaint = _status(words, patience)
    if status and not quiet:
        told = "\n  ".join(complaint.strip().splitlines()[-8:])
        raise ApplyFailed(f"{words[0]} failed with status {status}: {told}")
    return out


def _status(words: tuple[str, ...], patience: float) -> tuple[int, str, str]:
    program = shutil.which(words[0])
    if program is None:
        raise Unsupported(f"{words[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=patience, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ApplyFailed(f"{words[0]} does not end within {patience:g} s") from error
    return done.returncode, done.stdout, done.stderr
