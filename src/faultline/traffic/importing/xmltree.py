"""XML without its dangers: no document types, so no entities, nothing fetched, nothing expanded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from faultline.errors import InvalidDocument

_DEEPEST = 400
_MOST = 500_000  # elements


@dataclass(slots=True)
class Node:
    """An element."""

    tag: str
    attributes: dict[str, str]
    children: list[Node] = field(default_factory=list["Node"])
    parts: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def get(self, name: str, default: str = "") -> str:
        return self.attributes.get(name, default)

    def of(self, tag: str) -> Iterator[Node]:
        return (child for child in self.children if child.tag == tag)


def parse(data: bytes, name: str = "document") -> Node:
    """The root element; raises InvalidDocument."""
    root = Node("", {})
    path, count = [root], 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(path) > _DEEPEST or count > _MOST:
            raise InvalidDocument(f"{name} is nested too deeply or too long")
        node = Node(tag, attributes)
        path[-1].children.append(node)
        path.append(node)

    def end(_tag: str) -> None:
        path.pop()

    def text(said: str) -> None:
        path[-1].parts.append(said)

    def refuse(*_said: object) -> None:
        raise InvalidDocument(f"{name} has a document type: that is not read, for it is not safe")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last: an unknown encoding
        raise InvalidDocument(f"{name} is not XML: {error}") from error
    return root.children[0]
