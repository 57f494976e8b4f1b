"""The file probe: how large, how old, whether it is there, what stands in it."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator

from faultline.api.probe import FileProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import prober
from faultline.probes.apart import Apart
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Figures

_CHUNK = 1 << 20
_LONGEST = 1 << 16  # bytes of a line; what is longer is judged in pieces
_LEFT_BEHIND = 8  # measurements that may wait for a disk that hangs


class Prober(prober.Prober[FileProbe]):
    """Its value is bytes, seconds, 1 or 0, or a number of lines."""

    def __init__(self, spec: FileProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._apart = Apart(f"file {spec.name}", _LEFT_BEHIND)

    def look(self, limit: Limit) -> Measurement:
        return self._apart.run(limit, lambda: self._look(limit))

    def _look(self, limit: Limit) -> Measurement:
        spec = self.spec
        try:
            status = os.stat(spec.path)  # noqa: PTH116 (all of its errors are told apart below)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return self._absent()
            raise _failure(spec.path, error) from error
        age = time.time() - status.st_mtime
        values = {"size": float(status.st_size), "age": age, "exists": 1.0}
        matches, line = 0, ""
        good, text = True, f"{status.st_size} bytes, written {age:.3g} s ago"
        if spec.pattern:
            matches, line = self._search(status, limit)
            values["matches"] = float(matches)
            good = matches > 0 or (spec.measure == "matches" and spec.expect is not None)
            text = f"{matches} lines match: {self.quoted(line)}" if matches else text
            text += "" if matches else f", without {spec.pattern!r}"
        result = {
            "exists": True,
            "size": status.st_size,
            "age": age,
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "matches": matches,
            "line": line,
        }
        return Measurement(value=values[spec.measure], ok=good, text=text, result=result)

    def _absent(self) -> Measurement:
        spec, text = self.spec, f"{self.spec.path} does not exist"
        if spec.measure != "exists":
            raise NoAnswer(text)
        # Without an expectation it should be there; with one, its absence may be good.
        good = spec.expect is not None and not spec.pattern
        return Measurement(value=0.0, ok=good, text=text, result={"exists": False})

    def _search(self, status: os.stat_result, limit: Limit) -> tuple[int, str]:
        """How many lines match, and the last one of them."""
        if not stat.S_ISREG(status.st_mode):
            raise ObserveFailed(f"{self.spec.path} is no ordinary file")
        if status.st_size > self.spec.largest:
            raise ObserveFailed(f"{self.spec.path} is larger than {self.spec.largest}")
        pattern = re.compile(self.spec.pattern)
        count, last = 0, ""
        for line in _lines(self.spec.path, int(self.spec.largest), limit):
            text = line.decode(errors="replace")
            if pattern.search(text):
                count, last = count + 1, text[:200]
        return count, last


def _lines(path: str, most: int, limit: Limit) -> Iterator[bytes]:
    """The lines of a file, without their ends; it may grow while it is read."""
    rest, seen = b"", 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            while (data := os.read(fd, _CHUNK)) and seen < most:
                seen += len(data)
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
                if len(rest) > _LONGEST:
                    yield rest
                    rest = b""
                limit.left()
        finally:
            os.close(fd)
    except OSError as error:
        raise _failure(path, error) from error
    if rest:
        yield rest


def _failure(path: str, error: OSError) -> NoAnswer | ObserveFailed:
    """A disk that fails is what a probe exists to see; what we may not look at is not."""
    text = f"{path}: {error.strerror}"
    if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT):
        return NoAnswer(text)
    return ObserveFailed(text)
