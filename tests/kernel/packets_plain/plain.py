"""An ordinary user: who he is, which interpreter he may run, a home that he may write."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import faultline
from faultline.kernel import procfs

SOURCE = Path(faultline.__file__).parents[1]
PACKAGES = Path(sysconfig.get_paths()["purelib"])
INSIDE = Path(__file__).with_name("inside.py")
NOBODY = 65534
SUITE = "FAULTLINE_SUITE"
NEEDED = "import aiohttp, click, hdrh, jinja2, pydantic, uvloop, yaml, faultline.cli.main"


@dataclass(frozen=True)
class Plain:
    """Runs programs as an ordinary user; all that they write lies below `home`."""

    python: str
    home: Path
    timeout: float = 60.0

    def run(self, *arguments: str, timeout: float = 0.0) -> subprocess.CompletedProcess[str]:
        """The interpreter with these arguments, in no namespace but the first."""
        return subprocess.run(
            [self.python, *arguments],
            env=_environment(self.home),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout or self.timeout,
            check=False,
            **_as_user(),
        )

    def faultline(self, *arguments: str, timeout: float = 0.0) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "faultline.cli.main", *arguments, timeout=timeout)

    def inside(self, scenario: str, **options: Any) -> Any:
        """What a scenario of `inside.py` tells, carried out in a user and a network namespace."""
        done = self.run(str(INSIDE), scenario, json.dumps(options))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])


def _as_user() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _environment(home: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "PYTHONPATH": f"{SOURCE}:{PACKAGES}",
        "PYTHONDONTWRITEBYTECODE": "1",
        SUITE: os.environ.get(SUITE, ""),
    }


@cache
def interpreter() -> tuple[str, str]:
    """An interpreter that this user may run with what the project needs; or '' and why not."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = getattr(sys, "_base_executable", None) or sys.executable
    tried: list[str] = []
    for candidate in dict.fromkeys((base, shutil.which(version, path="/usr/local/bin:/usr/bin"))):
        if candidate is None:
            continue
        try:
            subprocess.run(
                [candidate, "-c", NEEDED],
                env=_environment(Path("/nonexistent")),
                cwd="/",
                capture_output=True,
                check=True,
                **_as_user(),
            )
        except OSError as error:
            tried.append(f"{candidate}: {error.strerror}")
        except subprocess.CalledProcessError as error:
            tried.append(f"{candidate}: {error.stderr.decode().strip().splitlines()[-1]}")
        else:
            return candidate, ""
    who = pwd.getpwuid(NOBODY).pw_name if os.geteuid() == 0 else "this user"
    return "", f"{who} may run no interpreter with the project's packages: {'; '.join(tried)}"


@contextlib.contextmanager
def user() -> Iterator[Plain]:
    """A home for one test; at the end every process that was started from it has ended."""
    home = Path(tempfile.mkdtemp(prefix="faultline-plain-"))
    (home / "run").mkdir(mode=0o700)
    if os.geteuid() == 0:
        for folder in (home, home / "run"):
            os.chown(folder, NOBODY, NOBODY)
    try:
        yield Plain(interpreter()[0], home)
        _wait_for_the_end(home)
    finally:
        shutil.rmtree(home)


def _wait_for_the_end(home: Path) -> None:
    """Keepers that hold nothing end by themselves after some seconds."""
    until = time.monotonic() + 20
    while left := procfs.find_by_environment("HOME", str(home)):
        assert time.monotonic() < until, f"still running: {left}"
        time.sleep(0.1)
