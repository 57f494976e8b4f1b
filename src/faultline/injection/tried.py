"""What was tried of this kernel, kept in memory until something changes that it may depend on.

Trying takes a network namespace and a tenth of a second, and every command would pay for it. What
is kept says under which conditions it was found: the start of the kernel, its modules, our rights.
It lies beside the run folders, where nobody else can write; without such a place it is tried anew.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from faultline import __version__
from faultline.changes.store import check_trust, memory_folder
from faultline.errors import UntrustedStore
from faultline.kernel import clock, features, userns
from faultline.kernel.features import Features

_PASSING = (errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOSPC,
            errno.EBUSY, errno.EINTR, errno.EIO)  # fmt: skip
_RIGHTS = ("CapEff:", "NoNewPrivs:", "Seccomp:")
_SETTINGS = (
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/user/max_net_namespaces",
    "/proc/self/attr/current",
    "/sys/kernel/security/lockdown",
)


def known() -> Features:
    """What was found under the present conditions; tried now if that is not known."""
    try:
        kept: Any = json.loads(_file().read_bytes())
        if kept["conditions"] == _conditions():
            return Features(frozenset(kept["present"]), dict(kept["missing"]))
    except (OSError, ValueError, LookupError, TypeError, UntrustedStore):
        pass  # it is only a memory
    return anew()


def anew() -> Features:
    """Try it now, and keep what was found."""
    found = features.probe_features()
    passing = tuple(map(os.strerror, _PASSING))
    if not any(passing_by in why for why in found.missing.values() for passing_by in passing):
        with suppress(OSError, UntrustedStore):
            _keep(found)
    return found


def _keep(found: Features) -> None:
    file = _file()
    text = json.dumps(
        {
            # Asked for after the trial, which may have loaded modules.
            "conditions": _conditions(),
            "present": sorted(found.present),
            "missing": found.missing,
        }
    )
    new = file.with_name(f"{file.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(file)


def _file() -> Path:
    if userns.current() != userns.INITIAL:
        raise FileNotFoundError(errno.ENOENT, "in a user namespace, of which there may be many")
    folder = memory_folder()
    check_trust(folder)
    return folder / "features"


def _conditions() -> list[Any]:
    """All that may change what works."""
    kernel = os.uname()
    status = Path("/proc/self/status").read_text().splitlines()
    return [
        __version__,
        list(features.FEATURES),
        clock.boot_id(),
        kernel.release,
        kernel.version,
        os.geteuid(),
        [line for line in status if line.startswith(_RIGHTS)],
        _modules(kernel.release),
        [_text(path) for path in _SETTINGS],
    ]


def _modules(release: str) -> list[int]:
    """The modules that are loaded, and when those that can be were last changed."""
    loaded = sorted(line.partition(" ")[0] for line in _text("/proc/modules").splitlines())
    try:
        changed = Path(f"/lib/modules/{release}/modules.dep").stat().st_mtime_ns
    except OSError:
        changed = 0
    return [zlib.crc32(" ".join(loaded).encode()), changed]


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
