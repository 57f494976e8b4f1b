"""The page about probes: every example is accepted, every type is told of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from faultline.api.probe import ProbeBase, ProbeSpec
from faultline.probes.prober import types

PAGE = Path(__file__).resolve().parents[2] / "docs" / "probes.md"
READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
EXAMPLES = [
    each for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for each in yaml.safe_load(block)
]  # fmt: skip


def rows() -> dict[str, str]:
    """The units of each type, as the table has them."""
    found = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    return {kind: units.strip() for kind, units in found if kind in types()}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_an_example_is_a_probe(example: dict[str, Any]) -> None:
    probe: ProbeBase = READ.validate_python(example)
    assert READ.validate_python(probe.to_json()) == probe
    units = re.split("; ?", rows()[example["type"]])
    assert (probe.value_unit() or "none") in units or units == ["that of its parts"]


def test_every_type_has_a_row_and_an_example() -> None:
    assert set(rows()) == set(types())
    assert {example["type"] for example in EXAMPLES} == set(types())


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"type": "sql", "url": "postgresql://a:b@c/d", "query": "q"}, "password"),
        ({"type": "sql", "url": "postgresql://c/d?password=b", "query": "q"}, "password"),
        ({"type": "http", "url": "http://a:b@c/"}, "basic"),
        ({"type": "http", "url": "http://c/", "measure": "tlsExpiry"}, "https"),
        ({"type": "http", "url": "http://c/", "measure": "json"}, "jsonPath"),
        ({"type": "http", "url": "http://c/", "jsonPath": "$.["}, "JSON path"),
        ({"type": "http", "url": "http://c/", "key": "/k"}, "certificate"),
        ({"type": "udp", "host": "c", "port": 1, "payload": "xyz", "encoding": "hex"}, "hex"),
        ({"type": "redis", "command": ["PING"], "user": "u"}, "password"),
        ({"type": "grpc", "host": "c", "port": 1, "ca": "/ca"}, "tls"),
        ({"type": "log", "path": "/l"}, "pattern"),
        ({"type": "file", "path": "/l", "measure": "matches"}, "pattern"),
        ({"type": "invariant", "of": []}, "at least 1"),
        ({"type": "invariant", "of": {"type": "icmp", "host": "c"}, "within": "1s"}, "with"),
        ({"type": "invariant", "of": {"type": "icmp", "host": "c"}, "rule": "agrees"}, "with"),
        ({"type": "invariant", "of": {"type": "icmp", "host": "c", "name": "x"}}, "name"),
        ({"type": "invariant", "of": {"type": "invariant", "of": {"type": "icmp"}}}, "tags"),
    ],
)
def test_what_does_not_fit_together_is_refused(field: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        READ.validate_python({"name": "it", **field})
