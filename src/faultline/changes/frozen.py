"""The frozen copy of the undo code, and starting bare interpreters from it.

A keeper and every worker run from a copy inside the store, by the interpreter that the environment
was made from: an upgrade or removal of the package while faults are active takes nothing away from
them.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from faultline.changes.store import Store, check_trust, make_private
from faultline.kernel import syscalls

PARTS = ("__init__.py", "errors.py", "units.py", "kernel", "workers", "changes")
BOOT = (
    "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, sys.argv[1]); "
    "import faultline.kernel.lean, importlib; importlib.import_module(sys.argv[2]).main()"
)


def code_folder(store: Store) -> Path:
    """The folder of the frozen copy of this version, made and compiled on first use."""
    source = Path(__file__).resolve().parents[1]
    if source.parent.parent == store.state / "code":
        return source.parent  # we are the frozen copy
    target = store.state / "code" / _digest(source)
    if not target.exists():
        _copy(source, target)
    check_trust(target)
    return target


def _files(source: Path) -> list[Path]:
    found: list[Path] = []
    for part in PARTS:
        path = source / part
        found += sorted(path.glob("*.py")) if path.is_dir() else [path]
    return found


@cache
def _digest(source: Path) -> str:
    import hashlib  # 4 MiB that a keeper, which runs from the copy, does not need

    digest = hashlib.sha256(f"{sys.version_info[:3]}".encode())
    for file in _files(source):
        info = file.stat()
        digest.update(f"{file.relative_to(source)} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    """Copy beside, write it out, then rename: a reader sees all of it or nothing, also one that
    comes after the power failed.
    """
    import compileall
    import shutil
    import threading

    # Two threads of one process can be here at once.
    scratch = target.with_name(f"{target.name}.{os.getpid()}-{threading.get_native_id()}")
    for file in _files(source):
        copy = scratch / "faultline" / file.relative_to(source)
        make_private(copy.parent)
        copy.write_bytes(file.read_bytes())
    compileall.compile_dir(scratch, quiet=2)
    above = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscalls.syncfs(above)
        scratch.rename(target)
        os.fsync(above)
    except OSError:  # another process was first; its copy is the same
        shutil.rmtree(scratch)
    finally:
        os.close(above)


def command(code: str, module: str, *arguments: str) -> list[str]:
    """The argument list that runs `faultline.MODULE.main()` on a bare interpreter.

    The interpreter behind a virtual environment is used, since the environment may be removed.
    """
    return [_interpreter(), "-I", "-S", "-c", BOOT, code, f"faultline.{module}", *arguments]


@cache
def _interpreter() -> str:
    """The program that runs us, where this user may run it: what a virtual environment says of it
    may lie in a folder that only another user can enter.
    """
    named = getattr(sys, "_base_executable", None) or ""
    running = str(Path("/proc/self/exe").readlink())
    candidates = (named, running if "python" in Path(running).name else "", sys.executable)
    return next((each for each in candidates if each and os.access(each, os.X_OK)), sys.executable)
