"""A plug-in in any language: its manifest, the folder that the host's owner allows, its parameters.

It is a fault, a probe or a selector.

A manifest is a TOML file beside its program. What the program may do is what the manifest asks for
and the owner of the folder has put there: a plan shows it.
"""

from __future__ import annotations

import math
import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from faultline.api.params import Params, invalid
from faultline.api.quantities import Between, Duration, Size, text
from faultline.changes import program
from faultline.errors import FaultlineError, InvalidDocument, InvalidParameter, UnknownName, nearest
from faultline.kernel.syscalls import Namespace
from faultline.units import ByteRate, Percent, Rate
from faultline.units import Duration as DurationValue
from faultline.units import Size as SizeValue

ENVIRONMENT = "FAULTLINE_PLUGINS"
FOLDER = Path("/etc/faultline/plugins")
NAME = r"[a-z][a-z0-9-]{0,62}"
_FIELD = r"[a-z][a-z0-9_]{0,62}"
NAMESPACES = {
    "network": Namespace.NET, "ipc": Namespace.IPC, "uts": Namespace.UTS, "cgroup": Namespace.CGROUP
}  # fmt: skip
# capabilities(7), by number.
CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
]  # fmt: skip

_UNITS: dict[str, Any] = {
    "duration": DurationValue, "size": SizeValue, "rate": Rate, "byterate": ByteRate,
    "percent": Percent,
}  # fmt: skip


class Parameter(Params):
    """One parameter of a program: what it is, and what it may be."""

    type: Literal[
        "text", "path", "integer", "number", "boolean", "choice",
        "duration", "size", "rate", "byterate", "percent",
    ]  # fmt: skip
    """Quantities are given with their unit, and passed on in seconds, bytes, per second, 0 to 1."""
    help: Annotated[str, Field(min_length=1, max_length=500)]
    """What it means."""
    default: str | int | float | bool | None = None
    """What it is when it is not given; without, it must be given."""
    low: str | int | float | None = None
    """The least value."""
    high: str | int | float | None = None
    """The greatest value."""
    choices: list[str] = Field(default_factory=list[str])
    """What a `choice` may be."""
    pattern: str = ".*"
    """What the whole of a text or path must look like, as a regular expression."""

    @model_validator(mode="after")
    def _bounded(self) -> Parameter:
        counted = self.type in {"integer", "number", *_UNITS}
        if counted and (self.low is None or self.high is None):
            raise ValueError("expected low and high: what is counted has bounds")
        if self.type == "choice" and not self.choices:
            raise ValueError("expected choices")
        re.compile(self.pattern)
        for bound in (self.low, self.high) if counted else ():
            self.value("low", bound)
        return self

    def value(self, name: str, given: object) -> Any:
        """A value as the program gets it; raises InvalidParameter."""
        if self.type in _UNITS:
            return _plain(_UNITS[self.type].parse(given, name))
        words = "yes" if given is True else "no" if given is False else str(given)
        if self.type == "boolean":
            if words not in ("yes", "no", "true", "false"):
                raise InvalidParameter(name, given, "yes or no")
            return words in ("yes", "true")
        if self.type in ("integer", "number"):
            return _number(name, words, int if self.type == "integer" else float)
        return words

    def checked(self, name: str, given: object) -> Any:
        """The same within its bounds."""
        value = self.value(name, given)
        if self.low is not None and self.high is not None:
            if not self.value(name, self.low) <= value <= self.value(name, self.high):
                raise InvalidParameter(name, given, f"{self.low} to {self.high}")
        elif self.type == "choice" and value not in self.choices:
            raise InvalidParameter(name, given, " or ".join(self.choices))
        elif self.type == "path" and (not value.startswith("/") or "/../" in f"{value}/"):
            raise InvalidParameter(name, given, "a whole path, without '..'")
        if isinstance(value, str) and (
            not re.fullmatch(self.pattern, value) or len(value) > 4096 or "\0" in value
        ):
            raise InvalidParameter(name, given, f"text that fits {self.pattern}")
        return value


class Limits(Params):
    """What a program may have and use."""

    user: Annotated[str, Field(min_length=1)] = "root"
    """Who it runs as."""
    capabilities: list[str] = Field(default_factory=list[str])
    """Rights that it keeps, as `NET_ADMIN`; without, none, whoever it runs as."""
    namespaces: list[Literal["network", "ipc", "uts", "cgroup"]] = Field(
        default_factory=list[Literal["network", "ipc", "uts", "cgroup"]]
    )
    """Of which kinds it gets a new, empty one; without, it acts in those of its target or ours."""
    memory: Annotated[Size, Between("1MiB", "8GiB")] = text("256MiB")
    """Address space of each of its processes."""
    time: Annotated[Duration, Between("100ms", "2m")] = text("10s")
    """How long one call may take, processor time included."""
    files: Annotated[int, Between(8, 65536)] = 256
    """How many descriptors it may have open."""

    @model_validator(mode="after")
    def _known(self) -> Limits:
        for each in self.capabilities:
            if each.removeprefix("CAP_") not in CAPABILITIES:
                raise ValueError(f"expected capabilities by name, not {each}")
        return self

    def spec(self) -> dict[str, Any]:
        """As a change keeps it: numbers, so that an undo looks nothing up."""
        entry = _user(self.user) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        wanted = [each.removeprefix("CAP_") for each in self.capabilities]
        return {
            "user": entry.pw_uid,
            "group": entry.pw_gid,
            "capabilities": sorted(CAPABILITIES.index(each) for each in wanted),
            "namespaces": sum(int(NAMESPACES[each]) for each in self.namespaces),
            "memory": int(self.memory),
            "time": self.time.seconds,
            "files": self.files,
        }

    @property
    def words(self) -> str:
        """As a plan shows it."""
        rights = ", ".join(self.capabilities) or "no rights"
        own = f", {' and '.join(self.namespaces)} of its own" if self.namespaces else ""
        return f"as {self.user}, {rights}{own}, {self.memory} of memory, {self.time} a call"


Of = Literal["fault", "probe", "selector"]


class Manifest(Params):
    """What a plug-in of somebody else says about itself."""

    kind: Of = "fault"
    """What it is."""
    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    """Its name; that of the file without `.toml`."""
    summary: Annotated[str, Field(min_length=1, max_length=500)]
    """What the target suffers, or what is measured or selected, in a sentence."""
    executable: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = ""
    """The program, in the folder of the manifest."""
    url: Annotated[str, Field(pattern=r"^$|^https?://[^\s]+$")] = ""
    """Of a probe or a selector: an endpoint in place of a program; the verb is added."""
    token: str = ""
    """The file of a bearer token for the endpoint, which only its owner may read."""
    unit: Literal["", "s", "ratio", "B"] = ""
    """Of a probe: what its value counts: a plain number, seconds, a share from 0 to 1, bytes."""
    protocol: Literal[1] = 1
    """Which version of the protocol the program speaks."""
    claims: list[str] = Field(default_factory=list[str])
    """What it needs for itself alone: a second fault that claims the same is refused."""
    parameters: dict[Annotated[str, Field(pattern=f"^{_FIELD}$")], Parameter] = Field(
        default_factory=dict[str, Parameter]
    )
    """What it takes."""
    limits: Limits = Limits()
    """What it may have and use."""
    examples: list[dict[str, str]] = Field(min_length=1)
    """Parameters that `faultline conformance` tries it with."""
    unmeasurable: list[dict[str, str]] = Field(default_factory=list[dict[str, str]])
    """Of a probe: parameters with which it cannot measure, and has to say so."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Manifest:
        if bool(self.executable) == bool(self.url):
            raise ValueError("expected exactly one of executable and url")
        if self.kind == "fault" and self.url:
            raise ValueError("expected executable: an endpoint is a fault by `custom http`")
        if self.kind != "probe" and (self.unit or self.unmeasurable):
            raise ValueError("expected unit and unmeasurable only of a probe")
        if self.kind == "probe" and not self.unmeasurable:
            raise ValueError("expected unmeasurable: parameters with which it cannot measure")
        if self.token and not self.url:
            raise ValueError("expected token only with url")
        return self

    def values_of(self, given: Mapping[str, object]) -> dict[str, Any]:
        """The parameters as the program gets them; raises InvalidParameter."""
        for name, value in given.items():
            if name not in self.parameters:
                hint = nearest(name, self.parameters)
                raise InvalidParameter(name, value, "no such parameter", hint=hint)
        found: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = given.get(name, parameter.default)
            if value is None:
                raise InvalidParameter(name, None, f"a value: {parameter.help}")
            found[name] = parameter.checked(name, value)
        return found


def folder() -> Path:
    """Where the host's owner allows programs to be run from as faults."""
    return Path(os.environ.get(ENVIRONMENT) or FOLDER).absolute()


def exists(which: str) -> bool:
    """Whether the allowed folder has a manifest of this name, or one lies at this path."""
    return (Path(which) if "/" in which else folder() / f"{which}.toml").is_file()


def load(which: str, kind: Of | None = None) -> tuple[Manifest, Path]:
    """A manifest by its name or path, with its path; raises Refused outside of the folder, and
    UnknownName for one of another kind.
    """
    path = Path(which).absolute() if "/" in which else folder() / f"{which}.toml"
    if not path.is_file():
        known = [each.stem for each in folder().glob("*.toml")] if folder().is_dir() else []
        raise UnknownName(f"there is no manifest {path}", hint=nearest(path.stem, known))
    program.check(str(path), str(folder()))
    try:
        manifest = Manifest.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise InvalidDocument(f"{path} is not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{path} is not text") from error
    except ValidationError as error:
        raise InvalidDocument(f"{path}: {invalid(error).message}") from error
    except FaultlineError as error:
        raise InvalidDocument(f"{path}: {error.message}") from error
    if manifest.name != path.stem:
        raise InvalidDocument(f"{path} names itself {manifest.name}")
    if kind is not None and manifest.kind != kind:
        raise UnknownName(f"{manifest.name} is a {manifest.kind}, not a {kind}")
    return manifest, path


def assigned(pairs: list[str]) -> dict[str, str]:
    """NAME=VALUE as a table; raises InvalidParameter."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(_FIELD, name) or name in found:
            raise InvalidParameter("parameters", pair, "NAME=VALUE, each name once")
        found[name] = value
    return found


def _plain(value: Any) -> Any:
    """A quantity as a program of any language takes it."""
    if isinstance(value, DurationValue):
        return value.seconds
    return value.ratio if isinstance(value, Percent) else int(value)


def _number(name: str, words: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = kind(words)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise InvalidParameter(name, words, "a whole number" if kind is int else "a number")
    return value


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise InvalidDocument(f"limits: this host has no user {name}") from error
