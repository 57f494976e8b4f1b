"""Probes, selectors and drivers of traffic of somebody else: a package, a program or an endpoint.

A package adds a class by an entry point in one of the groups; a program or an endpoint has a
manifest in the folder that the host's owner allows, as a fault of somebody else has. A program is
confined as there; a package is trusted, since it runs in our own process.
"""

from __future__ import annotations

import os
import uuid
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, Literal, Self

from faultline.changes import endpoint, program
from faultline.changes.kind import Data
from faultline.changes.plugin import text_of
from faultline.errors import Bug, ObserveFailed, UnknownName, nearest
from faultline.injection import manifest
from faultline.injection.manifest import Manifest

PROTOCOL: Final = 1

Group = Literal[
    "faultline.probes", "faultline.selectors", "faultline.cluster_selectors", "faultline.traffic"
]


@cache
def installed(group: Group) -> dict[str, EntryPoint]:
    """The plug-ins of installed packages by name; two of one name are refused."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if found.setdefault(point.name, point).value != point.value:
            raise Bug(f"two packages claim {point.name!r} in {group}")
    return found


def load(group: Group, name: str) -> Any:
    """What an entry point leads to; raises UnknownName."""
    known = installed(group)
    if name not in known:
        hint = nearest(name, known) if known else "see docs/plugins.md"
        raise UnknownName(f"there is no plug-in {name!r} of {group}", hint=hint)
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise UnknownName(f"plug-in {name!r} of {group} cannot be loaded: {error}") from error


def is_manifest(group: Group, name: str) -> bool:
    """Whether the name is that of a manifest and not of a package; raises UnknownName for both."""
    there = manifest.exists(name)
    if there and name in installed(group):
        raise UnknownName(
            f"{name!r} is a manifest and an entry point of {group}",
            hint="name the manifest by its path",
        )
    return there or "/" in name


class Called:
    """A program or an endpoint that answers to verbs. A context manager; one call at a time.

    A program is opened once, and what was opened is what runs, as long as its content is the same.
    """

    def __init__(self, found: Manifest, path: Path) -> None:
        self.manifest = found
        self.mark = f"ask-{uuid.uuid4().hex}"
        self._fd = -1
        self._program = str(path.parent / found.executable) if found.executable else ""
        if self._program:
            self._digest = program.fingerprint(self._program)
            self._fd = program.open_checked(self._program, str(manifest.folder()), self._digest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the program. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def ask(self, verb: str, values: Data, seconds: float, name: str = "") -> Data:
        """What it answers within this time, or its own if that is less; raises ObserveFailed."""
        found = self.manifest
        patience = min(seconds, found.limits.time.seconds)
        message: Data = {
            "protocol": PROTOCOL,
            "verb": verb,
            "name": name,
            "parameters": values,
            "timeout": patience,
        }
        if found.url:
            where = {"url": found.url.rstrip("/"), "token": found.token, "time": patience}
            return endpoint.call(where, verb, message, None)
        if not program.same(self._fd, self._digest):
            raise ObserveFailed(f"the program {self._program} has changed since it was opened")
        limits = {**found.limits.spec(), "time": patience}
        environment = {
            "FAULTLINE_VERB": verb,
            "FAULTLINE_NAME": name,
            "FAULTLINE_TIMEOUT": f"{patience:g}",
            "FAULTLINE_CALL": self.mark,
        }
        for each, value in values.items():
            environment[f"FAULTLINE_PARAMETER_{each.upper()}"] = text_of(value)
        answer = program.call(self._fd, [self._program, verb], limits, message, environment)
        if answer.status != 0:
            raise ObserveFailed(f"{found.name} {verb} {answer.words}")
        return endpoint.parsed(answer.out, f"{found.name} {verb}")
