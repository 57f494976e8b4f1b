"""The worked example of the documentation is a fault like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from faultline.changes.model import End
from faultline.injection import registry
from faultline.injection.injector import Injector
from faultline.injection.plan import Order
from faultline.injection.reading import Effect

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
LINES = 40


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as an installed package would bring it: by its entry point."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    point = EntryPoint("certificate", "certificate", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **_: [point])
    registry.families.cache_clear()
    registry.family.cache_clear()
    yield
    registry.families.cache_clear()
    registry.family.cache_clear()
    sys.modules.pop("certificate", None)


@pytest.mark.usefixtures("_installed")
def test_the_example_is_injected_measured_and_undone(tmp_path: Path) -> None:
    file: Path = tmp_path / "service.pem"
    file.write_text("secret")
    before = file.stat()
    params: dict[str, Any] = {"path": str(file)}
    with Injector() as injector:
        record = injector.inject(Order("certificate.missing", params))
        assert not file.exists()
        assert injector.observe(record.uid).effect is Effect.EFFECTIVE
        assert injector.recover(record.uid).end is End.RECOVERED
        assert injector.residue(record.uid) == []
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert file.read_text() == "secret"


@pytest.mark.usefixtures("_installed")
def test_a_missing_file_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    with Injector() as injector, pytest.raises(Exception, match=r"service\.pem"):
        injector.inject(Order("certificate.missing", {"path": str(tmp_path / "service.pem")}))
    assert list(tmp_path.iterdir()) == []


def test_the_example_is_short_and_stands_in_the_documentation() -> None:
    text = (EXAMPLES / "certificate.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= LINES
    for page in ("CONTRIBUTING.md", "docs/writing-a-fault.md"):
        assert text in (EXAMPLES.parents[1] / page).read_text(), page
