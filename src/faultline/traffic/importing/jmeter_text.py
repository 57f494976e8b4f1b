"""Texts of JMeter: `${name}` and `${__function(...)}`, and the properties of an element."""

from __future__ import annotations

import re
from collections.abc import Iterator

from faultline.traffic.importing.plan import Notes, clean, place
from faultline.traffic.importing.xmltree import Node

_INNERMOST = re.compile(r"(?<!\\)\$\{([^${}]*)\}")
_CALL = re.compile(r"^(__\w+)\s*(?:\((.*)\))?$", re.DOTALL)
_ARGUMENT = re.compile(r"(?<!\\),")
_NESTED = 6

# Functions of which a place with a value of the turn is the same, or near enough.
_PLACES = {
    "__UUID": "uuid",
    "__threadNum": "user",
    "__counter": "number",
    "__iterationNum": "number",
    "__time": "now",
    "__Random": "random",
    "__RandomString": "uuid",
}
_NEARLY = {
    "__Random": "a number from 0 to 2^31 instead of one between its bounds",
    "__RandomString": "a UUID instead of its letters",
}


class Texts:
    """Reads the texts of one plan."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def read(self, text: str) -> str:
        """Text with places instead of variables and functions."""
        text = clean(text)
        for _ in range(_NESTED):
            found = _INNERMOST.sub(lambda match: self._value(match[1]), text)
            if found == text:
                break
            text = found
        return text.replace("\\$", "$")

    def _value(self, inner: str) -> str:
        call = _CALL.match(inner.strip())
        if not call:
            return place(inner)
        name = call[1]
        arguments = [each.replace("\\,", ",") for each in _ARGUMENT.split(call[2] or "")]
        if name in ("__P", "__property"):
            default = arguments[1 if name == "__P" else 2 :]
            if not default and name == "__P":
                return "1"  # what JMeter takes then
            return default[0] if default else place(arguments[0])
        if name == "__V":
            return place(arguments[0])
        if name == "__time" and arguments[0].strip():
            self._notes.add("", f"${{{inner}}}: milliseconds since 1970 instead of its format")
        if name in _PLACES:
            if name in _NEARLY:
                self._notes.add("", f"${{{inner}}}: {_NEARLY[name]}")
            return place(_PLACES[name])
        self._notes.add("", f"the function ${{{inner}}} is not understood")
        return place(name.strip("_"))


def properties(node: Node) -> dict[str, str]:
    """The plain properties of an element, as they are written."""
    return {
        child.get("name"): child.text.strip() if child.tag != "stringProp" else child.text
        for child in node.children
        if child.tag.endswith("Prop") and not child.children
    }


def elements(node: Node, name: str) -> list[Node]:
    """The elements within a property that is a collection, also inside an element property."""
    for child in node.children:
        if child.get("name") != name:
            continue
        if child.tag == "collectionProp":
            return child.children
        for inner in child.of("collectionProp"):
            return inner.children
    return []


def pairs(tree: Node) -> Iterator[tuple[Node, Node]]:
    """The elements of a `hashTree`, each with the tree of what is below it."""
    children = tree.children
    for index, child in enumerate(children):
        if child.tag == "hashTree":
            continue
        after = children[index + 1] if index + 1 < len(children) else None
        yield (
            child,
            after if after is not None and after.tag == "hashTree" else Node("hashTree", {}),
        )


def number(text: str, default: float = 0.0) -> float:
    """A finite number of at least 0; else the default."""
    try:
        found = float(text)
    except ValueError:
        return default
    return found if 0.0 <= found < 1e12 else default
