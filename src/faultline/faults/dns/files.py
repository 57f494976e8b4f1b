"""Faults of name resolution: what the files say that a program's resolver reads.

Both files are changed in place, the same inode: in containers they are mounted one by one, so a
renamed copy would not be seen, or could not be made.
"""

from __future__ import annotations

import re
import subprocess
import sys
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from faultline.api.params import Params
from faultline.api.quantities import Flag
from faultline.changes import edits
from faultline.changes.model import Change, Record
from faultline.faults.file import FilePath
from faultline.injection.file_target import linked, note_root, readable, status_of, verdict
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import walk
from faultline.places.model import Place

_MOST = 3  # name servers that resolvers take (resolv.conf(5), MAXNS)
_HOSTS, _RESOLVER = "/etc/hosts", "/etc/resolv.conf"
_LOOK = """
import json, socket, sys
print(json.dumps([each[4][0] for each in socket.getaddrinfo(sys.argv[1], None)]))
"""
_CANNOT = (
    "A program that has looked a name up already, or asks a cache (systemd-resolved, nscd), goes "
    "on with what it knows. The containers of a pod share these files. Whoever manages them "
    "(a DHCP client, a container runtime) may write them anew. "
)
_NOTE = "A note of ours and a copy (0600) lie in the same folder until it is undone. "


def parts(text: str) -> list[str]:
    """The items of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def address_list(text: str) -> str:
    """Addresses, separated by commas; raises ValueError for others."""
    for part in parts(text):
        ip_address(part)
    return _not_empty(text)


def _hosts(text: str) -> str:
    for part in parts(text):
        if len(part) > 253 or not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", part, re.ASCII):
            raise ValueError("expected host names, separated by commas")
    return _not_empty(text)


def _not_empty(text: str) -> str:
    if not parts(text):
        raise ValueError("expected at least one")
    return text


def _few(text: str) -> str:
    if len(parts(text)) > _MOST:
        raise ValueError(f"expected at most {_MOST}: resolvers take no more")
    return text


Addresses = Annotated[str, AfterValidator(address_list), Field(max_length=4096)]


class _FileParams(Params):
    path: Annotated[FilePath, Flag("p")]
    """The file."""


P = TypeVar("P", bound=_FileParams)


class _DnsFault(Fault[P]):
    """What the faults of the resolver's files share."""

    ending = Ending.KEEPER
    scratch = "file"
    restores = (
        "The lines from before, same inode, times and mode; what others changed meanwhile stays."
    )

    def spec(self, params: P) -> dict[str, Any]:
        """The edit as the change of a file's content takes it."""
        raise NotImplementedError

    def plan(self, place: Place, params: P) -> list[Change]:
        note_root(place, params.path)
        with place.root() as root:
            path = walk.resolve(params.path, root)  # systems keep a link at the usual place
        edit = self.spec(params)
        if status_of(place, path) is None and (made := edits.edited(edit, b"")):
            new = {"path": path, "content": made.decode(), "mode": 0o644}
            return [Change("file_added", {**new, "parents": False, "replaces": False})]
        return [Change("file_content", {"path": path, **edit, "links": linked(place, path)})]

    def _content(self, place: Place, params: P) -> bytes | None:
        with place.root() as root:
            path = walk.resolve(params.path, root)
        with readable(place, path) as fd:
            if fd is None:
                return None
            with open(fd, "rb", closefd=False) as file:
                return file.read(1 << 24)


class RecordParams(_FileParams):
    """Parameters of `dns record`."""

    host: Annotated[str, AfterValidator(_hosts), Field(max_length=4096), Flag("d", ("domain",))]
    """The host names, separated by commas."""
    address: Annotated[Addresses | None, Flag("i", ("ip",))] = None
    """With `mode: add` the addresses that they lead to, separated by commas."""
    mode: Annotated[Literal["add", "remove"], Flag("m")] = "add"
    """add: the names lead to these addresses alone; remove: the table does not have them."""
    path: Annotated[FilePath, Flag("p")] = _HOSTS
    """The table of host names (hosts(5))."""

    @model_validator(mode="after")
    def _address_of_add(self) -> RecordParams:
        if (self.mode == "add") != (self.address is not None):
            raise ValueError("expected an address to add, and none to remove")
        return self


class DnsRecord(_DnsFault[RecordParams]):
    """Let host names lead to a wrong address, or to none that the table of host names has.

    The table is asked before any name server, unless the system was set up otherwise.
    """

    id = "dns.record"
    does = _NOTE + "Writes the names into the first lines of /etc/hosts, and out of all others."
    cannot = _CANNOT + "A name that was removed may still be known to a name server."
    measures = (
        "Reads the table; for that of this host a fresh process looks the first name up "
        "(getaddrinfo)."
    )
    example: ClassVar[dict[str, str]] = {
        "host": "db.example.test",
        "address": "192.0.2.1",
        "path": "{folder}/hosts",
    }

    def spec(self, params: RecordParams) -> dict[str, Any]:
        return {"hosts": {"names": parts(params.host), "addresses": parts(params.address or "")}}

    def observe(self, place: Place, params: RecordParams, record: Record) -> Reading:
        wanted = parts(params.address or "")
        asked = f"{params.host} {'at ' + ', '.join(wanted) if wanted else 'not in the table'}"
        content = self._content(place, params)
        if content is None:
            return Reading.unmeasured(asked, self.measures, f"{params.path} is gone")
        found = {name: edits.addresses_of(content, name) for name in parts(params.host)}
        told = "; ".join(f"{name}: {', '.join(at) or 'none'}" for name, at in found.items())
        if any(at != wanted for at in found.values()):
            reason = "somebody has changed the table"
            return Reading(Effect.INEFFECTIVE, asked, told, self.measures, reason)
        if wanted and params.path == _HOSTS and not place.rooted:
            name = next(iter(found))
            seen = _looked_up(name)
            told += f"; looked up: {', '.join(seen) or 'nothing'}"
            same = {ip_address(each) for each in seen} == {ip_address(each) for each in wanted}
            reason = "programs here do not look into the table first (nsswitch.conf, a cache)"
            return verdict(asked, told, self.measures, same, reason)
        return Reading(Effect.EFFECTIVE, asked, told, self.measures)


def _looked_up(name: str) -> list[str]:
    """What a process that has just been started is told."""
    import json

    command = [sys.executable, "-I", "-S", "-c", _LOOK, name]
    try:
        told = subprocess.run(command, capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return []
    return sorted(set(json.loads(told.stdout))) if told.returncode == 0 else []


class ServerParams(_FileParams):
    """Parameters of `dns server`."""

    server: Annotated[Addresses, AfterValidator(_few), Flag("i", ("ip",))]
    """The addresses of name servers, at most three, separated by commas."""
    mode: Annotated[Literal["replace", "add", "remove"], Flag("m")] = "replace"
    """replace: only these are asked; add: these before the others; remove: these not any more."""
    path: Annotated[FilePath, Flag("p")] = _RESOLVER
    """The settings of the resolver (resolv.conf(5))."""


class DnsServer(_DnsFault[ServerParams]):
    """Let programs ask the wrong name server, a silent one, or none of those they had."""

    id = "dns.server"
    does = _NOTE + "Changes the lines `nameserver` of /etc/resolv.conf."
    cannot = _CANNOT + "Without any line the resolver asks one on this very host."
    measures = "Reads the settings of the resolver."
    example: ClassVar[dict[str, str]] = {"server": "192.0.2.53", "path": "{folder}/resolv.conf"}

    def spec(self, params: ServerParams) -> dict[str, Any]:
        return {"servers": {"mode": params.mode, "addresses": parts(params.server)}}

    def observe(self, place: Place, params: ServerParams, record: Record) -> Reading:
        wanted = parts(params.server)
        asked = {"replace": "only ", "add": "first ", "remove": "without "}[params.mode]
        asked += params.server
        content = self._content(place, params)
        if content is None:
            return Reading.unmeasured(asked, self.measures, f"{params.path} is gone")
        found = edits.servers_of(content)
        ok = {
            "replace": found == wanted,
            "add": found[: len(wanted)] == wanted,
            "remove": not set(found) & set(wanted),
        }[params.mode]
        told = ", ".join(found) or "no name server"
        return verdict(asked, told, self.measures, ok, "somebody has changed the settings")
