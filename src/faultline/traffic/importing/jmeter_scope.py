"""What applies to the samplers below a point of a JMeter plan: headers, timers, extractors,
assertions, defaults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from faultline.traffic.importing.jmeter_text import Texts, elements, number, properties
from faultline.traffic.importing.plan import (
    Call,
    Notes,
    Secret,
    Take,
    names_in,
    value_name,
)
from faultline.traffic.importing.xmltree import Node

# Types of a response assertion, as the bits of Assertion.test_type.
_MATCH, _CONTAINS, _NOT, _EQUALS, _SUBSTRING, _OR = 1, 2, 4, 8, 16, 32


@dataclass(slots=True)
class Scope:
    """What has been found on the way down."""

    defaults: dict[str, str] = field(default_factory=dict[str, str])
    headers: dict[str, str | Secret] = field(default_factory=dict[str, "str | Secret"])
    think: float = 0.0
    takes: list[Take] = field(default_factory=list[Take])
    codes: list[str] = field(default_factory=list[str])
    patterns: list[str] = field(default_factory=list[str])

    def inner(self) -> Scope:
        """A copy for what is below."""
        return replace(
            self,
            defaults=dict(self.defaults),
            headers=dict(self.headers),
            takes=list(self.takes),
            codes=list(self.codes),
            patterns=list(self.patterns),
        )

    def onto(self, call: Call) -> Call:
        """The call with all that applies to it."""
        call.headers = {**self.headers, **call.headers}
        call.think += self.think
        call.takes = list(self.takes)
        call.code = self.codes[-1] if self.codes else ""
        if len(self.patterns) == 1:
            call.pattern = self.patterns[0]
        elif self.patterns:
            call.pattern = r"(?s)\A" + "".join(f"(?=.*?(?:{each}))" for each in self.patterns)
        return call


class Parts:
    """Reads the elements that go into a scope."""

    def __init__(self, texts: Texts, notes: Notes) -> None:
        self._texts = texts
        self._notes = notes
        self._readers = {
            "HeaderManager": self._headers,
            "ConfigTestElement": self._defaults,
            "ConstantTimer": self._constant_timer,
            "UniformRandomTimer": self._uniform_timer,
            "GaussianRandomTimer": self._gaussian_timer,
            "PoissonRandomTimer": self._gaussian_timer,
            "RegexExtractor": self._regex,
            "JSONPostProcessor": self._json,
            "BoundaryExtractor": self._boundary,
            "ResponseAssertion": self._assertion,
        }

    def knows(self, node: Node) -> bool:
        """Whether this is an element that belongs into a scope."""
        if node.tag == "ConfigTestElement":  # the defaults of something: of HTTP, of FTP, ...
            return "Http" in node.get("guiclass")
        return node.tag in self._readers

    def read(self, node: Node, scope: Scope) -> None:
        """Put what an element says into a scope, if it belongs there."""
        if self.knows(node):
            self._readers[node.tag](node, scope)

    def _note(self, node: Node, what: str) -> None:
        self._notes.add(f"{node.tag} {node.get('testname')!r}", what)

    def _headers(self, node: Node, scope: Scope) -> None:
        for each in elements(node, "HeaderManager.headers"):
            said = properties(each)
            name, value = said.get("Header.name", "").strip(), said.get("Header.value", "")
            if name:
                scope.headers[name] = self._texts.read(value)

    def _defaults(self, node: Node, scope: Scope) -> None:
        said = {name: value for name, value in properties(node).items() if value}
        scope.defaults |= {name: self._texts.read(value) for name, value in said.items()}
        if elements(node, "HTTPsampler.Arguments"):
            self._note(node, "arguments among the defaults are not sent")

    def _milliseconds(self, node: Node, *names: str) -> list[float]:
        said = properties(node)
        found = [self._texts.read(said.get(name, "0")) for name in names]
        for text in found:
            if names_in(text) or not re.fullmatch(r"\s*\d*\.?\d*\s*", text):
                self._note(node, "its time is not a number: no pause")
        return [number(text) / 1e3 for text in found]

    def _constant_timer(self, node: Node, scope: Scope) -> None:
        scope.think += sum(self._milliseconds(node, "ConstantTimer.delay"))

    def _uniform_timer(self, node: Node, scope: Scope) -> None:
        least, spread = self._milliseconds(node, "ConstantTimer.delay", "RandomTimer.range")
        scope.think += least + spread / 2
        if spread:
            self._note(node, f"the pause is always its mean, {least + spread / 2:g} s")

    def _gaussian_timer(self, node: Node, scope: Scope) -> None:
        least, spread = self._milliseconds(node, "ConstantTimer.delay", "RandomTimer.range")
        mean = least + (spread if node.tag == "PoissonRandomTimer" else 0.0)
        scope.think += mean
        self._note(node, f"the pause is always its mean, {mean:g} s")

    def _regex(self, node: Node, scope: Scope) -> None:
        said = properties(node)
        name = said.get("RegexExtractor.refname", "").strip()
        template = said.get("RegexExtractor.template", "$1$").strip()
        which = said.get("RegexExtractor.match_number", "1").strip()
        where = said.get("RegexExtractor.useHeaders", "false").strip().lower()
        if not name or where not in ("", "false", "unescaped", "as_document"):
            self._note(node, "what it takes is not in the body: nothing is taken")
            return
        if template != "$1$" or which not in ("", "0", "1"):
            self._note(node, "the first group of the first match is taken")
        default = said.get("RegexExtractor.default", "") or None
        pattern = said.get("RegexExtractor.regex", "")
        scope.takes.append(Take(value_name(name), default, pattern=pattern))

    def _json(self, node: Node, scope: Scope) -> None:
        said = properties(node)
        names, paths, defaults = (
            said.get(f"JSONPostProcessor.{each}", "").split(";")
            for each in ("referenceNames", "jsonPathExprs", "defaultValues")
        )
        if said.get("JSONPostProcessor.match_numbers", "") not in ("", "0", "1"):
            self._note(node, "the first match is taken")
        for index, (name, path) in enumerate(zip(names, paths, strict=False)):
            if name.strip() and path.strip():
                default = defaults[index] if index < len(defaults) else ""
                take = Take(value_name(name), default or None, json_path=path.strip())
                scope.takes.append(take)

    def _boundary(self, node: Node, scope: Scope) -> None:
        said = properties(node)
        sides = [said.get(f"BoundaryExtractor.{side}", "") for side in ("lboundary", "rboundary")]
        left, right = map(re.escape, sides)
        name = said.get("BoundaryExtractor.refname", "").strip()
        if name and left and right:
            default = said.get("BoundaryExtractor.default", "") or None
            scope.takes.append(Take(value_name(name), default, pattern=f"{left}(.*?){right}"))
        else:
            self._note(node, "nothing is taken")

    def _assertion(self, node: Node, scope: Scope) -> None:
        said = properties(node)
        kind = int(number(said.get("Assertion.test_type", "2")))
        wanted = [
            self._texts.read(child.text)
            for name in ("Asserion.test_strings", "Assertion.test_strings")  # JMeter's own spelling
            for child in elements(node, name)
        ]
        where = said.get("Assertion.test_field", "")
        if any(names_in(text) for text in wanted) or not wanted:
            self._note(node, "it is not checked: what it wants is not constant")
        elif where == "Assertion.response_code":
            self._codes(node, kind, wanted, scope)
        elif where == "Assertion.response_data":
            scope.patterns += self._patterns(node, kind, wanted)
        else:
            self._note(
                node, f"it is not checked: {where.partition('.')[2] or 'this'} is not looked at"
            )

    def _codes(self, node: Node, kind: int, wanted: list[str], scope: Scope) -> None:
        codes = [text.strip() for text in wanted]
        if kind & _NOT or not all(re.fullmatch(r"[1-5]\d\d", code) for code in codes):
            self._note(node, "it is not checked: only codes that are listed can be wanted")
            return
        scope.codes.append(",".join(codes))

    def _patterns(self, node: Node, kind: int, wanted: list[str]) -> list[str]:
        if kind & (_SUBSTRING | _EQUALS):
            wanted = [re.escape(text) for text in wanted]
        if kind & (_MATCH | _EQUALS):
            wanted = [rf"(?s:\A(?:{text})\Z)" for text in wanted]
        if kind & _OR:
            wanted = ["|".join(f"(?:{text})" for text in wanted)]
        if kind & _NOT:
            wanted = [rf"(?s:\A(?!.*(?:{text})))" for text in wanted]
        good: list[str] = []
        for text in wanted:
            try:
                re.compile(text)
                good.append(text)
            except (re.error, OverflowError, RecursionError) as error:
                self._note(node, f"the pattern {text[:60]!r} is none of Python: {error}")
        return good
