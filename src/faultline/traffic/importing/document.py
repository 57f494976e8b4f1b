"""From what an import has found to a document that is valid, whatever the file had in it."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlsplit

import yaml

from faultline.api.model import API_VERSION
from faultline.api.traffic_parts import BUILT_IN
from faultline.api.traffic_parts import PLACE as WRITTEN
from faultline.errors import InvalidDocument
from faultline.traffic.importing.plan import (
    PLACE,
    Call,
    Flow,
    Notes,
    Plan,
    Secret,
    Take,
    names_in,
    shown,
    slug,
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MOST_STEPS = 200
MOST_FLOWS = 50
_LONGEST_THINK = 3600.0
_ORIGIN = re.compile(r"https?://[^/?#\s\ue000\ue001@]+", re.IGNORECASE)
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CODES = re.compile(r"[1-5]\d\d(-[1-5]\d\d)?(,[1-5]\d\d(-[1-5]\d\d)?)*")


class Writer:
    """Makes one document. What cannot be said in it becomes a note."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.notes = plan.notes
        self._columns = {name for row in plan.rows for name in row}
        self._added: dict[str, str] = {}  # columns that the plan has no value for
        self._literal: dict[str, str] = {}  # texts that only look like places: their columns

    def document(self) -> dict[str, Any]:
        """The document as data; raises InvalidDocument if there was nothing to send."""
        flows = [flow for flow in map(self._flow, _fitted(self.plan, self.notes)) if flow.calls]
        if not flows:
            raise InvalidDocument(
                f"there is no request that could be sent in {self.plan.source}",
                hint="; ".join(self.notes.lines()[:5]),
            )
        base = _common_origin(flows)
        self._lift_headers([call for flow in flows for call in flow.calls], base)
        spec: dict[str, Any] = {"type": "http", "name": slug(self.plan.name) or "imported"}
        spec |= self._load()
        if base:
            spec["baseUrl"] = base
        spec |= self._who()
        scenarios = [self._scenario(flow, base) for flow in flows]
        _name_apart(scenarios)
        spec["scenarios"] = scenarios
        if rows := self._rows():
            feed: dict[str, Any] = {"rows": rows}
            spec["feed"] = feed | ({"order": "unique"} if self.plan.once else {})
        return {
            "apiVersion": API_VERSION,
            "kind": "Traffic",
            "metadata": {"name": spec["name"]},
            "spec": spec,
        }

    def _load(self) -> dict[str, Any]:
        plan = self.plan
        users = max(1, min(plan.users, 100_000))
        found: dict[str, Any] = {"concurrency": users}
        if plan.ramp > 0 and users > 1:
            found = {"concurrency": 1}
            found["stages"] = [{"duration": _seconds(plan.ramp), "concurrency": users}]
        if plan.duration > 0:
            found["duration"] = _seconds(max(0.1, plan.duration))
        return found

    def _who(self) -> dict[str, Any]:
        plan, found = self.plan, dict[str, Any]()
        if plan.bearer:
            found["bearer"] = {"env": plan.bearer.env}
        elif plan.basic:
            user = self.plan.constant(plan.basic[0])
            if names_in(user):
                self.notes.add("basic", "the name of the user is not constant: write it there")
            found["basic"] = {"user": shown(user), "password": {"env": plan.basic[1].env}}
        if headers := self._headers(plan.headers, set(), "headers"):
            found["headers"] = headers
        if not plan.cookies:
            found["cookies"] = False
        if plan.redirects:
            found["redirects"] = min(plan.redirects, 20)
        if not plan.verify:
            found["verify"] = False
        return found

    def _rows(self) -> list[dict[str, str]]:
        more = {**self._added, **{column: text for text, column in self._literal.items()}}
        if not self.plan.rows:
            return [more] if more else []
        columns = sorted(self._columns)
        return [{**{name: row.get(name, "") for name in columns}, **more} for row in self.plan.rows]

    def _lift_headers(self, calls: list[Call], base: str) -> None:
        """What every call says alike is said once; secrets only if all go to one place."""
        if len(calls) < 2:
            return
        counted = Counter((name, value) for call in calls for name, value in call.headers.items())
        apart = any(_origin(call.url) != base for call in calls)
        for (name, value), count in counted.items():
            secret = isinstance(value, Secret)
            if count < len(calls) or (apart if secret else bool(names_in(str(value)))):
                continue
            self.plan.headers[name] = value
            for call in calls:
                del call.headers[name]

    # ---- one flow: which of its calls can be sent

    def _flow(self, flow: Flow) -> Flow:
        calls: list[Call] = []
        for call in flow.calls:
            method = self.plan.constant(call.method).upper()
            if method not in METHODS:
                self.notes.add(_label(call), f"the method {shown(method)!r} is not sent")
                continue
            url = self._address(call)
            if not url:
                continue
            # A copy: a call that is done twice is in the plan once.
            headers, takes = dict(call.headers), list(call.takes)
            calls.append(replace(call, method=method, url=url, headers=headers, takes=takes))
        if len(calls) > MOST_STEPS:
            self.notes.add(flow.name, f"only the first {MOST_STEPS} of its {len(calls)} requests")
        return Flow(flow.name, calls[:MOST_STEPS], flow.weight, flow.go_on)

    def _address(self, call: Call) -> str:
        """The address with what is constant filled in; '' if nothing can be sent there."""
        url = self.plan.constant(call.url).strip().partition("#")[0]
        url = _BLANK.sub(lambda found: f"%{ord(found[0]):02X}", url)
        if not url.lower().startswith(("http://", "https://")):
            if not PLACE.match(url):
                self.notes.add(_label(call), f"{url[:60]!r} is no address of HTTP; not sent")
                return ""
            return url
        scheme, _, rest = url.partition("://")
        authority = re.split(r"[/?]", rest, maxsplit=1)[0]
        if "@" in authority:
            self.notes.add(_label(call), "the name and password in its address were left out")
            rest = authority.rpartition("@")[2] + rest[len(authority) :]
        url = f"{scheme.lower()}://{rest}"
        try:
            parts = urlsplit(PLACE.sub("x", url))
            good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if not good:
            self.notes.add(_label(call), f"{url[:60]!r} is no address; not sent")
        return url if good else ""

    def _written(self, text: str, known: set[str], where: str) -> str:
        """Text as documents have it: `{{name}}` where there is a place, and only there."""
        parts = PLACE.split(self.plan.constant(text))
        for index, part in enumerate(parts):
            if index % 2:
                parts[index] = "{{" + self._known(part, known, where) + "}}"
            else:
                parts[index] = WRITTEN.sub(lambda found: self._unplaced(found[0]), part)
        # Braces of the text next to a place, or either side of one, must not become another one.
        return self._sealed("".join(parts), known)

    def _sealed(self, text: str, known: set[str]) -> str:
        allowed = {*known, *BUILT_IN, *self._columns, *self._added, *self._literal.values()}
        return WRITTEN.sub(lambda f: f[0] if f[1] in allowed else self._unplaced(f[0]), text)

    def _known(self, name: str, known: set[str], where: str) -> str:
        if name not in {*known, *BUILT_IN, *self._columns, *self._added}:
            self._added[name] = ""
            self.notes.add(where, f"there is no value for {name}: fill it in under feed.rows")
        return name

    def _unplaced(self, text: str) -> str:
        """A text that looks like a place, as the value of a column."""
        if text not in self._literal:
            taken = {*self._columns, *self._added, *self._literal.values()}
            number = len(self._literal) + 1
            while f"text{number}" in taken:
                number += 1
            self._literal[text] = f"text{number}"
        return "{{" + self._literal[text] + "}}"

    # ---- one scenario as data

    def _scenario(self, flow: Flow, base: str) -> dict[str, Any]:
        known: set[str] = set()
        steps: list[dict[str, Any]] = []
        for call in flow.calls:
            steps.append(self._step(call, base, known))
            known |= {take.name for take in call.takes}
        found: dict[str, Any] = {"name": slug(flow.name) or "scenario", "steps": steps}
        if flow.weight != 1 and len(self.plan.flows) > 1:
            found["weight"] = max(1, min(flow.weight, 1_000_000))
        if flow.go_on:
            found["continueOnFailure"] = True
        return found

    def _step(self, call: Call, base: str, known: set[str]) -> dict[str, Any]:
        where = _label(call)
        step: dict[str, Any] = {}
        if name := _printable(self.plan.constant(call.name)):
            step["name"] = name
        if call.method != "GET":
            step["method"] = call.method
        within = base and _origin(call.url) == base
        field = "path" if within else "url"
        address = _below(call.url[len(base) :]) if within else call.url
        step[field] = self._written(address, known, where)
        if headers := self._headers(call.headers, known, where):
            step["headers"] = headers
        if call.body:
            step["body"] = self._written(call.body, known, where)
        if call.think > 0:
            step["think"] = _seconds(min(call.think, _LONGEST_THINK))
        call.takes = [take for take in call.takes if self._can_take(take, where)]
        if call.takes:
            step["extract"] = [_extract(take) for take in call.takes]
        if call.code and _CODES.fullmatch(call.code):
            step["code"] = call.code
        elif call.code:
            self.notes.add(where, f"{call.code!r} are no status codes")
        if call.pattern and self._compiles(call.pattern, where):
            step["pattern"] = call.pattern
        return step

    def _headers(
        self, headers: dict[str, str | Secret], known: set[str], where: str
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                self.notes.add(where, f"{name[:40]!r} is no name of a header; not sent")
            elif isinstance(value, Secret):
                found[name] = {"env": value.env}
            else:
                line = " ".join(value.splitlines()) if "\n" in value or "\r" in value else value
                found[name] = self._written(line.replace("\0", ""), known, where)
        return found

    def _can_take(self, take: Take, where: str) -> bool:
        if take.json_path:
            from jsonpath_ng.exceptions import JSONPathError
            from jsonpath_ng.ext.parser import parse

            try:
                parse(take.json_path)
            except JSONPathError as error:
                self.notes.add(where, f"the JSON path {take.json_path!r} of {take.name}: {error}")
                return False
        if not (take.json_path or take.header or take.pattern):
            self.notes.add(where, f"nothing says where {take.name} is in the answer")
            return False
        return not take.pattern or self._compiles(take.pattern, where)

    def _compiles(self, pattern: str, where: str) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it may mean something else one day
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            self.notes.add(where, f"the pattern {pattern[:60]!r} is none of Python: {error}")
            return False
        return True


def write(document: dict[str, Any], plan: Plan) -> str:
    """The document as YAML, with what was not taken over as comments before it."""
    lines = [f"# Made from {plan.source}."]
    if notes := plan.notes.lines():
        lines += ["# What was not taken over as it was:", *(f"#  - {note}" for note in notes)]
    if secrets := sorted(_secrets(document["spec"])):
        lines.append(f"# It reads these variables of the environment: {', '.join(secrets)}")
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, text])


class _Dumper(yaml.SafeDumper):
    """YAML that is read back as it was: other forms than this one change some line breaks."""

    def text(self, data: str) -> yaml.ScalarNode:
        odd = not data.replace("\n", "").isprintable()
        return yaml.ScalarNode("tag:yaml.org,2002:str", data, style='"' if odd else None)


_Dumper.add_representer(str, _Dumper.text)


def _secrets(data: object) -> set[str]:
    """The variables of the environment that a document refers to."""
    if isinstance(data, dict):
        entries = cast("dict[str, object]", data)
        if set(entries) == {"env"}:
            return {str(entries["env"])}
        data = list(entries.values())
    if isinstance(data, list):
        return {name for each in cast("list[object]", data) for name in _secrets(each)}
    return set()


def _fitted(plan: Plan, notes: Notes) -> list[Flow]:
    """No more flows than a document may have: what is too many is done one after the other."""
    flows = plan.flows
    if len(flows) <= MOST_FLOWS:
        return flows
    size = -(-len(flows) // MOST_FLOWS)
    notes.add("", f"{len(flows)} scenarios are too many: {size} of them became one each time")
    groups = [flows[n : n + size] for n in range(0, len(flows), size)]
    return [
        Flow(group[0].name, [c for flow in group for c in flow.calls], len(group), go_on=True)
        for group in groups
    ]


def _common_origin(flows: list[Flow]) -> str:
    found = Counter(_origin(call.url) for flow in flows for call in flow.calls)
    found.pop("", None)
    return found.most_common(1)[0][0] if found else ""


def _origin(url: str) -> str:
    found = _ORIGIN.match(url)
    if not found or url[found.end() : found.end() + 1] not in ("", "/", "?"):
        return ""
    return "" if WRITTEN.search(found[0]) else found[0]


def _below(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _label(call: Call) -> str:
    return shown(call.name or f"{call.method} {call.url}")[:80]


def _printable(name: str) -> str:
    text = shown(name)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:100].strip()


def _extract(take: Take) -> dict[str, Any]:
    where = {"jsonPath": take.json_path, "header": take.header, "pattern": take.pattern}
    found: dict[str, Any] = {"name": take.name, **{key: v for key, v in where.items() if v}}
    return found if take.default is None else {**found, "default": take.default}


def _name_apart(scenarios: list[dict[str, Any]]) -> None:
    """A name of its own for each scenario."""
    taken: set[str] = set()
    for each in scenarios:
        name, number = str(each["name"]), 1
        while each["name"] in taken:
            number += 1
            each["name"] = f"{name[:36].rstrip('-')}-{number}"
        taken.add(each["name"])


def _seconds(value: float) -> str:
    """A length of time as documents have it, to the millisecond."""
    milliseconds = max(1, round(value * 1000))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"
