"""What a process pays for before it measures or sends anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
HEAVY = {"aiohttp", "celpy", "hdrh", "http.client", "ssl", "urllib.request", "asyncio", "uvloop"}
HEAVY |= {"grpc", "h2", "jsonpath_ng", "redis", "sqlalchemy"}
LIGHT = ("tcp", "udp", "icmp", "dns", "command", "log", "file", "process", "traffic", "invariant")


def loaded(statement: str) -> set[str]:
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_registry_loads_no_type_of_probe() -> None:
    modules = loaded("import faultline.probes.prober as p; p.types()")
    assert not modules & HEAVY
    assert not {f"faultline.probes.{kind}" for kind in ("http", "dns", "command", "log")} & modules


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        ("http", {"http.client", "ssl"}),
        ("prometheus", {"http.client", "ssl"}),
        ("redis", {"ssl"}),
        *((kind, set()) for kind in (*LIGHT, "grpc", "sql")),
    ],
)
def test_a_probe_loads_only_what_it_needs(kind: str, allowed: set[str]) -> None:
    assert loaded(f"import faultline.probes.{kind}") & HEAVY <= allowed


def test_the_engine_s_side_of_traffic_loads_no_http_client() -> None:
    assert not loaded("import faultline.traffic.run") & (HEAVY - {"asyncio"})


def test_the_generator_loads_no_models_of_documents() -> None:
    assert not {"pydantic", "yaml", "click", "rich"} & loaded("import faultline.traffic.generator")
