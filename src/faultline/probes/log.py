"""The log probe: new lines that match, followed over rotation and truncation.

The file is known by its device and inode. When another file has its name, the rest of the old one
is read first and then the new one from its beginning. When it has become shorter, or the bytes
before our position are not those that we read, it was emptied in place: it is read from the start.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from faultline.api.probe import LogProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.apart import Apart
from faultline.probes.limit import Limit
from faultline.probes.prober import Figures

_CHUNK = 1 << 20
_LONGEST = 1 << 16  # bytes of a line; what is longer is judged in pieces
_MEMORY = 64  # bytes before the position, by which a rewritten file is known


@dataclass(slots=True)
class _Open:
    """A file that is being followed."""

    fd: int
    key: tuple[int, int]  # device and inode
    position: int
    before: bytes = b""  # the last bytes before the position
    rest: bytes = b""  # the beginning of a line that is not complete yet


class Prober(prober.Prober[LogProbe]):
    """Its value is the number of matching lines since the start, or per second."""

    def __init__(self, spec: LogProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        named = spec.patterns or {"pattern": spec.pattern}
        self._patterns = {name: re.compile(pattern) for name, pattern in named.items()}
        self._ignore = re.compile(spec.ignore) if spec.ignore else None
        self._counts = dict.fromkeys(named, 0)
        self._matches = 0
        self._apart = Apart(f"log {spec.name}")  # one at a time: they share the position
        self._last = ""
        self._at = monotonic()
        self._file: _Open | None = None
        if Path(spec.path).exists():
            self._file = self._open()
            self._skip_to_end(self._file)

    def look(self, limit: Limit) -> Measurement:
        return self._apart.run(limit, lambda: self._look(limit))

    def _look(self, limit: Limit) -> Measurement:
        before = self._matches
        self._follow(limit)
        found, at = self._matches - before, monotonic()
        elapsed, self._at = at - self._at, at
        value = float(self._matches)
        if self.spec.count_as == "rate":
            value = found / max(elapsed, 1e-3)
        text = f"{found} new, {self._matches} in all" + (f": {self._last}" if found else "")
        result: dict[str, Any] = {"total": self._matches, "new": found, "line": self._last}
        if self.spec.patterns:
            result["counts"] = dict(self._counts)
            said = ", ".join(f"{count} {name}" for name, count in self._counts.items() if count)
            text += f" ({said})" if said else ""
        return Measurement(value=value, ok=True, text=text, result=result, keep=self._place())

    def _place(self) -> dict[str, Any]:
        """What has been counted, and how far the file has been read."""
        counted: dict[str, Any] = {"matches": self._matches, "counts": dict(self._counts)}
        if (file := self._file) is None:
            return counted
        read = file.position - len(file.rest)
        before = file.before[: max(0, len(file.before) - len(file.rest))]
        return {**counted, "file": [*file.key, read], "before": before.hex()}

    def recall(self, kept: dict[str, Any]) -> None:
        """Lines that were written while no engine was running count, too, as far as they are still
        in the file; another file of that name is new from its start.
        """
        self._matches, self._counts = kept["matches"], dict(kept["counts"])
        if self._file is None or "file" not in kept:
            return
        *key, position = kept["file"]
        same = self._file.key == tuple(key)
        self._file.position = position if same else 0
        self._file.before = bytes.fromhex(kept["before"]) if same else b""

    def _open(self) -> _Open:
        try:
            fd = os.open(self.spec.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ObserveFailed(f"{self.spec.path}: {error.strerror}") from error
        status = os.fstat(fd)
        return _Open(fd, (status.st_dev, status.st_ino), 0)

    def _skip_to_end(self, file: _Open) -> None:
        file.position = os.fstat(file.fd).st_size
        file.before = os.pread(file.fd, _MEMORY, max(0, file.position - _MEMORY))

    def _follow(self, limit: Limit) -> None:
        if self._file is not None:
            self._read(self._file, limit)
        try:
            status = Path(self.spec.path).stat()
        except FileNotFoundError:
            if self._file is None:
                raise ObserveFailed(f"{self.spec.path} does not exist") from None
            return  # moved away; the next file under this name is yet to come
        if self._file is not None and self._file.key == (status.st_dev, status.st_ino):
            return
        if self._file is not None:
            self._read(self._file, limit)  # what was written between reading and looking
            self._judge(self._file.rest)  # its last line gets no end any more
            os.close(self._file.fd)
        self._file = self._open()
        self._read(self._file, limit)

    def _read(self, file: _Open, limit: Limit) -> None:
        held = os.pread(file.fd, len(file.before), file.position - len(file.before))
        if os.fstat(file.fd).st_size < file.position or held != file.before:
            file.position, file.before, file.rest = 0, b"", b""
        while data := os.pread(file.fd, _CHUNK, file.position):
            file.position += len(data)
            file.before = (file.before + data)[-_MEMORY:]
            *lines, file.rest = (file.rest + data).split(b"\n")
            for line in lines:
                self._judge(line)
            if len(file.rest) > _LONGEST:
                self._judge(file.rest)
                file.rest = b""
            limit.left()  # a log that grows faster than it can be read is an answer too late

    def _judge(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if not line or (self._ignore and self._ignore.search(text)):
            return
        matching = [name for name, pattern in self._patterns.items() if pattern.search(text)]
        for name in matching:
            self._counts[name] += 1
        if matching:
            self._matches += 1
            self._last = text[:200]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None
