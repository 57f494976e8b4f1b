"""How deep and how large a YAML document may be: looked at before anything is built of it."""

from __future__ import annotations

from typing import Any, cast

import yaml

from faultline.errors import InvalidDocument

DEEPEST = 100
"""Levels of a document."""
MOST = 200_000
"""Values of a document, those that are referred to counted each time."""


def check(text: str, name: str) -> None:
    """Refuse what is deeper or larger than it looks, before it is built: the reader goes down as
    deep as the text does, and a part that is referred to is there once more for each reference.
    """
    sizes: dict[str, int] = {}  # by anchor
    open_: list[tuple[str | None, int]] = [(None, 0)]  # anchors and sizes of what has not ended
    try:
        for event in yaml.parse(text, yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, 1))
            elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent | yaml.AliasEvent):
                anchor, size = _ended(event, open_, sizes, name)
                if anchor:
                    sizes[anchor] = size
                above, so_far = open_.pop()
                open_.append((above, so_far + size))
            if len(open_) > DEEPEST or open_[-1][1] > MOST:
                raise InvalidDocument(f"{name} has more than {DEEPEST} levels or {MOST} values")
    except yaml.YAMLError:
        return  # who reads it says where it is wrong


def _ended(
    event: yaml.Event, open_: list[tuple[str | None, int]], sizes: dict[str, int], name: str
) -> tuple[str | None, int]:
    """The anchor of what has ended, and how much it is."""
    if isinstance(event, yaml.CollectionEndEvent):
        return open_.pop()
    if isinstance(event, yaml.ScalarEvent):
        return event.anchor, 1 + len(event.value) // 100
    anchor: str = cast("Any", event).anchor
    if anchor not in sizes:
        raise InvalidDocument(f"{name} refers to {anchor!r} within itself")
    return None, sizes[anchor]
