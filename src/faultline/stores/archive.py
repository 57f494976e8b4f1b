"""Runs in one file, to be kept elsewhere and read back: `.tar.gz`, or `.tar.zst` with zstd.

The file holds one JSON document for each run, `runs/NAME.json`, as `faultline report --as json`
shows it, and `archive.json`. What is read back is a stranger's: it is checked as any document, and
a run that has not ended is refused, since an engine would carry it out.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from faultline.errors import InvalidDocument, Unsupported, UsageError
from faultline.stores.model import Exists, Store

if TYPE_CHECKING:
    from faultline.api.run import Run

FORMAT = 1
_ABOUT = "archive.json"
_FOLDER = "runs/"
_MOST = 512 << 20  # bytes of one document
_ENDINGS = (".tar.gz", ".tgz", ".tar.zst")


@dataclass(slots=True)
class Imported:
    """What became of the runs in a file, by name."""

    added: list[str] = field(default_factory=list[str])
    present: list[str] = field(default_factory=list[str])  # the same run was there already
    taken: list[str] = field(default_factory=list[str])  # another run has that name; left out


def write(store: Store, names: Iterable[str], target: Path) -> int:
    """Write these runs to a new file; how many. The file is complete and on disk, or not there.

    Raises UsageError if the file is there or cannot be written, or if a run has not ended.
    """
    from faultline.api.run import Run

    _check_name(target)
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name a new file")
    part = target.with_name(f".{target.name}.part")
    count = 0
    try:
        with _packing(part) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
            for name in names:
                _add(tar, f"{_FOLDER}{name}.json", _ended(store.get(Run, name)))
                count += 1
            about = {"format": FORMAT, "made": time.time(), "runs": count}
            _add(tar, _ABOUT, json.dumps(about))
        descriptor = os.open(part, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        part.rename(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _ended(run: Run) -> str:
    if run.status.ended is None:
        raise UsageError(f"run {run.metadata.name} has not ended", hint="archive it when it has")
    return json.dumps(run.to_json(), separators=(",", ":"))


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
    tar.addfile(info, io.BytesIO(data))


def load(store: Store, source: Path) -> Imported:
    """Add the runs of a file to a store, with their uids and times; raises InvalidDocument."""
    from faultline.api.run import Run

    found = Imported()
    for run in _runs(source):
        name = run.metadata.name
        try:
            store.restore(run)
            found.added.append(name)
        except Exists:
            same = store.get(Run, name).metadata.uid == run.metadata.uid
            (found.present if same else found.taken).append(name)
    return found


def _runs(source: Path) -> Iterator[Run]:
    from faultline.api.document import read
    from faultline.api.run import Run

    for name, data in _documents(source):
        run = read(Run, data, f"{source}: {name}")
        if run.status.ended is None:
            raise InvalidDocument(
                f"{source}: {name} has not ended", hint="an engine would carry it out"
            )
        yield run


def _documents(source: Path) -> Iterator[tuple[str, Any]]:
    _check_name(source)
    complete = False
    try:
        with _unpacking(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is None or member.size > _MOST:
                    raise InvalidDocument(f"{source}: {member.name} is no document of ours")
                data = json.loads(file.read())
                if member.name == _ABOUT:
                    _check_format(source, data)
                    complete = True
                elif member.name.startswith(_FOLDER):
                    yield member.name, data
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise InvalidDocument(f"{source} cannot be read: {error}") from error
    if not complete:
        raise InvalidDocument(f"{source} is not complete: {_ABOUT} is missing at its end")


def _check_format(source: Path, about: Any) -> None:
    if not isinstance(about, dict) or about.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
        raise InvalidDocument(f"{source} is of another format than {FORMAT}", hint="upgrade")


def _check_name(path: Path) -> None:
    if not path.name.endswith(_ENDINGS):
        raise UsageError(f"{path} ends in none of {', '.join(_ENDINGS)}")
    if path.suffix == ".zst" and not shutil.which("zstd"):
        raise Unsupported("a .zst file needs the program zstd", hint="install it, or use .tar.gz")


@contextmanager
def _packing(path: Path) -> Generator[IO[bytes]]:
    import gzip

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        if ".zst" not in path.suffixes:
            with gzip.GzipFile("", "wb", 6, file) as stream:
                yield stream  # pyright: ignore[reportReturnType] (it is one in all that tar asks)
            return
        with subprocess.Popen(
            [shutil.which("zstd") or "zstd", "-q", "-c"], stdin=subprocess.PIPE, stdout=file
        ) as process:
            assert process.stdin is not None
            yield process.stdin
            process.stdin.close()
            if process.wait():
                raise OSError(0, f"zstd ended with {process.returncode}")


@contextmanager
def _unpacking(path: Path) -> Generator[IO[bytes]]:
    import gzip

    if path.suffix != ".zst":
        with gzip.open(path) as stream:
            yield stream  # pyright: ignore[reportReturnType]
        return
    with (
        path.open("rb") as file,
        subprocess.Popen(
            [shutil.which("zstd") or "zstd", "-q", "-d", "-c"],
            stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        yield process.stdout
        process.stdout.read()  # what follows the end of the archive
        if process.wait():
            raise OSError(0, "it is not what zstd wrote")
