"""A plan of JMeter (.jmx): each thread group is a scenario, chosen as often as it has threads."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

from faultline.traffic.importing import xmltree
from faultline.traffic.importing.jmeter_scope import Parts, Scope
from faultline.traffic.importing.jmeter_text import Texts, elements, number, pairs, properties
from faultline.traffic.importing.plan import (
    PLACE,
    Call,
    Flow,
    Plan,
    Secret,
    clean,
    place,
    shown,
    value_name,
    variable,
)
from faultline.traffic.importing.xmltree import Node

_MOST_ROWS = 1000
_MOST_LOOPS = 20
_SAMPLERS = ("HTTPSamplerProxy", "HTTPSampler", "HTTPSampler2")
_PLAIN = ("GenericController", "RecordingController")
_CONTROLLERS = {
    "TransactionController": "its requests have figures, it has none of its own",
    "OnceOnlyController": "its requests are sent in every turn",
    "IfController": "its condition is not looked at: its requests are sent in every turn",
    "WhileController": "its requests are sent once in every turn",
    "ForeachController": "its requests are sent once in every turn",
    "RunTime": "its requests are sent once in every turn",
    "RandomController": "all its requests are sent, one after the other",
    "RandomOrderController": "its requests are sent in the order in which they stand",
    "InterleaveControl": "all its requests are sent, one after the other",
    "SwitchController": "all its requests are sent, one after the other",
    "ThroughputController": "its requests are sent in every turn",
    "CriticalSectionController": "users do not wait for each other",
}
_LISTENERS = ("ResultCollector", "Summariser", "BackendListener")


def read(data: bytes, path: Path) -> Plan:
    """The plan in a file; raises InvalidDocument."""
    root = xmltree.parse(data, str(path))
    plan = Plan(path.stem, "a plan of JMeter", cookies=False)
    tree = next(root.of("hashTree"), Node("hashTree", {}))
    _Reader(plan, path.parent).read(tree)
    return plan


class _Reader:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._notes = plan.notes
        self._folder = folder
        self._texts = Texts(plan.notes)
        self._parts = Parts(self._texts, plan.notes)
        self._pause = 0.0  # of an action, until the next request
        self._users = 0
        self._special: dict[str, Callable[[Node], None]] = {
            "Arguments": self._variables,
            "CookieManager": self._cookies,
            "AuthManager": self._authorization,
            "CSVDataSet": self._rows,
            **dict.fromkeys(_LISTENERS, self._listener),
        }

    def read(self, tree: Node) -> None:
        for node, below in pairs(tree):
            if node.tag == "TestPlan":
                self._plan.name = node.get("testname") or self._plan.name
                self._variables(node, "TestPlan.user_defined_variables")
                self._test_plan(below)
            else:
                self._unknown(node)
        self._plan.users = max(1, self._users)

    def _test_plan(self, tree: Node) -> None:
        scope = self._scope(tree, Scope())
        for node, below in pairs(tree):
            if not self._enabled(node):
                continue
            if node.tag in ("SetupThreadGroup", "PostThreadGroup"):
                self._note(node, "what is done once before or after the load is not done")
            elif node.tag.endswith("ThreadGroup"):
                self._group(node, below, scope)
            elif not self._is_scope(node):
                self._unknown(node)

    def _group(self, node: Node, tree: Node, scope: Scope) -> None:
        said = {name: self._texts.read(text) for name, text in properties(node).items()}
        threads = max(1, int(self._number(said.get("ThreadGroup.num_threads", "1"), 1)))
        if node.tag != "ThreadGroup":
            self._note(node, "only thread groups of JMeter itself are understood: one user")
        self._users += threads
        plan = self._plan
        plan.ramp = max(plan.ramp, self._number(said.get("ThreadGroup.ramp_time", "0")))
        if said.get("ThreadGroup.scheduler", "false") == "true":
            length = self._number(said.get("ThreadGroup.duration", "0"))
            plan.duration = max(plan.duration, length)
            if self._number(said.get("ThreadGroup.delay", "0")):
                self._note(node, "it begins with the others, without its delay")
        loop = next((c for c in node.children if c.get("name").endswith("main_controller")), None)
        loops = properties(loop).get("LoopController.loops", "-1") if loop else "-1"
        if loops.strip() not in ("-1", ""):
            self._note(node, f"it repeats until the traffic ends, not {loops} times")
        go_on = said.get("ThreadGroup.on_sample_error", "continue") == "continue"
        calls = self._calls(tree, scope)
        plan.flows.append(Flow(node.get("testname") or "users", calls, threads, go_on))

    def _calls(self, tree: Node, outer: Scope) -> list[Call]:
        scope = self._scope(tree, outer)
        calls: list[Call] = []
        for node, below in pairs(tree):
            if not self._enabled(node) or self._is_scope(node):
                continue
            if node.tag in _SAMPLERS:
                calls += self._sampler(node, below, scope)
            elif node.tag == "TestAction":
                self._action(node)
            elif node.tag == "LoopController":
                calls += self._loop(node, self._calls(below, scope))
            elif node.tag in _PLAIN or node.tag in _CONTROLLERS:
                if node.tag in _CONTROLLERS:
                    self._note(node, _CONTROLLERS[node.tag])
                calls += self._calls(below, scope)
            else:
                self._unknown(node)
        return calls

    def _loop(self, node: Node, calls: list[Call]) -> list[Call]:
        loops = int(
            self._number(self._texts.read(properties(node).get("LoopController.loops", "1")))
        )
        if not 1 <= loops <= _MOST_LOOPS:
            self._note(node, "its requests are sent once in every turn")
            return calls
        return calls * loops

    def _action(self, node: Node) -> None:
        said = properties(node)
        if said.get("ActionProcessor.action") == "1":
            pause = self._texts.read(said.get("ActionProcessor.duration", "0"))
            self._pause += self._number(pause) / 1e3
        else:
            self._note(node, "nothing is stopped")

    # ---- scope

    def _is_scope(self, node: Node) -> bool:
        """Whether this was dealt with when the scope was made."""
        return node.tag in self._special or self._parts.knows(node)

    def _scope(self, tree: Node, outer: Scope) -> Scope:
        scope = outer.inner()
        for node, below in pairs(tree):
            if node.get("enabled", "true") != "true":
                continue
            special = self._special.get(node.tag)
            if special:
                special(node)
            else:
                self._parts.read(node, scope)
            if special and below.children:
                self._notes.add(node.tag, "what is below it was left out")
        return scope

    def _variables(self, node: Node, within: str = "Arguments.arguments") -> None:
        for each in elements(node, within):
            said = properties(each)
            if name := said.get("Argument.name", "").strip():
                value = self._texts.read(said.get("Argument.value", ""))
                self._plan.constants[value_name(name)] = value

    def _cookies(self, _node: Node) -> None:
        self._plan.cookies = True

    def _listener(self, node: Node) -> None:
        self._note(node, "not needed: figures are kept with the run")

    def _authorization(self, node: Node) -> None:
        found = [properties(each) for each in elements(node, "AuthManager.auth_list")]
        names = {each.get("Authorization.username", "") for each in found}
        if len(names) != 1 or self._plan.basic:
            self._note(node, "several names and passwords: none is sent")
            return
        user = self._texts.read(names.pop())
        secret = Secret(variable(f"{shown(user)} password"))
        self._plan.basic = (user, secret)
        self._note(node, f"its password was not copied: put it into ${secret.env}")

    def _rows(self, node: Node) -> None:
        """CSV Data Set: its rows become the document's."""
        said = {name: self._texts.read(text) for name, text in properties(node).items()}
        names = [value_name(n) for n in said.get("variableNames", "").split(",") if n.strip()]
        rows, more = self._table(node, said)
        if not names and rows:
            names, rows = [value_name(name) for name in rows[0]], rows[1:]
        elif rows and said.get("ignoreFirstLine", "false") == "true":
            rows = rows[1:]
        if not rows:
            self._note(node, "it has no rows that could be read: fill them in under feed.rows")
            rows = [[""] * len(names)] if names else []
        if more:
            self._note(node, f"only its first {_MOST_ROWS} rows")
        made = [dict(zip(names, (*row, *[""] * len(names)), strict=False)) for row in rows]
        if said.get("recycle", "true") != "true" and said.get("stopThread", "false") == "true":
            self._plan.once = True
        earlier = self._plan.rows
        if earlier and made:  # two tables, side by side
            many = max(len(earlier), len(made))
            made = [{**earlier[n % len(earlier)], **made[n % len(made)]} for n in range(many)]
        self._plan.rows = made or earlier

    def _table(self, node: Node, said: dict[str, str]) -> tuple[list[list[str]], bool]:
        """The rows of its file, and whether it has more than are read."""
        delimiter = {"\\t": "\t", "": ","}.get(
            said.get("delimiter", ","), said.get("delimiter", ",")
        )
        encoding = said.get("fileEncoding") or "utf-8"
        path = self._folder / shown(self._plan.constant(said.get("filename", "")))
        if len(delimiter) != 1:
            return [], False
        try:
            with path.open(newline="", encoding=encoding, errors="replace") as file:
                found: list[list[str]] = []
                for row in csv.reader(file, delimiter=delimiter):
                    if len(found) > _MOST_ROWS + 1:
                        return found[: _MOST_ROWS + 1], True
                    if row:
                        found.append([clean(cell) for cell in row])
                return found, False
        except (OSError, LookupError, ValueError, csv.Error) as error:
            self._note(node, f"{path} cannot be read: {getattr(error, 'strerror', '') or error}")
            return [], False

    # ---- samplers

    def _sampler(self, node: Node, below: Node, outer: Scope) -> list[Call]:
        scope = self._scope(below, outer)
        for child, _ in pairs(below):
            if self._enabled(child) and not self._is_scope(child):
                self._unknown(child)
        said = {name: self._texts.read(text) for name, text in properties(node).items()}
        said = {**scope.defaults, **{name: text for name, text in said.items() if text}}
        call = Call("", said.get("HTTPSampler.method", "GET").strip(), node.get("testname"))
        call.think, self._pause = self._pause, 0.0
        call.url = self._address(said)
        self._arguments(node, said, call)
        if elements(node, "HTTPsampler.Files"):
            self._note(node, "its files are not sent")
        if said.get("HTTPSampler.image_parser") == "true":
            self._note(node, "what the page embeds is not fetched")
        if "true" in (
            said.get("HTTPSampler.follow_redirects"),
            said.get("HTTPSampler.auto_redirects"),
        ):
            self._plan.redirects = 5
        return [scope.onto(call)]

    def _address(self, said: dict[str, str]) -> str:
        path = said.get("HTTPSampler.path", "").strip()
        if path.lower().startswith(("http://", "https://")):
            return path
        domain = said.get("HTTPSampler.domain", "").strip() or place("host")
        protocol = self._plan.constant(said.get("HTTPSampler.protocol", "")).strip().lower()
        protocol = protocol or "http"
        if PLACE.search(protocol):  # a scheme cannot be a place
            protocol = "http"
        port = self._plan.constant(said.get("HTTPSampler.port", "")).strip()
        usual = {"http": "80", "https": "443"}.get(protocol)
        where = f"{domain}:{port}" if port and port != usual else domain
        return f"{protocol}://{where}{path if path.startswith('/') else f'/{path}'}"

    def _arguments(self, node: Node, said: dict[str, str], call: Call) -> None:
        """Arguments: the body as it is, a form, or a query."""
        given = [properties(each) for each in elements(node, "HTTPsampler.Arguments")]
        if said.get("HTTPSampler.postBodyRaw") == "true":
            call.body = "".join(self._texts.read(each.get("Argument.value", "")) for each in given)
            return
        fields: list[str] = []
        for each in given:
            name, value = (
                self._texts.read(each.get(f"Argument.{p}", "")) for p in ("name", "value")
            )
            encode = each.get("HTTPArgument.always_encode") == "true"
            fields.append(_field(name, value) if encode or "%" not in value else f"{name}={value}")
        if not fields:
            return
        if call.method.upper() in ("POST", "PUT", "PATCH"):
            call.body = "&".join(fields)
            call.headers["Content-Type"] = "application/x-www-form-urlencoded"
            if said.get("HTTPSampler.DO_MULTIPART_POST") == "true":
                self._note(node, "its form is sent as one of fields, not as one of parts")
        else:
            call.url += ("&" if "?" in call.url else "?") + "&".join(fields)

    # ---- notes

    def _enabled(self, node: Node) -> bool:
        if node.get("enabled", "true") == "true":
            return True
        self._note(node, "disabled; left out")
        return False

    def _number(self, text: str, default: float = 0.0) -> float:
        text = self._plan.constant(text)
        if PLACE.search(text):
            self._notes.add("", f"{shown(text, '${{{}}}')} is not a number: {default:g} is taken")
        return number(text.strip() or str(default), default)

    def _note(self, node: Node, what: str) -> None:
        self._notes.add(f"{node.tag} {node.get('testname')!r}", what)

    def _unknown(self, node: Node) -> None:
        self._note(node, "not understood")


def _field(name: str, value: str) -> str:
    """A field of a form, encoded but for its places."""
    parts = PLACE.split(value)
    for index, part in enumerate(parts):
        parts[index] = place(part) if index % 2 else quote(part, safe="")
    key = PLACE.sub(lambda found: place(found[1]), name)
    return f"{urlencode({'': key})[1:] if not PLACE.search(key) else key}={''.join(parts)}"
