"""The kit for drivers of traffic: the example conforms, and each way to be wrong is found."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from faultline.api.traffic import TrafficSpec
from faultline.errors import ApplyFailed
from faultline.injection import extensions
from faultline.testing.extensions import check_installed
from faultline.testing.traffic_kit import check_traffic
from faultline.traffic.plugin import problems
from faultline.traffic.run import run_of

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "traffic"
BASE = """
import asyncio, time
from lines_traffic import Lines, LinesParams
from faultline.traffic.plugin import TrafficPlugin

class Mine(Lines):
    @classmethod
    def params_type(cls):
        return LinesParams
"""
READ: TypeAdapter[Any] = TypeAdapter(TrafficSpec)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in ("lines_traffic", "careless"):
        sys.modules.pop(name, None)


@pytest.fixture
def careless(
    example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, list[str]]]:
    """What the kit says of a driver that differs from the example in this."""

    def check(body: str) -> dict[str, list[str]]:
        (tmp_path / "careless.py").write_text(BASE + body)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        module = importlib.import_module("careless")
        return {name: said for name, said in check_traffic(module.Mine).items() if said}

    return check


@pytest.mark.slow
def test_the_example_conforms_as_an_installed_package(
    example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "lines_traffic-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lines-traffic\nVersion: 1.0\n")
    points = "[faultline.traffic]\nlines = lines_traffic:Lines\n"
    (about / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    extensions.installed.cache_clear()
    told = check_installed("traffic:lines")
    assert not any(told.values()), told
    assert list(told) == [
        "parameters", "counts", "latency from the intended time", "stops on time",
        "a target that has gone",
    ]  # fmt: skip
    document = {"name": "l", "type": "plugin", "plugin": "lines", "rate": 5.0,
                "params": {"port": 70000}}  # fmt: skip
    source = str(Path(__file__).resolve().parents[2] / "src")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{EXAMPLE}:{source}")
    wrong = problems(READ.validate_python(document))
    assert [(one.path, one.given) for one in wrong] == [("params.port", 70000)]
    nobody = problems(READ.validate_python({**document, "plugin": "nobody"}))
    assert [one.path for one in nobody] == ["plugin"]
    with pytest.raises(ApplyFailed, match=r"port"):
        run_of(READ.validate_python(document)).start()
    extensions.installed.cache_clear()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (("    def __init__(self, load): self.params = LinesParams.read(load.options['params'])\n"
         "    @classmethod\n    def target(cls):\n        from contextlib import nullcontext\n"
         "        return nullcontext({})\n"), "yields no parameters"),
        (("    def __init__(self, load):\n"
         "        given = load.options['params']\n"
         "        self.params = LinesParams(port=given['port'])\n"), "no_such_parameter"),
        (("    def __init__(self, load):\n"
         "        try: super().__init__(load)\n"
         "        except Exception as e: raise ValueError('something is wrong') from e\n"),
         "without its name"),
    ],
    ids=["no target", "takes anything", "says nothing"],
)  # fmt: skip
def test_what_a_driver_takes_is_looked_at(
    careless: Callable[[str], dict[str, list[str]]], body: str, said: str
) -> None:
    told = careless(body)
    assert set(told) <= {"parameters", "target"}
    assert said in str(told)


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize(
    ("body", "check", "said"),
    [
        ("    async def turn(self, turn): pass\n", "counts", "each turn asks"),
        (("    async def turn(self, turn):\n"
         "        await asyncio.sleep(0.2)\n        await super().turn(turn)\n"),
         "counts", "left late"),
        ("    async def _exchange(self):\n        return 'no'\n", "counts", "requests failed"),
        (("    async def turn(self, turn):\n"
         "        async def nothing(): return ''\n"
         "        await turn.ask('line', nothing)\n"),
         "latency from the intended time", "does not wait for the answer"),
        (("    async def _exchange(self):\n"
         "        while True:\n"
         "            try: return await super()._exchange()\n"
         "            except asyncio.CancelledError: pass\n"), "stops on time", "went on for"),
        (("    errors = ()\n    async def _exchange(self):\n"
         "        try: return await super()._exchange()\n"
         "        except OSError as e: raise RuntimeError('x') from e\n"),
         "a target that has gone", "not in `errors`"),
        ("    async def open(self):\n        await super()._exchange()\n",
         "a target that has gone", "cannot begin|generator"),
    ],
    ids=["asks nothing", "late", "bad", "does not wait", "cannot be stopped", "raises",
         "needs its target"],
)  # fmt: skip
def test_what_a_driver_does_is_tried(
    careless: Callable[[str], dict[str, list[str]]], body: str, check: str, said: str
) -> None:
    told = careless(body)
    assert list(told) == [check], told
    assert any(word in str(told) for word in said.split("|")), told
