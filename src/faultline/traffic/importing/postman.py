"""A collection of Postman (2.0, 2.1): each folder is a scenario, in the order of its requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from faultline.traffic.importing.jsontree import Entries, each, entries, items, text
from faultline.traffic.importing.plan import (
    PLACE,
    Call,
    Flow,
    Plan,
    Secret,
    Take,
    clean,
    is_secret,
    names_in,
    place,
    placed,
    value_name,
    variable,
)

_VARIABLE = re.compile(r"\{\{([^{}]+)\}\}")
_DYNAMIC = {
    "$guid": "uuid",
    "$randomUUID": "uuid",
    "$randomInt": "random",
    "$timestamp": "now",
    "$isoTimestamp": "now",
}
_SET = re.compile(
    r"(?:pm\.(?:environment|collectionVariables|globals|variables)\.set|"
    r"postman\.set(?:Environment|Global)Variable)"
    r"\(\s*[\"']([^\"']+)[\"']\s*,\s*"
    r"(?:pm\.response\.json\(\)|JSON\.parse\(responseBody\)|[A-Za-z_$][\w$]*)"
    r"((?:\??\.[A-Za-z_$][\w$]*|\[\d+\]|\[[\"'][\w -]+[\"']\])+)\s*\)"
)
_STATUS = re.compile(
    r"to\.have\.status\(\s*(\d{3})\s*\)|response\.code\)\.to\.(?:eql|equal)\(\s*(\d{3})\s*\)|"
    r"responseCode\.code\s*===?\s*(\d{3})"
)
_DEEPEST = 50


@dataclass(slots=True)
class _Found:
    """A request, with the folder at the top that it is in."""

    folder: str
    call: Call
    auth: Entries | None


def read(data: Entries, path: Path) -> Plan:
    """The plan in a collection."""
    return _Reader(data, path).plan


class _Reader:
    def __init__(self, data: Entries, path: Path) -> None:
        self.plan = Plan(clean(text(data, "info", "name")) or path.stem, "a collection of Postman")
        self.plan.redirects = 5  # Postman follows them
        self._notes = self.plan.notes
        self._variables(data)
        self._scripts(data, Call(""), "the collection")
        top = entries(data, "auth") or None
        found = list(self._walk(items(data, "item"), "", top, 0))
        self._authorize(found)
        self._flows(found)

    def _variables(self, data: Entries) -> None:
        for each_one in each(data, "variable"):
            name = text(each_one, "key") or text(each_one, "id")
            value = self._text(each_one.get("value", ""))
            if not name or each_one.get("disabled") is True:
                continue
            if text(each_one, "type") == "secret" or is_secret(name):
                self._notes.add(f"variable {name}", "its value was not copied")
            elif value:
                self.plan.constants[value_name(name)] = value

    def _text(self, value: object) -> str:
        return placed(text(value), _VARIABLE, self._place)

    def _place(self, name: str) -> str:
        name = name.strip()
        if not name.startswith("$"):
            return place(name)
        if name in ("$timestamp", "$isoTimestamp"):
            self._notes.add(f"{{{{{name}}}}}", "milliseconds since 1970 instead")
        elif name not in _DYNAMIC:
            self._notes.add(f"{{{{{name}}}}}", "a UUID instead")
        return place(_DYNAMIC.get(name, "uuid"))

    # ---- requests

    def _walk(
        self, found: list[Any], folder: str, auth: Entries | None, depth: int
    ) -> Iterator[_Found]:
        for one in found:
            item = entries(one)
            name = clean(text(item, "name"))
            if "item" in item:
                if depth >= _DEEPEST:
                    self._notes.add(name, "folders are nested too deeply; left out")
                    continue
                self._scripts(item, Call(""), f"folder {name}")
                inner = entries(item, "auth") or auth
                yield from self._walk(items(item, "item"), folder or name, inner, depth + 1)
            elif "request" in item:
                request = item["request"]
                said = entries(request) or {"url": request, "method": "GET"}
                call = self._call(name, said)
                self._scripts(item, call, name)
                yield _Found(folder, call, entries(said, "auth") or auth)
            else:
                self._notes.add(name, "neither a folder nor a request")

    def _call(self, name: str, said: Entries) -> Call:
        call = Call(self._url(said.get("url"), name), name=name)
        call.method = clean(text(said, "method") or "GET")
        for header in each(said, "header"):
            key = clean(text(header, "key"))
            if header.get("disabled") is True or not key:
                continue
            call.headers[key] = self._text(header.get("value", ""))
        if isinstance(said.get("header"), str) and said["header"]:
            self._notes.add(name, "headers that are one text are not sent")
        self._body(entries(said, "body"), call)
        return call

    def _url(self, said: object, name: str) -> str:
        if isinstance(said, str):
            return self._with_scheme(self._text(said))
        url = entries(said)
        raw = self._text(url.get("raw", ""))
        if not raw:
            host = items(url, "host")
            path = items(url, "path")
            raw = ".".join(map(self._text, host)) or self._text(url.get("host", ""))
            raw += "".join(f"/{self._text(part)}" for part in path)
            if protocol := clean(text(url, "protocol")):
                raw = f"{protocol}://{raw}"
        base = raw.partition("#")[0].partition("?")[0]
        for one in each(url, "variable"):
            key = clean(text(one, "key"))
            value = self._text(one.get("value", "")) or place(key)
            base = re.sub(rf"/:{re.escape(key)}(?=/|$)", lambda _, v=value: f"/{v}", base)
        if isinstance(url.get("query"), list):
            pairs = [
                f"{self._text(one.get('key', ''))}={_encoded(self._text(one.get('value', '')))}"
                for one in each(url, "query")
                if one.get("disabled") is not True
            ]
            return self._with_scheme(base + (f"?{'&'.join(pairs)}" if pairs else ""))
        return self._with_scheme(base + (f"?{raw.partition('?')[2]}" if "?" in raw else ""))

    def _with_scheme(self, url: str) -> str:
        """As Postman does: an address without a scheme is one of http."""
        if not url or "://" in url or PLACE.match(url):
            return url
        return f"http://{url}"

    def _body(self, said: Entries, call: Call) -> None:
        mode = text(said, "mode")
        if not mode or said.get("disabled") is True:
            return
        if mode == "raw":
            call.body = self._text(said.get("raw", ""))
            if text(said, "options", "raw", "language") == "json":
                self._type(call, "application/json")
        elif mode == "graphql":
            said = entries(said, "graphql")
            variables = self._text(said.get("variables", "")) or "{}"
            # Not as ASCII: what stands for a place must stay what it is.
            query = json.dumps(self._text(said.get("query", "")), ensure_ascii=False)
            call.body = f'{{"query": {query}, "variables": {variables}}}'
            self._type(call, "application/json")
        elif mode in ("urlencoded", "formdata"):
            fields = [one for one in each(said, mode) if one.get("disabled") is not True]
            if any(text(one, "type") == "file" for one in fields):
                self._notes.add(call.name, "its files are not sent")
            elif mode == "formdata":
                self._notes.add(call.name, "its form is sent as one of fields, not as one of parts")
            pairs = (
                (self._text(one.get("key", "")), self._text(one.get("value", "")))
                for one in fields
                if text(one, "type") != "file"
            )
            call.body = "&".join(f"{_encoded(key)}={_encoded(value)}" for key, value in pairs)
            self._type(call, "application/x-www-form-urlencoded")
        else:
            self._notes.add(call.name, f"a body of the kind {mode} is not sent")

    def _type(self, call: Call, kind: str) -> None:
        if "content-type" not in {name.lower() for name in call.headers}:
            call.headers["Content-Type"] = kind

    # ---- scripts: what is usual in them

    def _scripts(self, item: Entries, call: Call, name: str) -> None:
        for event in each(item, "event"):
            said = entries(event, "script")
            lines = items(said, "exec") or [text(said, "exec")]
            script = "\n".join(map(str, lines))
            if not script.strip():
                continue
            understood = 0
            if text(event, "listen") == "test":
                understood = self._tests(clean(script), call)
            if not understood:
                self._notes.add(name, f"its script ({text(event, 'listen')}) is not run")
            elif len([line for line in script.splitlines() if line.strip()]) > understood:
                self._notes.add(name, "of its tests only status codes and values are understood")

    def _tests(self, script: str, call: Call) -> int:
        """Values that are taken and codes that are wanted; how many were understood."""
        for name, path in _SET.findall(script):
            plain = re.sub(r"\[[\"']([^\"']+)[\"']\]", r".'\1'", path.replace("?.", "."))
            call.takes.append(Take(value_name(name), json_path=f"${plain}"))
        codes = sorted({code for found in _STATUS.findall(script) for code in found if code})
        if codes:
            call.code = ",".join(codes)
        return len(call.takes) + len(codes)

    # ---- who asks

    def _authorize(self, found: list[_Found]) -> None:
        """What all requests have in common is said once; else each says it."""
        taken = {take.name for each_one in found for take in each_one.call.takes}
        ways = [json.dumps(one.auth, sort_keys=True, default=str) for one in found]
        if found and len(set(ways)) == 1 and found[0].auth and self._of_all(found[0].auth, taken):
            return
        for one in found:
            if one.auth:
                self._of_one(one.call, one.auth, taken)

    def _settings(self, auth: Entries) -> tuple[str, dict[str, str]]:
        kind = text(auth, "type")
        said = auth.get(kind)
        if isinstance(said, list):  # 2.1; before it was a mapping
            return kind, {text(s, "key"): self._text(s.get("value", "")) for s in each(auth, kind)}
        return kind, {name: self._text(value) for name, value in entries(auth, kind).items()}

    def _env(self, value: str, usual: str) -> Secret:
        """Where a secret will lie: named after the variable of the collection that it was in."""
        whole = PLACE.fullmatch(value)
        found = Secret(variable(whole[1] if whole else f"{self.plan.name} {usual}"))
        self._notes.add("auth", f"its {usual} was not copied: put it into ${found.env}")
        return found

    def _of_all(self, auth: Entries, taken: set[str]) -> bool:
        kind, said = self._settings(auth)
        if kind == "bearer" and not names_in(said.get("token", "")) & taken:
            self.plan.bearer = self._env(said.get("token", ""), "token")
            return True
        if kind == "basic" and not names_in(said.get("username", "")) & taken:
            secret = self._env(said.get("password", ""), "password")
            self.plan.basic = (said.get("username", ""), secret)
            return True
        return False

    def _of_one(self, call: Call, auth: Entries, taken: set[str]) -> None:
        kind, said = self._settings(auth)
        if kind == "noauth":
            return
        if kind == "apikey":
            name, value = said.get("key", "X-API-Key"), said.get("value", "")
            if said.get("in") == "query":
                self._notes.add(call.name, f"its key {name} in the address is not sent")
            else:
                known = names_in(value) and names_in(value) <= taken
                call.headers[name] = value if known else self._env(value, "key")
        elif kind in ("bearer", "oauth2"):
            token = said.get("token") or said.get("accessToken", "")
            if names_in(token) and names_in(token) <= taken:
                call.headers["Authorization"] = f"Bearer {token}"
            else:
                call.headers["Authorization"] = self._env(token, "token")
                self._notes.add("auth", "the variable holds the whole header: `Bearer ...`")
        elif kind == "basic":
            call.headers["Authorization"] = self._env("", "authorization")
            self._notes.add("auth", "the variable holds the whole header: `Basic ...`")
        else:
            self._notes.add(call.name, f"authorization of the kind {kind} is not understood")

    # ---- scenarios

    def _flows(self, found: list[_Found]) -> None:
        folders = list(dict.fromkeys(one.folder for one in found))
        needs = {f: self._needs([o.call for o in found if o.folder == f]) for f in folders}
        gives = {take.name for one in found for take in one.call.takes}
        if len(folders) > 1 and any(needs[folder] & gives for folder in folders):
            self._notes.add("", "folders pass values to each other: they are one scenario")
            folders, found = [""], [_Found("", one.call, None) for one in found]
        self.plan.flows = [
            Flow(folder or self.plan.name, [one.call for one in found if one.folder == folder])
            for folder in folders
        ]

    @staticmethod
    def _needs(calls: list[Call]) -> set[str]:
        """The values that these calls use and do not take themselves before."""
        wanted: set[str] = set()
        taken: set[str] = set()
        for call in calls:
            wanted |= {name for piece in call.texts() for name in names_in(piece)} - taken
            taken |= {take.name for take in call.takes}
        return wanted


def _encoded(value: str) -> str:
    """A value of a query or a form, encoded but for its places and what is encoded already."""
    parts = PLACE.split(value)
    for index, part in enumerate(parts):
        parts[index] = place(part) if index % 2 else quote(part, safe="%+,:;@/$!*'()[]")
    return "".join(parts)
